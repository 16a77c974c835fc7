"""What somebody meets who configures RISEN from Python: signatures, mappings, messages, copies."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

import risen_plugin
from risen_plugin import (
    BreakerConfig,
    BuffersConfig,
    ControlConfig,
    CurriculumConfig,
    GateConfig,
    GuardConfig,
    LoraSettings,
    RisenCallback,
    RisenConfig,
    TaskProbe,
    Weighted,
    use,
)
from risen_plugin.config import RisenFields, Use
from risen_plugin.config.choices import GRADING
from risen_plugin.errors import ConfigError


def short(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text) < 9) for text in completions]


def rows(*, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
    return [{"prompt": "Say something."}] * count


def test_the_signature_of_a_callback_has_each_field_of_its_configuration() -> None:
    shown = inspect.signature(RisenCallback).parameters
    fields = [entry.name for entry in dataclasses.fields(RisenConfig)]
    assert list(shown) == ["config", *fields]
    assert shown["scheduler"].default == "plateau"
    inspect.signature(RisenCallback).bind(RisenConfig([short], rows))


def test_type_checkers_know_the_same_fields() -> None:
    fields = {entry.name for entry in dataclasses.fields(RisenConfig)}
    assert set(get_type_hints(RisenFields)) == fields


def test_the_signature_of_use_has_how_a_reward_counts() -> None:
    shown = list(inspect.signature(use).parameters)
    assert shown == ["name", *GRADING, "options"]


def test_a_public_name_is_completed_before_it_is_loaded() -> None:
    assert set(risen_plugin.__all__) <= set(dir(risen_plugin))


def test_a_mapping_works_wherever_yaml_takes_one() -> None:
    task = {"rows": [{"prompt": "a"}], "reward": {"use": "length", "options": {"low": 1}}}
    config = RisenConfig(
        rewards=[{"use": "length", "options": {"low": 1}, "weight": 2.0}, short],
        generator={"use": "jsonl", "options": {"path": "rows.jsonl"}},
        scheduler={"use": "after", "options": {"steps": 5}},
        held_out={"use": "jsonl", "options": {"path": "held.jsonl"}},
        guard={"rows": 8, "domain": {"use": "exact"}, "tasks": {"one": task}},
        control={"window": 3},
        breaker={"window": 8},
        gate={"reward": "length", "quality": {"use": "exact"}},
        lora={"r": 4},
        curriculum={"initial": 8},
        buffers={"largest": 8},
    )
    length = use("length", low=1)
    assert config == RisenConfig(
        rewards=[use("length", low=1, weight=2.0), short],
        generator=use("jsonl", path="rows.jsonl"),
        scheduler=use("after", steps=5),
        held_out=use("jsonl", path="held.jsonl"),
        guard=GuardConfig(
            rows=8, domain=use("exact"), tasks={"one": TaskProbe(task["rows"], length)}
        ),
        control=ControlConfig(window=3),
        breaker=BreakerConfig(window=8),
        gate=GateConfig("length", use("exact")),
        lora=LoraSettings(r=4),
        curriculum=CurriculumConfig(initial=8),
        buffers=BuffersConfig(largest=8),
    )
    assert GuardConfig(tasks={"one": task}).tasks["one"].reward == length


def test_a_callback_takes_the_mapping_of_a_whole_configuration() -> None:
    callback = RisenCallback({"rewards": [short], "generator": rows, "lora": {"r": 4}})
    assert callback.config == RisenConfig([short], rows, lora=LoraSettings(r=4))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GuardConfig(rws=8), "GuardConfig has no key 'rws'; did you mean 'rows'?"),
        (lambda: LoraSettings(rank=8), "LoraSettings has no key 'rank'. It takes: alpha, r"),
        (lambda: RisenConfig(rewrds=[short]), "RisenConfig has no key 'rewrds'; did you mean"),
        (lambda: RisenConfig([short]), "missing a required argument: 'generator'"),
        (lambda: TaskProbe(reward="exact"), "TaskProbe cannot be made: missing a required"),
        (lambda: Weighted(short, wieght=2.0), "Weighted has no key 'wieght'; did you mean"),
        (lambda: Use("exact", optoins={}), "Use has no key 'optoins'; did you mean 'options'?"),
        (lambda: LoraSettings(1, 2, "a", 4), "LoraSettings cannot be made: too many positional"),
        (
            lambda: RisenConfig([short], rows, guard={"rws": 8}),
            "guard has no key 'rws'; did you mean 'rows'?",
        ),
        (
            lambda: dataclasses.replace(RisenConfig([short], rows), gaurd=GuardConfig()),
            "RisenConfig has no key 'gaurd'; did you mean 'guard'?",
        ),
    ],
)
def test_a_wrong_field_is_one_line_with_the_near_miss(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (GuardConfig(), "GuardConfig()"),
        (GuardConfig(rows=8, confidence=None), "GuardConfig(rows=8, confidence=None)"),
        (use("length", low=1, weight=2.0), "use('length', low=1, weight=2.0)"),
        (
            RisenConfig(["exact"], use("jsonl", path="a"), lora=LoraSettings(r=4)),
            "RisenConfig(rewards=['exact'], generator=use('jsonl', path='a'), "
            "lora=LoraSettings(r=4))",
        ),
    ],
)
def test_a_repr_shows_what_was_changed(value: object, text: str) -> None:
    assert repr(value) == text


def test_the_repr_of_a_callback_shows_its_configuration() -> None:
    callback = RisenCallback(rewards=[use("length", low=1, high=2)], generator=rows, seed=3)
    assert repr(callback).startswith("RisenCallback(rewards=[use('length', low=1, high=2)], gen")
    assert repr(callback).endswith("seed=3)")


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"]
)
def test_a_copy_of_a_callback_has_its_configuration_and_what_it_has_seen(
    copied: Callable[[Any], Any],
) -> None:
    callback = RisenCallback(rewards=[use("length", low=1, high=2)], generator=rows)
    callback.run_state.history.add_losses(3, {"loss": 0.5})
    other = copied(callback)
    assert other.config == callback.config
    assert other.run_state.history.train_losses == [(3, 0.5)]
    assert other.run_state is not callback.run_state
