"""Guard one phase: measure at its entry, while it runs and at its end, and tell what follows.

What a measurement means is decided by ``guard``; what is done to the trainer by ``steering``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trl.trainer.grpo_trainer import GRPOTrainer

from risen_plugin.guard.changes import Changes, compare
from risen_plugin.guard.verdicts import Action, Look, Verdict, act, confidence_of_looks, judge
from risen_plugin.kit.jsonable import from_plain, to_plain
from risen_plugin.kit.stopwatch import Clock
from risen_plugin.phases.measuring import State, Surroundings, measure_state, metrics_of
from risen_plugin.phases.steering import Steering, Taken, tell_measured
from risen_plugin.training.answering import Encoded, sampled_answers
from risen_plugin.training.grpo import Plan

Tell = Callable[..., None]


def untold(event: str, **values: Any) -> None:
    """Nobody listens to a phase that is run by itself."""


class Guarding:
    """The measurements of one phase, and what came of them.

    :param tell: writes an event of the phase: its name, and values by name.
    :param clock: what measuring takes counts as ``guard_s``, also within ``reinforce_s``.
    """

    def __init__(self, around: Surroundings, plan: Plan, clock: Clock, tell: Tell) -> None:
        self.around = around
        self.config = around.config.guard
        self.plan = plan
        self.clock = clock
        self.tell = tell
        self.taken = Taken()
        self.after: State | None = None
        self.changes: Changes | None = None
        self.wants_burst = False
        self._entry_answers: Sequence[Encoded] = ()
        self._before: State | None = None
        self._gains: list[float] = []
        self._goes_on = False

    @property
    def before(self) -> State:
        """The model at phase entry, once it is measured."""
        assert self._before is not None
        return self._before

    def enter(self) -> State:
        """Measure the model as it enters the phase, and sample what its forward KL is taken on."""
        with self.clock.time("guard_s"):
            self._entry_answers = self.around.processes.main(
                lambda: sampled_answers(
                    self.around.model,
                    self.around.tokenizer,
                    self.around.instructions.guard,
                    count=self.config.kl_samples,
                    max_new_tokens=self.plan.grpo["max_completion_length"],
                    batch_size=self.config.batch_size,
                    seed=self.plan.seed,
                )
            )
            self._before = self._measure(self.around.model, "before")
        if self._before.outage is None:
            action = act(Look("before"), self.config)
        else:
            action = Action("stop", f"not begun: {self._before.outage}")
        tell_measured(self.tell, "before", 0, self._before, None, action)
        return self._before

    def go_on(self, state: Mapping[str, Any]) -> State:
        """Take up what :meth:`state_dict` told, in a phase that goes on after it was cut off."""
        self._before = from_plain(State, state["before"])
        self._entry_answers = [(list(ids), list(labels)) for ids, labels in state["entry_answers"]]
        self.taken = from_plain(Taken, state["taken"])
        self._gains = list(state["gains"])
        self._goes_on = True
        return self._before

    def state_dict(self) -> dict[str, Any]:
        """What was measured and done in the phase so far, as JSON values."""
        return {
            "before": to_plain(self.before),
            "entry_answers": to_plain(self._entry_answers),
            "taken": to_plain(self.taken),
            "gains": list(self._gains),
        }

    def steering(self, trainer: GRPOTrainer) -> Steering:
        """What watches the trainer while it runs, as one of its callbacks."""
        every = self.config.every
        looks = (self.plan.steps - 1) // every if every else 0

        def measure(step: int) -> tuple[State, Changes]:
            model: Any = trainer.model
            modes = [(module, module.training) for module in model.modules()]
            with self.clock.time("guard_s", within="reinforce_s"):
                state = self._measure(model, f"step {step}", is_whole=False)
            for module, training in modes:
                module.training = training
            return state, self._compared(state, looks)

        steering = Steering(trainer, self.around.controllers, self.config, measure, self.tell)
        steering.taken, steering.gains = self.taken, self._gains
        if self._goes_on:
            steering.live.go_on(self.around.controllers.standing)
        return steering

    def leave(self, trainer: GRPOTrainer) -> State:
        """Measure the model again, unless it was condemned by a measurement while it trained."""
        if self.taken.condemned is not None:
            self.after, self.changes, _ = self.taken.condemned
            return self.after
        with self.clock.time("guard_s"):
            self.after = self._measure(trainer.model, "after")
        self.changes = self._compared(self.after)
        return self.after

    def verdict(self, steps: int, outage: str | None) -> Verdict:
        """Whether the phase is kept.

        :param steps: GRPO steps that it took.
        :param outage: what cut its training short, if a reward did.
        """
        verdict = self._verdict(steps, outage)
        if self.after is None or self.changes is None:
            return verdict
        action = act(Look("after", self.changes, verdict=verdict), self.config)
        self.wants_burst = action.kind == "burst"
        if self.taken.condemned is None:
            tell_measured(self.tell, "after", steps, self.after, self.changes, action)
            self.taken.note(steps, action)
        return verdict

    def metrics(self) -> dict[str, Any]:
        """The phase's measurements and actions as its record has them."""
        return {
            **metrics_of(self.before, self.after, self.changes),
            "actions": self.taken.actions,
            "wants_burst": self.wants_burst,
            "looks": len(self._gains),
        }

    def _verdict(self, steps: int, outage: str | None) -> Verdict:
        if self.before.outage is not None:
            return Verdict(False, f"not begun: {self.before.outage}")
        if self.after is None or self.changes is None:
            return Verdict(False, f"ended at GRPO step {steps}: {outage}")
        if self.taken.condemned is not None:
            return Verdict(False, f"rolled back at GRPO step {steps}: {self.taken.condemned[2]}")
        if self.after.outage is not None:
            return Verdict(False, self.after.outage)
        verdict = judge(self.before.guard, self.after.guard, self.config, self.changes)
        if self.taken.stopped is None:
            return verdict
        stopped = f"stopped at GRPO step {steps} ({self.taken.stopped}): "
        return Verdict(verdict.accepted, stopped + verdict.reason)

    def _measure(self, model: Any, moment: str, *, is_whole: bool = True) -> State:
        state = measure_state(
            self.around,
            model,
            self.plan.grpo,
            f"{self.plan.label}: {moment}",
            entry_answers=self._entry_answers,
            is_whole=is_whole,
        )
        return self.around.processes.agree(state)

    def _compared(self, state: State, looks: int = 1) -> Changes:
        confidence = confidence_of_looks(self.config, looks)
        return compare(self.before.by_row, state.by_row, self.config, confidence)
