"""The environment of a run, and counts of constraints: plain data in, plain data out."""

from __future__ import annotations

from typing import Any

import pytest

from risen_plugin.constraints.judging import (
    constraints_of,
    counts_by_constraint,
    counts_by_family,
    met_by,
)
from risen_plugin.record.description import (
    environment_of,
    hash_of,
    model_of,
    since_first_start,
)

COMMA = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}


def described(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "description": {"seed": 0, "output_dir": "here"},
        "distributions": ["click", "no-such-distribution", "__main__"],
        "held_out": {"guard": [{"prompt": "a"}], "report": []},
        "probe": [([1, 2], [-100, 2])],
        "devices": ["cpu"],
    }
    changed = given | changes
    return environment_of(changed.pop("description"), **changed)


def test_versions_are_of_the_libraries_and_of_plugins_that_are_distributions() -> None:
    versions = described()["versions"]
    assert {"torch", "transformers", "trl", "click"} <= versions.keys()
    assert "no-such-distribution" not in versions


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({}, set()),
        ({"description": {"output_dir": "there", "seed": 0}}, set()),
        ({"description": {"seed": 1, "output_dir": "here"}}, {"config"}),
        ({"held_out": {"guard": [], "report": [{"prompt": "a"}]}}, {"held_out"}),
        ({"probe": [([1, 3], [-100, 3])]}, {"probe"}),
    ],
)
def test_a_hash_changes_with_its_data_alone(changes: dict[str, Any], changed: set[str]) -> None:
    first, second = described()["hashes"], described(**changes)["hashes"]
    assert {name for name in first if first[name] != second[name]} == changed


@pytest.mark.parametrize(
    ("names", "named"),
    [({"name_or_path": "org/tiny"}, {"name": "org/tiny"}), ({"name_or_path": ""}, {}), ({}, {})],
)
def test_a_model_is_named_by_what_it_was_loaded_from(
    names: dict[str, str], named: dict[str, str]
) -> None:
    base = type("Tiny", (), names)()
    adapted = type("Peft", (), {"get_base_model": lambda self: base})()
    assert model_of(base) == model_of(adapted) == {**named, "class": "Tiny"}


def test_the_adapter_that_is_trained_is_named() -> None:
    adapted = {"get_base_model": lambda self: self, "active_adapter": "mine"}
    assert model_of(type("Tiny", (), adapted)()) == {"class": "Tiny", "adapter": "mine"}


def test_a_resumed_run_began_when_it_first_did() -> None:
    first, second = ({"environment": {"begun": day, "cpus": 2}} for day in ("Monday", "Friday"))
    resumed = since_first_start(second, first)
    assert resumed == {"environment": {"begun": "Monday", "resumed": "Friday", "cpus": 2}}
    assert since_first_start(first, {}) == first
    assert since_first_start(first, {"environment": "odd"}) == first


def test_where_an_object_lies_in_memory_does_not_count() -> None:
    assert hash_of({"uses": "<function f at 0x7f2cdd4ce700>"}) == hash_of(
        {"uses": "<function f at 0x7f2cdd4ce660>"}
    )
    assert hash_of("f") != hash_of("g")


@pytest.mark.parametrize(
    ("answer", "columns", "met"),
    [
        ("no comma", COMMA, [True]),
        ("a, b", COMMA, [False]),
        ([{"role": "assistant", "content": "a, b"}], COMMA, [False]),
        ("a", {}, None),
        ("a", {"instruction_id_list": [], "kwargs": []}, None),
        ("a", {"instruction_id_list": ["no:such"], "kwargs": [{}]}, None),
        ("a", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": "odd"}, None),
        ("a", {"instruction_id_list": "odd"}, None),
    ],
)
def test_an_answer_meets_constraints_where_that_can_be_told(
    answer: Any, columns: dict[str, Any], met: list[bool] | None
) -> None:
    assert met_by(answer, "prompt", columns) == met


def test_ids_are_told_as_often_as_they_are_asked_for() -> None:
    ids = ["keywords:existence", "keywords:existence"]
    assert constraints_of({"instruction_id_list": ids}) == ids


def test_answers_are_counted_by_constraint_and_by_family() -> None:
    rows = [
        {"prompt": "a", "family": "x", **COMMA},
        {"prompt": "b", "family": "y", **COMMA},
        {"prompt": "c", "family": "x"},
        {"prompt": "d"},
    ]
    answers = ["one", "one, two", "three", "four"]
    assert counts_by_constraint(rows, answers) == {"punctuation:no_comma": (1, 2)}
    assert counts_by_family(rows, [True, False, None, True]) == {"x": (1, 1), "y": (0, 1)}
