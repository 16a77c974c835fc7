"""When ``plateau`` leaves fine-tuning, goes on with RISEN, and comes back for a burst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from risen_plugin.builtin.schedulers.plateau import Plateau
from risen_plugin.contracts import Decision, PhaseRecord, Progress
from risen_plugin.errors import ConfigError, PluginError
from risen_plugin.run.deciding import decide

SCHEDULER = Plateau(steps=7, parameters={"beta": 0.1})
FALLING = (4.0, 3.0, 2.0, 1.5, 1.2)
FLAT = (2.0, 1.0, 1.0, 0.995, 1.001)


def at(
    values: Sequence[float],
    *,
    name: str = "eval_loss",
    phases: Sequence[PhaseRecord] = (),
    begun: int = 0,
    **more: Any,
) -> Progress:
    """A run of 1,000 steps, 5 steps after the latest of the evaluations at every 10."""
    evaluations = [(begun + 10 * n, {name: value}) for n, value in enumerate(values, start=1)]
    step = begun + 10 * len(values) + 5
    return Progress(
        **{"step": step, "max_steps": 1000, "phases": phases, "eval_metrics": evaluations, **more}
    )


def risen(
    at_step: int, gain: float = 0.2, *, accepted: bool = True, rise: float = 0.0
) -> PhaseRecord:
    metrics = {
        "guard/adherence_strict_before": 0.5,
        "guard/adherence_strict_after": 0.5 + gain,
        "guard/probe_loss_before": 1.0,
        "guard/probe_loss_after": 1.0 + rise,
    }
    return PhaseRecord("risen", 7, at_step, "", accepted, metrics)


def burst(at_step: int) -> PhaseRecord:
    return PhaseRecord("burst", 8, at_step, "")


@pytest.mark.parametrize(
    ("values", "phase", "said"),
    [
        pytest.param((), "fine_tune", "no evaluation yet", id="none yet"),
        pytest.param(FALLING, "fine_tune", "eval_loss 3 -> 1.2 over 3 evaluations", id="falling"),
        pytest.param(FLAT, "risen", "better by 0.50%, below 1.50%", id="it has become no better"),
        pytest.param((1.0, 1.1, 1.05, 1.1), "risen", "-> 1.05 over 3 evaluations, worse by 5.00%"),
        pytest.param((2.0, 1.0, 0.991, 0.99, 0.99), "risen", "better by 1.00%, below 1.50%"),
        pytest.param((2.0, 1.0, 0.99, 0.985, 0.99), "fine_tune", "better by 1.50%", id="just paid"),
        pytest.param((2.0, 1.0, 1.0), "fine_tune", "3 of 4 evaluations", id="too few"),
        pytest.param((1.0, 1.1, 1.2), "risen", "eval_loss got worse twice, 1 -> 1.1 -> 1.2"),
        pytest.param((1.0, 1.1, 1.1), "fine_tune", "3 of 4", id="rose once"),
        pytest.param((1.0, 0.5, 0.6, 0.4, 0.5), "fine_tune", "better by", id="noise"),
        pytest.param((2.0, float("nan"), 1.0), "fine_tune", "2 of 4 evaluations", id="nan"),
        pytest.param((0.0, 0.0, 0.0, 0.0), "risen", "better by 0.00%", id="nothing left to lose"),
    ],
)
def test_fine_tuning_is_left_when_the_held_out_loss_has_stopped_paying(
    values: Sequence[float], phase: str, said: str
) -> None:
    decision = SCHEDULER(at(values))
    assert decision.phase == phase
    assert said in decision.reason
    if phase == "risen":
        assert (decision.steps, decision.parameters) == (7, {"beta": 0.1})


def test_only_evaluations_after_the_latest_risen_phase_count() -> None:
    progress = at(FLAT, phases=(risen(60),), step=65)
    assert SCHEDULER(progress).reason.endswith("0 of 4 evaluations since RISEN or the start")
    again = [*progress.eval_metrics, *((60 + 10 * n, {"eval_loss": 1.0}) for n in range(1, 5))]
    assert SCHEDULER(replace(progress, eval_metrics=again, step=105)).phase == "risen"


@pytest.mark.parametrize(
    ("values", "phase"),
    [((0.5, 0.6, 0.7, 0.8), "fine_tune"), ((0.5, 0.8, 0.8, 0.79, 0.8), "risen")],
)
def test_another_metric_may_be_better_when_it_is_higher(
    values: Sequence[float], phase: str
) -> None:
    scheduler = Plateau(metric="eval_accuracy", higher_is_better=True)
    assert scheduler(at(values, name="eval_accuracy")).phase == phase


def test_of_several_evaluation_sets_the_first_ones_loss_decides() -> None:
    flat = [(10 * n, {"eval_a_loss": 1.0}) for n in range(1, 6)]
    falling = [(10 * n, {"eval_b_loss": 9.0 - n}) for n in range(1, 6)]
    decision = SCHEDULER(at((), step=55, eval_metrics=sorted([*flat, *falling], key=str)))
    assert decision.reason.startswith("plateau: eval_a_loss 1 -> 1")


def test_a_metric_that_no_evaluation_has_stops_the_run_with_the_near_miss() -> None:
    with pytest.raises(ConfigError, match="no evaluation has the metric 'eval_los'") as e:
        decide(Plateau(metric="eval_los"), at(FLAT), "scheduler 'plateau' (mine)")
    assert not isinstance(e.value, PluginError)
    assert "did you mean 'eval_loss'? They have: eval_loss" in str(e.value)


@pytest.mark.parametrize(
    ("losses", "step", "phase", "said"),
    [
        ((1.0,) * 60, 200, "fine_tune", "no evaluation yet"),
        ((1.0,) * 60, 300, "risen", "no evaluations (eval_strategy), the training loss has to do"),
        (tuple(60.0 - n for n in range(60)), 300, "fine_tune", "the training loss has to do"),
        ((1.0,) * 19, 300, "fine_tune", "3 of 4 means of 5 logged losses"),
        ((), 300, "fine_tune", "0 of 4 means of 5 logged losses"),
    ],
)
def test_without_evaluations_the_training_loss_has_to_do(
    losses: Sequence[float], step: int, phase: str, said: str
) -> None:
    logged = [(n, loss) for n, loss in enumerate(losses, start=1)]
    decision = SCHEDULER(at((), step=step, train_losses=logged))
    assert decision.phase == phase
    assert said in decision.reason


@pytest.mark.parametrize(
    ("phases", "step", "said"),
    [
        pytest.param([risen(40)], 41, "gained +0.200, 1 of 3", id="it paid"),
        pytest.param([risen(40), risen(41)], 42, "gained +0.200, 2 of 3", id="it paid again"),
        pytest.param([risen(40), risen(41), risen(42)], 43, "", id="often enough"),
        pytest.param([risen(40, 0.005)], 41, "", id="it paid too little"),
        pytest.param([risen(40, accepted=False)], 41, "", id="it was dropped"),
        pytest.param([risen(40)], 42, "", id="fine-tuning has gone on"),
        pytest.param([risen(40), burst(41)], 42, "gained +0.200, 1 of 3", id="after a burst"),
        pytest.param([risen(9), risen(40)], 41, "gained +0.200, 1 of 3", id="a new row"),
        pytest.param([risen(40, rise=0.1), burst(41)], 42, "gained", id="a burst has mended it"),
        pytest.param([risen(40, rise=0.1)], 41, "", id="it forgets"),
    ],
)
def test_risen_goes_on_while_it_pays(phases: list[PhaseRecord], step: int, said: str) -> None:
    decision = SCHEDULER(at(FLAT[:3], phases=phases, step=step))
    assert decision.phase == ("risen" if said else "fine_tune")
    assert said in decision.reason


@pytest.mark.parametrize(
    ("phases", "full", "phase", "said"),
    [
        pytest.param([risen(40)], (32, 5), "burst", "32 instructions are unsolved, 5 answers"),
        pytest.param([risen(40)], (31, 5), "risen", "gained", id="not full yet"),
        pytest.param([risen(40)], (99, 0), "risen", "gained", id="nothing to learn from"),
        pytest.param([risen(40), burst(41)], (99, 5), "risen", "gained", id="there was one"),
        pytest.param([], (99, 5), "fine_tune", "3 of 4 evaluations", id="before any phase"),
        pytest.param(
            [risen(40, rise=0.04)], (0, 5), "burst", "loss has risen by 0.0400, 5 answers"
        ),
        pytest.param(
            [risen(40, rise=0.04)],
            (0, 0),
            "fine_tune",
            "risen by 0.0400, back to fine-tuning",
            id="it forgets, and the buffers are empty",
        ),
        pytest.param([risen(40, rise=0.02)], (0, 5), "risen", "gained", id="it forgets little"),
        pytest.param(
            [risen(40, rise=0.04, accepted=False)], (0, 5), "fine_tune", "of 4", id="put back"
        ),
    ],
)
def test_a_burst_comes_when_the_unsolved_pile_up_or_retention_falls(
    phases: list[PhaseRecord], full: tuple[int, int], phase: str, said: str
) -> None:
    unsolved, buffered = full
    step = 42 if any(p.kind == "burst" for p in phases) else 41
    decision = SCHEDULER(
        at(FLAT[:3], phases=phases, step=step, unsolved=unsolved, buffered=buffered)
    )
    assert (decision.phase, decision.steps) == (
        phase,
        {"burst": 8, "risen": 7, "fine_tune": 0}[phase],
    )
    assert said in decision.reason


@pytest.mark.parametrize(("buffered", "phase"), [(5, "burst"), (0, "fine_tune")])
def test_what_the_guard_asks_for_comes_if_there_is_something_to_learn_from(
    buffered: int, phase: str
) -> None:
    asking = risen(40)
    asking = replace(asking, metrics={**asking.metrics, "wants_burst": True})
    decision = SCHEDULER(at(FLAT[:3], phases=[asking], step=41, buffered=buffered))
    assert decision.phase == phase
    assert "the guard asks for fine-tuning" in decision.reason


def test_a_persons_demonstrations_are_answers_to_learn_from() -> None:
    progress = at((), phases=[risen(40)], step=41, unsolved=40, demonstrations=2)
    assert SCHEDULER(progress).reason == (
        "plateau: 40 instructions are unsolved, 2 answers to learn from"
    )


def test_bursts_can_be_left_out() -> None:
    progress = at((), phases=[risen(40)], step=41, unsolved=99, buffered=99)
    assert SCHEDULER(progress).phase == "burst"
    assert Plateau(burst=0)(progress).phase == "risen"


def test_forgetting_adds_up_over_phases() -> None:
    first, second = risen(40, rise=0.02), risen(90, rise=0.0)
    second = replace(
        second,
        metrics={
            **second.metrics,
            "guard/probe_loss_before": 1.02,
            "guard/probe_loss_after": 1.035,
        },
    )
    decision = SCHEDULER(at((), phases=[first, second], step=91, buffered=1))
    assert decision.reason.startswith("plateau: the probe loss has risen by 0.0350")


@pytest.mark.parametrize(
    ("phases", "phase", "said"),
    [
        ([], "risen", "the run ends, and there was no RISEN phase yet"),
        ([risen(900)], "risen", "the run ends, 100 fine-tune steps after the last RISEN phase"),
        ([risen(980)], "fine_tune", "the run ends, 20 fine-tune steps after the last RISEN phase"),
    ],
)
def test_a_run_ends_with_risen(phases: list[PhaseRecord], phase: str, said: str) -> None:
    decision = SCHEDULER(at(FALLING, phases=phases, step=1000))
    assert decision.phase == phase
    assert decision.reason == f"plateau: {said}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0; least is 1"),
        ({"steps": 2.5}, "steps is 2.5; it is a whole number from 1"),
        ({"evaluations": 0}, "evaluations is 0; least is 1"),
        ({"least": 1.5}, "least is 1.5; it is a number from 0 to 1"),
        ({"least": float("nan")}, "least is nan; it is a number from 0 to 1"),
        ({"forgetting": -0.1}, "forgetting is -0.1; it is a number from 0"),
        ({"burst": -1}, "burst is -1; least is 0"),
        ({"in_a_row": 0}, "in_a_row is 0; least is 1"),
        ({"higher_is_better": True}, "higher_is_better belongs to a metric, and none is given"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Plateau(**options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_it_needs_no_option() -> None:
    assert Plateau()(Progress(1, 1)) == Decision(
        "risen", 40, {}, "plateau: the run ends, and there was no RISEN phase yet"
    )
