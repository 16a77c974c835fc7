"""When the schedulers that come with risen-plugin leave fine-tuning for RISEN."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from risen_plugin.builtin import schedulers
from risen_plugin.builtin.schedulers import After, Alternate
from risen_plugin.contracts import Decision, PhaseRecord, Progress
from risen_plugin.plugins import Plugins
from risen_plugin.testing import check_scheduler


def run(scheduler: Any, max_steps: int, *, accepted: bool = True, until: int = 0) -> list[Decision]:
    """The RISEN decisions of a run, with the step after which each was taken in its reason."""
    made: list[Decision] = []
    past: list[PhaseRecord] = []
    for step in range(1, (until or max_steps) + 1):
        decision = scheduler(Progress(step, max_steps, phases=tuple(past)))
        if decision.phase == "risen":
            past.append(PhaseRecord("risen", decision.steps, step, decision.reason, accepted))
            made.append(replace(decision, reason=f"{step}: {decision.reason}"))
    return made


def steps_of(decisions: list[Decision]) -> list[int]:
    return [int(decision.reason.partition(":")[0]) for decision in decisions]


@pytest.mark.parametrize(
    ("scheduler", "max_steps", "expected"),
    [
        (After(5), 40, [40]),
        (After(5, at=0.5), 40, [20]),
        (After(5, at=0.01), 40, [1]),
        (After(5, at=1), 40, [1]),
        (After(5, at=30), 40, [30]),
        (After(5, at=90), 40, [40]),
        (After(5, at=0.5, phases=2), 40, [20, 40]),
        (After(5, at=0.25, phases=4), 40, [10, 20, 30, 40]),
        (After(5, at=39, phases=9), 40, [39, 40]),
        (After(5, at=1, phases=9), 1, [1]),
        (Alternate(10, 5), 40, [10, 20, 30, 40]),
        (Alternate(10, 5), 44, [10, 20, 30, 40]),
        (Alternate(10, 5), 45, [10, 20, 30, 40, 45]),
        (Alternate(10, 5), 4, []),
        (Alternate(10, 5), 5, [5]),
        (Alternate(1, 5), 3, [1, 2, 3]),
        (Alternate(99, 5), 40, []),
    ],
)
@pytest.mark.parametrize("accepted", [True, False])
def test_risen_phases_come_after_these_steps(
    scheduler: Any, max_steps: int, expected: list[int], accepted: bool
) -> None:
    assert steps_of(run(scheduler, max_steps, accepted=accepted)) == expected


def test_a_decision_carries_steps_parameters_and_a_reason() -> None:
    (after,) = run(After(7, at=0.5, parameters={"beta": 0.1}), 4)
    assert after == Decision("risen", 7, {"beta": 0.1}, "2: after: step 2 reached, phase 1 of 1")
    first, last = run(Alternate(4, 9, parameters={"beta": 0.2}), 6)
    assert first == Decision("risen", 9, {"beta": 0.2}, "4: alternate: 4 fine-tune steps done")
    assert last.reason == "6: alternate: the run ends after 2 of 4 fine-tune steps"


@pytest.mark.parametrize("scheduler", [After(3, at=0.5, phases=2), Alternate(4, 3)])
def test_going_on_with_fine_tuning_has_a_reason_too(scheduler: Any) -> None:
    decision = scheduler(Progress(1, 20))
    assert decision.phase == "fine_tune"
    assert decision.reason.startswith(("after: phase 1 of 2 is due at step 10", "alternate: 1 of"))
    done = scheduler(Progress(20, 20, phases=[PhaseRecord("risen", 3, s, "") for s in (10, 20)]))
    assert done.phase == "fine_tune"


@pytest.mark.parametrize("scheduler", [After(3, at=0.5, phases=3), Alternate(4, 3)])
def test_a_fine_tuning_step_follows_each_risen_phase(scheduler: Any) -> None:
    for max_steps in range(1, 30):
        steps = steps_of(run(scheduler, max_steps))
        assert len(set(steps)) == len(steps)


def test_what_was_missed_before_a_resume_is_made_up_for_step_by_step() -> None:
    scheduler = After(3, at=0.25, phases=4)  # due at 10, 20, 30, 40
    late = Progress(35, 40, phases=[PhaseRecord("risen", 3, 10, "")])
    assert scheduler(late).phase == "risen"
    now = replace(late, phases=[*late.phases, PhaseRecord("risen", 3, 35, "")])
    assert scheduler(now).phase == "fine_tune"
    assert scheduler(replace(now, step=36)).phase == "risen"


@pytest.mark.parametrize(
    "scheduler", [After(2), After(2, at=0.3, phases=5), After(1, at=7), Alternate(7, 2)]
)
def test_every_scheduler_keeps_the_contract(scheduler: Any) -> None:
    check_scheduler(scheduler)
    assert pickle.loads(pickle.dumps(scheduler)) == scheduler


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: After(0), "steps must be a whole number from 1, not 0"),
        (lambda: After(True), "steps must be a whole number from 1, not True"),
        (lambda: After(5, phases=0), "phases must be a whole number from 1"),
        (lambda: After(5, at=0), "at must be a whole number from 1, not 0"),
        (lambda: After(5, at=0.0), r"at must be a share of the run in \(0, 1\]"),
        (lambda: After(5, at=1.5), r"at must be a share of the run in \(0, 1\]"),
        (lambda: After(5, at=float("nan")), "at must be a share"),
        (lambda: After(5, phases=2), "2 phases need an at below 1.0: the end has room for one"),
        (lambda: Alternate(0, 5), "fine_tune must be a whole number from 1"),
        (lambda: Alternate(5, -1), "risen must be a whole number from 1"),
        (lambda: Alternate(5, 2.0), "risen must be a whole number from 1, not 2.0"),
    ],
)
def test_bad_options_are_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_they_are_offered_under_their_names() -> None:
    plugins = Plugins()
    plugins.register(schedulers, "risen_plugin.builtin.schedulers")
    assert plugins.build("scheduler", "after", {"steps": 5, "at": 0.5}) == After(5, at=0.5)
    assert plugins.build("scheduler", "alternate", {"fine_tune": 2, "risen": 1}) == Alternate(2, 1)
