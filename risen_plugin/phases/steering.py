"""Steer a live GRPO trainer: hand it the controllers' orders, measure, act on what was measured.

What to do is decided by ``control`` and ``guard``. Here it is done: to the trainer's KL
coefficient, its optimizer's learning rate, its temperature, its end. TRL 1.16 reads ``beta`` at
each use. The temperature stands in three places, one of them out of reach in a closure, so it is
set where the next answers are sampled, and their likelihoods are taken at the same one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback
from trl.trainer.utils import add_fused_lm_head

from risen_plugin.config import GuardConfig
from risen_plugin.guard.changes import Changes
from risen_plugin.guard.control_rules import Orders
from risen_plugin.guard.controllers import Controllers
from risen_plugin.guard.verdicts import Action, Look, When, act
from risen_plugin.phases.measuring import State

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


class Live:
    """The settings of a GRPO trainer that can be changed while it runs."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.rate = 1.0

    def settings(self) -> dict[str, float]:
        """What the step that was logged last was taken with."""
        groups = self.trainer.optimizer.param_groups if self.trainer.optimizer else []
        rates = {"learning_rate": float(groups[0]["lr"])} if groups else {}
        return {
            "beta": float(self.trainer.beta),
            **rates,
            "temperature": float(self.trainer.temperature),
        }

    def go_on(self, orders: Orders) -> None:
        """Stand by the orders of a phase that was cut off; its optimizer has the rate."""
        self.rate = 1.0 if orders.rate is None else orders.rate
        if orders.temperature is not None:
            temperature = orders.temperature
            self.trainer.before_answers = lambda: set_temperature(self.trainer, temperature)

    def follow(self, orders: Orders) -> None:
        """Change what the orders say; the temperature from the next answers on."""
        if orders.beta is not None:
            self.trainer.beta = orders.beta
        if orders.rate is not None and orders.rate != self.rate:
            self._scale_rate(orders.rate / self.rate)
            self.rate = orders.rate
        if orders.temperature is not None and orders.temperature != self.trainer.temperature:
            temperature = orders.temperature
            self.trainer.before_answers = lambda: set_temperature(self.trainer, temperature)

    def _scale_rate(self, factor: float) -> None:
        for group in self.trainer.optimizer.param_groups:
            for name in ("lr", "initial_lr"):
                if name in group:
                    group[name] *= factor
        # The schedule sets each rate anew from these.
        schedule = getattr(self.trainer.lr_scheduler, "scheduler", self.trainer.lr_scheduler)
        if hasattr(schedule, "base_lrs"):
            schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]


def set_temperature(trainer: Any, temperature: float) -> None:
    """Sample at ``temperature``, and take likelihoods and entropies at it."""
    trainer.temperature = temperature
    trainer.args.temperature = temperature
    if hasattr(trainer, "generation_config"):
        trainer.generation_config.temperature = temperature
        trainer.generation_kwargs["temperature"] = temperature
    if hasattr(trainer, "vllm_generation"):
        trainer.vllm_generation.temperature = temperature
    base = base_of(trainer.accelerator.unwrap_model(trainer.model))
    # TRL holds the temperature in the closure of this forward: the head is put on anew.
    if trainer.bare_forward is None:
        vars(base).pop("forward", None)
    else:
        base.forward = trainer.bare_forward
    add_fused_lm_head(
        base,
        temperature=temperature,
        cast_lm_head_to_fp32=trainer.args.cast_lm_head_to_fp32,
        outputs=("log_probs", "entropy"),
    )


def base_of(model: Any) -> Any:
    """The model that an adapter is on; a plain model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
