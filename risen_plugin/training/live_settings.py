"""Settings of a GRPO trainer that can be changed while it runs.

TRL 1.16 reads ``beta`` at each use. The temperature stands in three places, one of them out of
reach in a closure, so it is set where the next answers are sampled, and their likelihoods are taken
at the same one.
"""

from __future__ import annotations

from typing import Any

from trl.trainer.utils import add_fused_lm_head

from risen_plugin.guard.rules import Orders
from risen_plugin.training.adapters import base_of


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
            self.trainer.sample_at(orders.temperature)

    def follow(self, orders: Orders) -> None:
        """Change what the orders say; the temperature from the next answers on."""
        if orders.beta is not None:
            self.trainer.beta = orders.beta
        if orders.rate is not None and orders.rate != self.rate:
            self._scale_rate(orders.rate / self.rate)
            self.rate = orders.rate
        if orders.temperature is not None and orders.temperature != self.trainer.temperature:
            self.trainer.sample_at(orders.temperature)

    def _scale_rate(self, factor: float) -> None:
        for group in self.trainer.optimizer.param_groups:
            for name in ("lr", "initial_lr"):
                if name in group:
                    group[name] *= factor
        # The schedule sets each rate anew from these.
        schedule = self.trainer.lr_scheduler
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
