"""What is different about a run that is resumed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from risen_plugin.config import CurriculumConfig, GuardConfig, RisenConfig, Weighted, use
from risen_plugin.record.description import differences, made_of


def pays(completions: list[Any], **columns: Any) -> list[float]:
    return [0.0 for _ in completions]


class Keeping:
    """Keeps state, which shows."""

    def __init__(self, made: int = 0) -> None:
        self.made = made

    def __repr__(self) -> str:
        return f"Keeping({self.made})"

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.made = state["made"]


BEGUN = RisenConfig(
    rewards=[Weighted(pays), use("length", low=1, high=60)],
    generator=Keeping(),
    scheduler=use("after", steps=60),
    probe=[{"text": "a"}],
)
ORIGINS = {"reward:length": "risen-length 0.1"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"force": True, "checkpoint_every": 9, "checkpoint_before_phase": False}, []),
        ({"generator": Keeping(made=9)}, []),
        ({"seed": 1}, ["seed was 0 and is 1"]),
        ({"guard": GuardConfig(rows=32)}, ["guard.rows was 64 and is 32"]),
        (
            {"guard": GuardConfig(strengths=[0.5])},
            ["guard.strengths was [] and is [0.5]"],
        ),
        ({"grpo": {"beta": 0.1}}, ["grpo.beta was null and is 0.1"]),
        ({"scheduler": use("after", steps=90)}, ["scheduler.options.steps was 60 and is 90"]),
        (
            {"rewards": [Weighted(pays, weight=0.5), use("length", low=2, high=60)]},
            [
                "rewards.0.weight was 1.0 and is 0.5",
                "rewards.1.options.low was 1 and is 2",
            ],
        ),
    ],
)
def test_each_difference_of_a_configuration_is_named(
    changed: dict[str, Any], said: list[str]
) -> None:
    before = json.loads(json.dumps(made_of(BEGUN, ORIGINS, "0.1.0")))
    now = made_of(dataclasses.replace(BEGUN, **changed), ORIGINS, "0.1.0")
    assert differences(before, json.loads(json.dumps(now))) == said


def test_another_version_is_a_difference() -> None:
    before = made_of(BEGUN, ORIGINS, "0.1.0")
    now = made_of(BEGUN, {"reward:length": "risen-length 0.2"}, "0.2.0")
    assert differences(before, now) == [
        'plugins.reward:length was "risen-length 0.1" and is "risen-length 0.2"',
        'risen_plugin was "0.1.0" and is "0.2.0"',
    ]


def test_a_section_more_or_other_probe_rows_are_a_difference() -> None:
    before = made_of(BEGUN, {}, "0.1.0")
    changed = dataclasses.replace(BEGUN, curriculum=CurriculumConfig(), probe=[{"text": "b"}])
    said = differences(before, made_of(changed, {}, "0.1.0"))
    assert [line.split(" was ")[0] for line in said] == ["probe", "curriculum"]


def test_what_an_older_checkpoint_does_not_know_of_is_no_difference() -> None:
    now = made_of(BEGUN, ORIGINS, "0.1.0")
    before = {name: value for name, value in now.items() if name != "curriculum"}
    assert differences(before, now) == []
