"""Steer a live GRPO trainer: hand it the controllers' orders, measure, act on what was measured.

What to do is decided by ``control`` and ``guard``. Here it is done: to the trainer's live settings
and to its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

from risen_plugin.config import GuardConfig
from risen_plugin.guard.changes import Changes
from risen_plugin.guard.control_rules import Orders
from risen_plugin.guard.controllers import Controllers
from risen_plugin.guard.verdicts import Action, Look, When, act
from risen_plugin.phases.measuring import State
from risen_plugin.training.live_settings import Live

_SERIES = ("reward", "reward_std", "kl", "entropy", "frac_reward_zero_std")


@dataclass
class Taken:
    """What was done about a phase while it ran.

    :param actions: each step's action other than to go on, with its reason.
    :param stopped: why it ended before its last step, if it did.
    :param condemned: the measurement that condemned it, if one did.
    """

    actions: list[dict[str, Any]] = field(default_factory=list)
    stopped: str | None = None
    condemned: tuple[State, Changes, str] | None = None

    def note(self, step: int, action: Action) -> None:
        if action.kind != "go_on":
            self.actions.append({"grpo_step": step, "action": action.kind, "reason": action.reason})


class Steering(TrainerCallback):
    """Watches one phase.

    :param measure: measures the model in training, by which step it is; and what changed.
    :param tell: writes an event of this phase.
    """

    def __init__(
        self,
        trainer: Any,
        controllers: Controllers,
        guard: GuardConfig,
        measure: Callable[[int], tuple[State, Changes]],
        tell: Callable[..., None],
    ) -> None:
        self.live = Live(trainer)
        self.controllers = controllers
        self.guard = guard
        self.measure = measure
        self.tell = tell
        self.taken = Taken()
        self.gains: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, every = state.global_step, self.guard.every
        if not every or step % every or step >= state.max_steps or control.should_training_stop:
            return
        measured, changes = self.measure(step)
        self.gains.append(changes.gain.value)
        action = act(
            Look(
                "during",
                changes,
                self.gains,
                self.live.trainer.beta,
                self.controllers.config.max_beta,
            ),
            self.guard,
        )
        tell_measured(self.tell, "during", step, measured, changes, action)
        self.taken.note(step, action)
        if action.kind == "raise_beta":
            beta = self.controllers.raise_beta(self.live.trainer.beta, self.guard.beta_factor)
            self.live.follow(Orders(beta=beta))
        elif action.kind in ("stop", "roll_back"):
            control.should_training_stop = True
            if action.kind == "stop":
                self.taken.stopped = action.reason
            else:
                self.taken.condemned = (measured, changes, action.reason)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        numbers = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float)
        }
        if "train_runtime" in numbers:  # the summary at the end
            return
        step = state.global_step
        held = self.live.settings()
        orders = self.controllers.logged(step, numbers)
        self.live.follow(orders)
        series = {
            name: numbers[name] for name in _SERIES if math.isfinite(numbers.get(name, math.nan))
        }
        self.tell("control", grpo_step=step, **series, **held)
        if orders.stop is not None and not control.should_training_stop and step < state.max_steps:
            control.should_training_stop = True
            self.taken.stopped = orders.stop
            self.taken.note(step, Action("stop", orders.stop))


def tell_measured(  # noqa: PLR0917 one event, its parts in order
    tell: Callable[..., None],
    when: When,
    step: int,
    state: State,
    changes: Changes | None,
    action: Action,
) -> None:
    """Write a ``guard`` event: what was measured, with its ends, and what follows from it."""
    measured: dict[str, Any] = dict(state.guard.as_metrics())
    measured |= {f"task/{name}": value for name, value in state.tasks.items()}
    measured |= {f"domain/{name}": value for name, value in state.domain.items()}
    measured["trip_wire_rate"] = state.tripped.rate
    if state.reported is not None:
        measured["reported_strict"] = state.reported.strict
    if state.unseen is not None:
        measured["unseen_strict"] = state.unseen.strict
    intervals = {} if changes is None else changes.ends()
    tell(
        "guard",
        when=when,
        grpo_step=step,
        measured={name: value for name, value in measured.items() if math.isfinite(value)},
        intervals=intervals,
        action=action.kind,
        reason=action.reason,
    )
