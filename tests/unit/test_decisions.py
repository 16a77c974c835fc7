"""Which decisions of a scheduler are worth a line."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.builtin.schedulers import After, Alternate
from risen_plugin.builtin.schedulers.benefit import Benefit
from risen_plugin.builtin.schedulers.budget import Budget
from risen_plugin.builtin.schedulers.plateau import Plateau
from risen_plugin.contracts import Decision, PhaseRecord, Progress
from risen_plugin.run.deciding import Decisions, decide, without_numbers


def on(reason: str, phase: Any = "fine_tune") -> Decision:
    return Decision(phase, 0 if phase == "fine_tune" else 3, {}, reason)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("1 of 30 steps done", "2 of 30 steps done", True),
        ("loss 1.25 -> 1.2, -0.8%", "loss 1e-05 -> 2.5e+03, +12.75%", True),
        ("loss 1.2", "loss nan", True),
        ("gained -0.5/s", "gained inf/s", True),
        ("waiting", "waiting longer", False),
        ("loss 1", "rise 1", False),
        ("a banana", "a ba", False),
    ],
)
def test_numbers_make_no_other_reason(first: str, second: str, same: bool) -> None:
    assert (without_numbers(on(first)) == without_numbers(on(second))) is same


def test_a_phase_is_always_news_and_going_on_only_for_another_reason() -> None:
    decisions = Decisions()
    told = [
        decisions.is_news(decision)
        for decision in (
            on("1 of 9"),
            on("2 of 9"),
            on("it is time", "risen"),
            on("it is time", "risen"),
            on("3 of 9"),
            on("4 of 9"),
            on("the buffer is full", "burst"),
            on("done"),
            on("done"),
        )
    ]
    assert told == [True, False, True, True, True, False, True, True, False]


def test_what_was_told_before_a_checkpoint_is_not_told_again_after_it() -> None:
    decisions, resumed = Decisions(), Decisions()
    decisions.is_news(on("1 of 9"))
    resumed.load_state_dict(json.loads(json.dumps(decisions.state_dict())))
    assert not resumed.is_news(on("2 of 9"))
    older = Decisions()
    older.load_state_dict({})
    assert older.is_news(on("2 of 9"))


# What holds for every built-in scheduler and every progress

SCHEDULERS: list[Any] = [
    After(5, at=0.5, phases=3),
    Alternate(7, 3),
    Plateau(steps=3),
    Plateau(metric="eval_accuracy", higher_is_better=True, evaluations=1, in_a_row=9),
    Benefit(steps=3),
    Benefit(exchange=0.0, start=0.0, every=0.0, again=0.0, memory=5),
    Budget(Plateau(), seconds=30, rollouts=100),
    Budget(Budget(Benefit(), tokens=1000), run_seconds=100),
]

numbers = st.one_of(st.floats(-10, 10), st.sampled_from([0.0, float("nan"), float("inf"), 1e-300]))
metric_names = st.sampled_from(
    [
        "guard/adherence_strict_before",
        "guard/adherence_strict_after",
        "guard/probe_loss_before",
        "guard/probe_loss_after",
        "seconds",
        "guard_s",
        "reinforce_s",
        "rollouts",
        "tokens",
    ]
)


@st.composite
def progresses(draw: st.DrawFn) -> Progress:
    max_steps = draw(st.integers(1, 200))
    step = draw(st.integers(1, max_steps))
    steps = sorted(draw(st.lists(st.integers(1, step), max_size=6)))
    phases = [
        PhaseRecord(
            draw(st.sampled_from(["fine_tune", "risen", "burst"])),
            draw(st.integers(0, 50)),
            at,
            "",
            draw(st.sampled_from([True, False, None])),
            draw(st.dictionaries(metric_names, numbers, max_size=9)),
        )
        for at in steps
    ]
    points = sorted(draw(st.lists(st.integers(1, step), max_size=12)))
    names = st.sampled_from(["eval_accuracy", "eval_loss"])
    return Progress(
        step=step,
        max_steps=max_steps,
        phases=tuple(phases),
        train_losses=tuple((at, draw(numbers)) for at in points),
        eval_metrics=tuple(
            (at, {"eval_accuracy": draw(numbers), **draw(st.dictionaries(names, numbers))})
            for at in points
        ),
        elapsed_s=draw(st.floats(0, 1000)),
        rollouts=draw(st.integers(0, 500)),
        tokens=draw(st.integers(0, 5000)),
        unsolved=draw(st.integers(0, 99)),
        buffered=draw(st.integers(0, 99)),
        demonstrations=draw(st.integers(0, 9)),
    )


@given(progress=progresses())
def test_every_progress_gets_the_same_sound_decision_each_time(progress: Progress) -> None:
    for scheduler in SCHEDULERS:
        first = decide(scheduler, progress, "it")
        assert decide(scheduler, progress, "it") == first
        assert first.reason.strip()
        assert "\n" not in first.reason
        assert json.loads(json.dumps(asdict(first), allow_nan=False)) == asdict(first)
        assert first.phase != "burst" or progress.buffered or progress.demonstrations


@given(progress=progresses())
def test_a_progress_that_went_through_a_checkpoint_gets_the_same_decision(
    progress: Progress,
) -> None:
    data = json.loads(json.dumps(asdict(progress)))
    again = Progress(
        **{
            **data,
            "phases": [PhaseRecord(**phase) for phase in data["phases"]],
            "train_losses": [(step, loss) for step, loss in data["train_losses"]],
            "eval_metrics": [(step, metrics) for step, metrics in data["eval_metrics"]],
        }
    )
    for scheduler in SCHEDULERS:
        assert decide(scheduler, again, "it") == decide(scheduler, progress, "it")


@given(progress=progresses(), seconds=st.floats(0, 50))
def test_a_budget_never_asks_for_more_than_the_scheduler_inside(
    progress: Progress, seconds: float
) -> None:
    inner = Plateau()
    wanted, given_ = inner(progress), Budget(inner, seconds=seconds)(progress)
    assert given_.phase in (wanted.phase, "fine_tune")
    assert given_.steps <= wanted.steps
