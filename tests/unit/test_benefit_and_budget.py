"""``benefit`` spends a second where one has gained more; ``budget`` ends what has cost enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from risen_plugin.builtin.schedulers import Alternate
from risen_plugin.builtin.schedulers.benefit import Benefit
from risen_plugin.builtin.schedulers.budget import Budget
from risen_plugin.builtin.schedulers.plateau import Plateau
from risen_plugin.contracts import Decision, PhaseRecord, Progress, Stateful
from risen_plugin.errors import ConfigError
from risen_plugin.testing import check_scheduler

SCHEDULER = Benefit(steps=7, start=0.2, every=0.05, again=0.5, parameters={"beta": 0.1})


def risen(  # the loss stays at 1.0 unless said
    at_step: int,
    before: float = 0.4,
    after: float = 0.5,
    *,
    seconds: float = 10.0,
    accepted: bool = True,
    loss: tuple[float, float] = (1.0, 1.0),
    **metrics: Any,
) -> PhaseRecord:
    measured = {
        "guard/adherence_strict_before": before,
        "guard/adherence_strict_after": after,
        "guard/probe_loss_before": loss[0],
        "guard/probe_loss_after": loss[1],
        "seconds": seconds,
    }
    return PhaseRecord("risen", 7, at_step, "", accepted, {**measured, **metrics})


def progress(
    step: int,
    phases: Sequence[PhaseRecord] = (),
    losses: Sequence[tuple[int, float]] = (),
    *,
    per_step: float = 1.0,
    **more: Any,
) -> Progress:
    """A run of 100 steps, each of which takes ``per_step`` seconds."""
    return Progress(
        step=step,
        max_steps=100,
        phases=phases,
        eval_metrics=[(s, {"eval_loss": loss}) for s, loss in losses],
        elapsed_s=per_step * step + sum(p.metrics["seconds"] for p in phases),
        **more,
    )


# benefit


@pytest.mark.parametrize(
    ("now", "phase", "said"),
    [
        pytest.param(progress(19), "fine_tune", "19 of 20 fine-tune steps", id="too early"),
        pytest.param(progress(20), "risen", "exploring, phase 1 of 1", id="exploring"),
        pytest.param(progress(100), "risen", "exploring, phase 1 of 1", id="only the end is left"),
        pytest.param(
            progress(24, [risen(20)]), "fine_tune", "4 of 5 fine-tune steps", id="a pause"
        ),
        pytest.param(
            progress(40, [risen(20)], [(25, 1.0), (35, 0.8)]),
            "fine_tune",
            "RISEN gained +0.01/s (adherence +0.100, loss -0.0000 in 10 s over 1 phase), "
            "fine-tuning +0.02/s (loss -0.2000 in 10 s over 1 pair of evaluations)",
            id="fine-tuning pays more",
        ),
        pytest.param(
            progress(40, [risen(20)], [(25, 1.0), (35, 0.95)]),
            "risen",
            "fine-tuning +0.005/s",
            id="RISEN pays more",
        ),
        pytest.param(
            progress(40, [risen(20)], [(25, 1.0), (35, 0.95)], per_step=0.1),
            "fine_tune",
            "fine-tuning +0.05/s (loss -0.0500 in 1 s",
            id="and fine-tuning is cheap",
        ),
        pytest.param(
            progress(40, [risen(20, accepted=False)], [(25, 1.0), (35, 0.999)]),
            "fine_tune",
            "RISEN gained +0/s (adherence +0.000",
            id="a dropped phase gained nothing",
        ),
        pytest.param(
            progress(40, [risen(20, loss=(1.0, 1.2))], [(25, 1.0), (35, 1.0)]),
            "fine_tune",
            "RISEN gained -0.01/s (adherence +0.100, loss +0.2000",
            id="its forgetting is charged for",
        ),
        pytest.param(
            progress(40, [risen(20, 0.5, 0.5)], [(25, 1.0), (35, 1.0)]),
            "fine_tune",
            "RISEN gained +0/s",
            id="nothing pays",
        ),
        pytest.param(
            progress(70, [risen(20, accepted=False)], [(25, 1.0), (35, 0.999)]),
            "risen",
            "RISEN was not tried for 50 fine-tune steps; RISEN gained +0/s",
            id="a new trial after a while",
        ),
        pytest.param(
            progress(100, [risen(90)], [(25, 1.0), (35, 0.5)]),
            "risen",
            "the run ends, RISEN gained +0.01/s",
            id="at the end it pays",
        ),
        pytest.param(
            progress(100, [risen(90, accepted=False)]),
            "fine_tune",
            "the run ends, RISEN gained +0/s",
            id="at the end it does not",
        ),
    ],
)
def test_a_second_goes_where_one_has_gained_more(now: Progress, phase: str, said: str) -> None:
    decision = SCHEDULER(now)
    assert decision.phase == phase
    assert decision.reason.startswith("benefit: ")
    assert said in decision.reason
    if phase == "risen":
        assert (decision.steps, decision.parameters) == (7, {"beta": 0.1})


def test_fine_tuning_that_costs_adherence_is_charged_for_it() -> None:
    phases = [risen(20, 0.4, 0.6), risen(40, 0.4, 0.5)]  # 0.2 lost in 20 steps
    now = progress(60, phases, [(25, 1.0), (35, 0.8)])
    decision = SCHEDULER(now)
    assert decision.phase == "risen"
    assert "fine-tuning +0.01/s" in decision.reason
    assert "adherence -0.200 in 20 s" in decision.reason


def test_the_exchange_rate_decides_between_the_same_gains() -> None:
    now = progress(40, [risen(20)], [(25, 1.0), (35, 0.95)])
    assert Benefit(start=0.2, exchange=1.0)(now).phase == "risen"
    assert Benefit(start=0.2, exchange=3.0)(now).phase == "fine_tune"


@pytest.mark.parametrize(
    "inside",
    [[risen(30)], [risen(5), PhaseRecord("burst", 8, 30, "", None, {"seconds": 2.0})]],
)
def test_evaluations_with_another_phase_between_them_are_not_fine_tunings_gain(
    inside: list[PhaseRecord],
) -> None:
    now = progress(40, inside, [(10, 1.0), (20, 1.0), (40, 0.1)])
    assert "loss -0.0000 in 10 s over 1 pair of evaluations" in SCHEDULER(now).reason


@pytest.mark.parametrize(
    ("phases", "losses", "said"),
    [
        ([risen(20)], (), "over nothing measured yet"),
        (
            [risen(20, loss=(1.0, 0.9)), risen(40, loss=(0.7, 0.7))],
            (),
            "loss -0.2000 in 20 s over the probe between phases",
        ),
        (
            [risen(20)],
            [(s, 2.0 - 0.01 * s) for s in range(21, 41)],
            "2 pairs of means of the training loss, having no evaluations",
        ),
    ],
)
def test_without_evaluations_the_probe_or_the_training_loss_has_to_do(
    phases: list[PhaseRecord], losses: Sequence[tuple[int, float]], said: str
) -> None:
    assert said in SCHEDULER(progress(60, phases, train_losses=losses)).reason


def test_a_run_without_a_clock_is_judged_by_its_gains_alone() -> None:
    phase = risen(20, 0.4, 0.5, seconds=0.0)
    now = Progress(
        40, 100, phases=[phase], eval_metrics=progress(0, (), [(25, 1.0), (35, 0.8)]).eval_metrics
    )
    assert SCHEDULER(now).phase == "fine_tune"
    better = replace(phase, metrics={**phase.metrics, "guard/adherence_strict_after": 0.7})
    assert SCHEDULER(replace(now, phases=[better])).phase == "risen"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0; least is 1"),
        ({"exchange": -1.0}, "exchange is -1.0; it is a number from 0"),
        ({"exchange": float("inf")}, "exchange is inf"),
        ({"start": 1.5}, "start is 1.5; it is a number from 0 to 1"),
        ({"memory": 0}, "memory is 0; least is 1"),
        ({"explore": 0}, "explore is 0; least is 1"),
    ],
)
def test_bad_options_of_benefit_are_refused_in_one_line(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Benefit(**options)
    assert str(caught.value).startswith(message)


# budget


@dataclass(frozen=True)
class Wants:
    """A scheduler that always wants the same."""

    phase: Any = "risen"
    steps: int = 10

    def __call__(self, progress: Progress) -> Decision:
        return Decision(self.phase, self.steps, {"beta": 0.1}, "wants: it")


COSTLY = PhaseRecord("risen", 10, 20, "", True, {"seconds": 40.0, "rollouts": 400, "tokens": 8000})
NOW = Progress(30, 100, phases=[COSTLY], elapsed_s=70.0, rollouts=400, tokens=8000)


@pytest.mark.parametrize(
    ("limits", "phase", "steps", "said"),
    [
        pytest.param({"seconds": 100}, "risen", 10, "wants: it", id="enough"),
        pytest.param(
            {"seconds": 60},
            "risen",
            5,
            "budget: 20 of 60 s left, so 5 of 10 steps; wants: it",
            id="half of it",
        ),
        pytest.param({"seconds": 41}, "risen", 1, "so 1 of 10 steps", id="less than a step"),
        pytest.param({"seconds": 40}, "fine_tune", 0, "budget: 40 s are spent; wants: it"),
        pytest.param({"seconds": 0}, "fine_tune", 0, "budget: 0 s are spent; wants: it"),
        pytest.param({"run_seconds": 70}, "fine_tune", 0, "70 s of the run are spent"),
        pytest.param({"run_seconds": 82}, "risen", 3, "12 of 82 s of the run left, so 3 of 10"),
        pytest.param({"rollouts": 400}, "fine_tune", 0, "400 rollouts are spent"),
        pytest.param({"rollouts": 600}, "risen", 5, "200 of 600 rollouts left, so 5 of 10 steps"),
        pytest.param({"tokens": 8800}, "risen", 1, "800 of 8800 tokens left, so 1 of 10 steps"),
        pytest.param({"tokens": 9600, "seconds": 44}, "risen", 1, "4 of 44 s left, so 1 of 10"),
        pytest.param({"tokens": 8000, "seconds": 99}, "fine_tune", 0, "8000 tokens are spent"),
    ],
)
def test_no_phase_costs_more_than_what_is_left(
    limits: dict[str, Any], phase: str, steps: int, said: str
) -> None:
    decision = Budget(Wants(), **limits)(NOW)
    assert (decision.phase, decision.steps) == (phase, steps)
    assert said in decision.reason
    assert decision.parameters == ({"beta": 0.1} if phase == "risen" else {})


@pytest.mark.parametrize(
    ("seconds", "phase", "steps"),
    [
        pytest.param(80, "risen", 10, id="all of it: 30 s of measuring and 10 of steps"),
        pytest.param(75, "risen", 5, id="measuring takes what it takes, so half of the steps"),
        pytest.param(70, "fine_tune", 0, id="less than measuring takes"),
    ],
)
def test_a_shorter_phase_is_measured_as_long_as_any_other(
    seconds: float, phase: str, steps: int
) -> None:
    now = replace(NOW, phases=[replace(COSTLY, metrics={**COSTLY.metrics, "guard_s": 30.0})])
    decision = Budget(Wants(), seconds=seconds)(now)
    assert (decision.phase, decision.steps) == (phase, steps)


def test_looks_on_the_way_grow_with_the_steps() -> None:
    metrics = {**COSTLY.metrics, "guard_s": 30.0, "looks": 4}
    now = replace(NOW, phases=[replace(COSTLY, metrics=metrics)])
    assert Budget(Wants(), seconds=65)(now).steps == 5  # 10 s of measuring and 3 s a step


def test_the_first_phase_is_as_long_as_it_is_asked_for() -> None:
    assert Budget(Wants(), seconds=1)(Progress(30, 100)).steps == 10


def test_a_phase_that_cost_next_to_nothing_leaves_room_for_any_other() -> None:
    cheap = PhaseRecord("risen", 3, 30, "", True, {"seconds": 5e-324})
    assert Budget(Wants(), seconds=60)(progress(31, [cheap])).steps == 10


def test_a_dropped_phase_and_a_burst_have_cost_what_they_cost() -> None:
    dropped = replace(COSTLY, accepted=False)
    bursts = PhaseRecord("burst", 8, 25, "", None, {"seconds": 5.0})
    now = replace(NOW, phases=[dropped, bursts])
    assert Budget(Wants(), seconds=45)(now).reason.startswith("budget: 45 s are spent")
    assert Budget(Wants("burst", 8), seconds=47.5)(now) == Decision(
        "burst", 4, {"beta": 0.1}, "budget: 2.5 of 47.5 s left, so 4 of 8 steps; wants: it"
    )


def test_fine_tuning_is_passed_on_as_it_is() -> None:
    wanted = Wants("fine_tune", 0)
    assert Budget(wanted, seconds=0)(NOW) == wanted(NOW)


def test_budgets_stand_in_each_other() -> None:
    inner = Budget(Wants(), rollouts=600)
    decision = Budget(inner, seconds=52)(NOW)
    assert decision.steps == 3
    assert decision.reason == (
        "budget: 12 of 52 s left, so 3 of 5 steps; "
        "budget: 200 of 600 rollouts left, so 5 of 10 steps; wants: it"
    )


@dataclass
class Counting:
    """A scheduler that keeps state."""

    asked: int = 0

    def __call__(self, progress: Progress) -> Decision:
        self.asked += 1
        return Decision("fine_tune", reason="counting: it")

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.asked = state["asked"]


def test_the_state_of_the_scheduler_inside_is_kept() -> None:
    budget, other = Budget(Counting(), seconds=1), Budget(Counting(), seconds=1)
    budget(NOW)
    assert isinstance(budget, Stateful)
    other.load_state_dict(budget.state_dict())
    assert other.scheduler == Counting(1)
    assert Budget(Wants(), seconds=1).state_dict() == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Budget(Wants()), "there is no limit; give one of seconds, run_seconds, rollouts"),
        (lambda: Budget(Wants(), seconds=-1), "seconds is -1; it is a number from 0"),
        (lambda: Budget(Wants(), rollouts=1.5), "rollouts is 1.5; it is a whole number from 0"),
        (lambda: Budget(Plateau, seconds=1), "scheduler is <class"),
        (lambda: Budget("plateau", seconds=1), "scheduler is 'plateau'; it is a scheduler, or by"),
    ],
)
def test_bad_options_of_budget_are_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "scheduler",
    [
        Plateau(),
        Plateau(steps=3, evaluations=1, unsolved=1, burst=2),
        Benefit(),
        Benefit(steps=2, start=0.0, every=0.0, again=0.0, explore=3),
        Budget(Plateau(steps=3), rollouts=60),
        Budget(Benefit(steps=3), seconds=20, tokens=900),
        Budget(Alternate(5, 4), run_seconds=15),
    ],
)
def test_every_scheduler_keeps_the_contract(scheduler: Any) -> None:
    check_scheduler(scheduler)
