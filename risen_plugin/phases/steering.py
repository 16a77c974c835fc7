"""Steer a live GRPO trainer: it does as the guard and the controllers say.

What to do is decided by the phase's guard and by ``guard/controllers``. Here it is done: to the
trainer's KL coefficient, its optimizer's learning rate, its temperature, its end.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback

from risen_plugin.guard.controllers import Controllers
from risen_plugin.guard.rules import Orders
from risen_plugin.phases.guarding import PhaseGuard
from risen_plugin.phases.trial import Announce
from risen_plugin.training.live_settings import Live

_SERIES = ("reward", "reward_std", "kl", "entropy", "frac_reward_zero_std")


class Steering(TrainerCallback):
    """Carries out what is decided while one phase trains.

    :param announce: writes an event of this phase.
    :param goes_on: whether the phase was cut off, so that earlier orders still hold.
    """

    def __init__(
        self,
        trainer: Any,
        guard: PhaseGuard,
        controllers: Controllers,
        announce: Announce,
        *,
        goes_on: bool = False,
    ) -> None:
        self.trainer = trainer
        self.guard = guard
        self.controllers = controllers
        self.announce = announce
        self.live = Live(trainer)
        if goes_on:
            self.live.go_on(controllers.standing)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        if control.should_training_stop or not self.guard.is_due(step):
            return
        beta = self.trainer.beta
        max_beta = self.controllers.config.max_beta
        action = self.guard.look(self.trainer.model, step, beta, max_beta)
        if action.kind == "raise_beta":
            raised = self.controllers.raise_beta(beta, self.guard.config.beta_factor)
            self.live.follow(Orders(beta=raised))
        elif action.kind in ("stop", "roll_back"):
            control.should_training_stop = True

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
        orders = self.controllers.observe(step, numbers)
        self.live.follow(orders)
        series = {
            name: numbers[name] for name in _SERIES if math.isfinite(numbers.get(name, math.nan))
        }
        self.announce("control", grpo_step=step, **series, **held)
        if orders.stop is not None and not control.should_training_stop and step < state.max_steps:
            control.should_training_stop = True
            self.guard.stop(step, orders.stop)
