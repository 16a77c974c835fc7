"""The guard keeps what pays; a scheduler's answer is held to its contract."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.config import GuardConfig
from risen_plugin.contracts import Decision, PhaseRecord, Progress
from risen_plugin.errors import ConfigError, PluginError
from risen_plugin.guard.changes import Changes, Harm
from risen_plugin.guard.verdicts import Measured, Verdict, judge
from risen_plugin.kit.intervals import Interval
from risen_plugin.run.deciding import decide, timeline

LABEL = "scheduler 'mine' (risen-mine 1.0)"
PROGRESS = Progress(step=3, max_steps=9)
GUARD = GuardConfig(min_gain=0.02, max_probe_loss_rise=0.05, confidence=None)


def at(strict: float, loss: float = 1.0) -> Measured:
    return Measured(adherence_strict=strict, adherence_soft=strict, probe_loss=loss)


def exactly(value: float) -> Interval:
    """What was measured, without a doubt."""
    return Interval(value, value, value)


def verdict(before: Measured, after: Measured, guard: GuardConfig, **more: Harm) -> Verdict:
    rise = exactly(after.probe_loss - before.probe_loss)
    harms = {"probe_loss_rise": Harm("the rise", rise, guard.max_probe_loss_rise), **more}
    gain = exactly(after.adherence_strict - before.adherence_strict)
    return judge(before, after, guard, Changes(gain, harms))


# The guard


@pytest.mark.parametrize(
    ("before", "after", "accepted"),
    [
        pytest.param(at(0.50), at(0.70), True, id="a clear gain"),
        pytest.param(at(0.50), at(0.52), True, id="exactly the least gain"),
        pytest.param(at(0.10), at(0.12), True, id="the least gain, rounded down in floats"),
        pytest.param(at(0.50), at(0.519), False, id="a little less than the least gain"),
        pytest.param(at(0.50), at(0.40), False, id="a loss"),
        pytest.param(at(0.50, 1.00), at(0.70, 1.05), True, id="exactly the largest rise"),
        pytest.param(at(0.50, 2.00), at(0.70, 2.05), True, id="the largest rise, rounded up"),
        pytest.param(at(0.50, 1.00), at(0.70, 1.051), False, id="a little more than that"),
        pytest.param(at(0.50, 1.00), at(0.70, 0.50), True, id="the probe loss fell"),
        pytest.param(at(0.50, 1.00), at(0.70, math.nan), False, id="the model is broken"),
        pytest.param(at(0.50, math.nan), at(0.70, 1.00), False, id="it was broken before"),
        pytest.param(at(0.50, 1.00), at(0.70, math.inf), False, id="infinite loss"),
        pytest.param(at(0.50, math.inf), at(0.70, math.inf), False, id="infinite before and after"),
        pytest.param(at(0.50), at(math.nan), False, id="no adherence"),
        pytest.param(at(math.nan), at(0.90), False, id="none before"),
    ],
)
def test_a_phase_is_kept_if_it_pays_and_forgets_little(
    before: Measured, after: Measured, accepted: bool
) -> None:
    assert verdict(before, after, GUARD).accepted is accepted


@pytest.mark.parametrize(
    ("gap", "rise", "said"),
    [
        pytest.param((0.9, None), (0.9, None), None, id="only measured"),
        pytest.param((0.2, 0.2), (0.9, None), None, id="exactly the largest gap"),
        pytest.param((-0.5, 0.2), (0.0, 0.0), None, id="a greater gain on reserved ones"),
        pytest.param(
            (0.25, 0.2),
            (0.0, 0.0),
            "the gap to reserved families is 0.2500, more than 0.2000",
            id="too large a gap",
        ),
        pytest.param(
            (0.0, None),
            (0.1, 0.0),
            "the rise of the trip-wire rate is 0.1000, more than 0.0000",
            id="more tripped wires",
        ),
        pytest.param((0.0, None), (-0.1, 0.0), None, id="fewer of them"),
    ],
)
def test_a_gain_that_is_not_what_it_looks_like_is_dropped_where_that_is_asked(
    gap: tuple[float, float | None], rise: tuple[float, float | None], said: str | None
) -> None:
    found = verdict(
        at(0.5),
        at(0.7),
        GUARD,
        gap=Harm("the gap to reserved families", exactly(gap[0]), gap[1]),
        trip_wire_rise=Harm("the rise of the trip-wire rate", exactly(rise[0]), rise[1]),
    )
    assert found.accepted is (said is None)
    assert said is None or found.reason.endswith(said)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (at(0.7, 1.02), "adherence 0.500 -> 0.700, probe loss 1.0000 -> 1.0200 (+0.0200)"),
        (at(0.7, 1.2), "probe loss 1.0000 -> 1.2000 (+0.2000): rises by more than 0.0500"),
        (at(0.5, 0.9), "probe loss 1.0000 -> 0.9000 (-0.1000): gain is less than 0.020"),
    ],
)
def test_a_verdict_tells_what_was_measured_and_what_decided(after: Measured, said: str) -> None:
    reason = verdict(at(0.5), after, GUARD).reason
    assert reason.endswith(said)
    assert "\n" not in reason


shares = st.floats(0, 1)
losses = st.floats(0, 20)


@given(before=shares, after=shares, loss=losses, later=losses)
def test_a_better_model_is_never_dropped_where_a_worse_one_is_kept(
    before: float, after: float, loss: float, later: float
) -> None:
    if verdict(at(before, loss), at(after, later), GUARD).accepted:
        assert verdict(at(before, loss), at(min(1.0, after + 0.1), later - 0.1), GUARD).accepted


@given(before=shares, after=shares, loss=losses, later=losses)
def test_an_open_guard_keeps_every_model_that_still_works(
    before: float, after: float, loss: float, later: float
) -> None:
    open_guard = GuardConfig(min_gain=-math.inf, max_probe_loss_rise=math.inf)
    assert verdict(at(before, loss), at(after, later), open_guard).accepted
    assert not verdict(at(before, loss), at(after, math.nan), open_guard).accepted


def test_measurements_are_metrics_under_their_names() -> None:
    assert at(0.5, 2.0).as_metrics("_before") == {
        "adherence_strict_before": 0.5,
        "adherence_soft_before": 0.5,
        "probe_loss_before": 2.0,
    }


# Asking a scheduler


@pytest.mark.parametrize(
    "decision",
    [
        Decision("fine_tune"),
        Decision("fine_tune", steps=-3),  # steps mean nothing there
        Decision("risen", 1),
        Decision("burst", 4, {"own_share": 0.2}, "answers wait"),
        Decision("risen", 50, {"beta": 0.1}, "adherence has stalled"),
    ],
)
def test_a_sound_decision_comes_through_as_it_is(decision: Decision) -> None:
    seen = []

    def scheduler(progress: Progress) -> Decision:
        seen.append(progress)
        return decision

    assert decide(scheduler, PROGRESS, LABEL) is decision
    assert seen == [PROGRESS]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "returned NoneType, not a Decision"),
        ("risen", "returned str, not a Decision"),
        ({"phase": "risen"}, "returned dict, not a Decision"),
        (Decision, "returned type, not a Decision"),
        (
            Decision("reward"),
            "chose the phase 'reward'; there are 'fine_tune', 'risen' and 'burst'",
        ),  # type: ignore[arg-type]
        (Decision("risen"), "wants a RISEN phase of 0 steps; it is a whole number from 1"),
        (Decision("burst"), "wants a burst of 0 steps; it is a whole number from 1"),
        (Decision("risen", -1), "wants a RISEN phase of -1 steps"),
        (Decision("risen", 2.5), "wants a RISEN phase of 2.5 steps"),  # type: ignore[arg-type]
        (Decision("risen", None), "wants a RISEN phase of None steps"),  # type: ignore[arg-type]
        (Decision("risen", 3, None), "returned parameters that are no mapping"),  # type: ignore[arg-type]
    ],
)
def test_a_decision_that_means_nothing_is_told_in_one_line(answer: Any, said: str) -> None:
    with pytest.raises(PluginError) as caught:
        decide(lambda progress: answer, PROGRESS, LABEL)
    assert str(caught.value).startswith(f"{LABEL} {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (KeyError("loss"), PluginError, f"{LABEL} raised KeyError: 'loss'"),
        (ValueError("one\n  two"), PluginError, f"{LABEL} raised ValueError: one two"),
        (AssertionError(), PluginError, f"{LABEL} raised AssertionError"),
        (ConfigError("no\nsteps"), ConfigError, f"{LABEL}: no steps"),
        (ConfigError(f"{LABEL} is lost"), ConfigError, f"{LABEL} is lost"),
    ],
)
def test_a_scheduler_that_raises_is_named_in_one_line(
    error: Exception, kind: type[Exception], said: str
) -> None:
    def scheduler(progress: Progress) -> Decision:
        raise error

    with pytest.raises(kind) as caught:
        decide(scheduler, PROGRESS, LABEL)
    assert str(caught.value) == said
    assert caught.value is error or caught.value.__cause__ is error


def test_an_interrupt_is_not_taken_for_a_failing_scheduler() -> None:
    def scheduler(progress: Progress) -> Decision:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decide(scheduler, PROGRESS, LABEL)


# The phases so far


def fine_tune(steps: int, at_step: int) -> PhaseRecord:
    return PhaseRecord("fine_tune", steps, at_step, "")


def risen(steps: int, at_step: int) -> PhaseRecord:
    return PhaseRecord("risen", steps, at_step, "", accepted=False)


@pytest.mark.parametrize(
    ("records", "step", "present"),
    [
        ((), 0, (0, 0)),
        ((), 5, (0, 5)),
        ((fine_tune(5, 0), risen(60, 5)), 5, (5, 0)),
        ((fine_tune(5, 0), risen(60, 5)), 7, (5, 2)),
        ((fine_tune(5, 0), risen(60, 5), fine_tune(3, 5), risen(60, 8)), 9, (8, 1)),
        ((fine_tune(5, 0),), 8, (5, 3)),
    ],
)
def test_the_last_phase_is_the_present_stretch_of_fine_tuning(
    records: tuple[PhaseRecord, ...], step: int, present: tuple[int, int]
) -> None:
    phases = timeline(records, step)
    assert phases[:-1] == records
    assert phases[-1].kind == "fine_tune"
    assert (phases[-1].at_step, phases[-1].steps) == present


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=5), st.integers(0, 9))
def test_the_fine_tuning_stretches_of_a_run_add_up_to_its_steps(
    stretches: list[tuple[int, int]], more: int
) -> None:
    records: tuple[PhaseRecord, ...] = ()
    step = 0
    for taken, reinforced in stretches:
        step += taken
        records = (*timeline(records, step), risen(reinforced, step))
    phases = timeline(records, step + more)
    assert sum(phase.steps for phase in phases if phase.kind == "fine_tune") == step + more
