"""What a run's record keeps for whoever measures the model again: held-out rows, named rewards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risen_plugin import use
from risen_plugin.config import Use, Weighted
from risen_plugin.config.choices import as_named
from risen_plugin.errors import DataError
from risen_plugin.record.held_out import HELD_OUT, read_held_out, write_held_out


def test_held_out_rows_come_back_by_their_sets(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Zoë?"}]
    rows = {"guard": [{"prompt": chat, "kwargs": [None, {"n": 1.5}]}], "unseen": [{"prompt": "a"}]}
    write_held_out(tmp_path, rows)
    found = read_held_out(tmp_path)
    assert found is not None
    assert found.rows == {**rows, "report": []}
    assert found.left_out == 0


def test_a_tuple_comes_back_as_a_list(tmp_path: Path) -> None:
    write_held_out(tmp_path, {"guard": [{"prompt": "a", "band": (1, 2)}]})
    found = read_held_out(tmp_path)
    assert found is not None
    assert found.rows["guard"] == [{"prompt": "a", "band": [1, 2]}]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "the row.kwargs is of type object, which is no JSON"),
        ([{"a": float("nan")}], "the row.kwargs.0.a is nan, which JSON lacks"),
        ({1: "a"}, "the row.kwargs has the key 1, which is no text"),
    ],
)
def test_a_row_that_is_no_json_is_left_out_with_the_reason(
    value: Any, why: str, tmp_path: Path
) -> None:
    write_held_out(tmp_path, {"guard": [{"prompt": "a", "kwargs": value}, {"prompt": "b"}]})
    first, second = map(json.loads, (tmp_path / HELD_OUT).read_text().splitlines())
    assert first == {"set": "guard", "left_out": why}
    assert second == {"set": "guard", "row": {"prompt": "b"}}
    found = read_held_out(tmp_path)
    assert found is not None
    assert (found.rows["guard"], found.left_out) == ([{"prompt": "b"}], 1)


def test_a_record_of_an_earlier_release_has_none(tmp_path: Path) -> None:
    assert read_held_out(tmp_path) is None


@pytest.mark.parametrize("line", ["{", "3", '{"set": "train", "row": {}}', '{"set": "guard"}'])
def test_a_line_that_is_no_row_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / HELD_OUT).write_text(line + "\n")
    with pytest.raises(DataError, match=rf"{HELD_OUT}:1 is no"):
        read_held_out(tmp_path)


def of_python(completions: list[Any], **columns: Any) -> list[float]:
    return [1.0] * len(completions)


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ("exact", {"use": "exact", "options": {}}),
        (use("length", low=1, weight=2.0), {"use": "length", "options": {"low": 1}}),
        (Weighted("exact", weight=3.0), {"use": "exact", "options": {}}),
        (
            {"use": "regex", "options": {"pattern": "a"}, "weight": 2.0},
            {"use": "regex", "options": {"pattern": "a"}},
        ),
        (
            use("both", of=[use("exact")]),
            {"use": "both", "options": {"of": [{"use": "exact", "options": {}}]}},
        ),
        (of_python, None),
        (Weighted(of_python), None),
        (use("both", of=[of_python]), None),
    ],
)
def test_a_reward_is_recorded_as_it_was_named(wanted: Any, named: Any) -> None:
    assert as_named(wanted) == named


def test_what_is_recorded_makes_the_reward_again(reward_of: Callable[..., Any]) -> None:
    first = use("length", low=1, high=4)
    named = as_named(first)
    assert named is not None
    assert reward_of(Use(named["use"], named["options"])) == reward_of(first)


@pytest.fixture
def reward_of() -> Callable[..., Any]:
    from risen_plugin.plugins import Plugins
    from risen_plugin.plugins.lookup import look_up

    plugins = Plugins.load()
    return lambda wanted: look_up(plugins, "reward", wanted).value
