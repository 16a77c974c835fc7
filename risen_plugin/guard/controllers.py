"""Steer a phase by what GRPO logs: the KL coefficient, the learning rate, the temperature.

Pure: logged numbers in, orders out. The rules are those of ``control_rules``; handing the orders to
a live trainer is left to ``steering``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from risen_plugin.config import ControlConfig
from risen_plugin.config.grpo import steps_per_batch
from risen_plugin.guard.control_rules import (
    AdaptiveKl,
    EntropyFloor,
    KlBudget,
    Orders,
    RateByKl,
    TemperatureLine,
    ZeroVariance,
)


class Controllers:
    """Those that a configuration asks for, together.

    ``standing`` is what their orders since the phase began have come to.

    >>> controllers = Controllers(ControlConfig(max_zero_variance=0.5, window=1))
    >>> controllers.begin({}, steps=9)
    {}
    >>> [controllers.logged(step, {"frac_reward_zero_std": 0.9}).stop for step in (1, 2)]
    [None, '90% of the groups have no variance, more than 50%, also on instructions drawn anew']
    """

    def __init__(self, config: ControlConfig) -> None:
        self.config = config
        self.step = 0
        self.standing = Orders()
        self.parts: dict[str, Any] = {}
        if config.kl_target is not None:
            self.parts["adaptive_kl"] = AdaptiveKl(
                config.kl_target, config.kl_horizon, config.max_beta
            )
            if config.learning_rate == "kl":
                self.parts["rate"] = RateByKl(config.kl_target)
        if config.kl_budget is not None:
            self.parts["kl_budget"] = KlBudget(config.kl_budget, config.window)
        if config.entropy_floor is not None:
            self.parts["entropy_floor"] = EntropyFloor(
                config.entropy_floor,
                config.window,
                config.max_temperature,
                heats=config.entropy_action == "temperature",
            )
        if config.temperature_end is not None:
            self.parts["temperature"] = TemperatureLine(config.temperature_end)
        if config.max_zero_variance is not None:
            self.parts["zero_variance"] = ZeroVariance(config.max_zero_variance, config.window)

    def begin(self, grpo: Mapping[str, Any], steps: int, processes: int = 1) -> dict[str, Any]:
        """Start a phase; returns the fields of ``GRPOConfig`` that it should have instead."""
        self.step = 0
        self.standing = Orders()
        temperature = float(grpo.get("temperature", 1.0))
        every = grpo.get("logging_steps", 1)
        logs = steps // max(1, math.ceil(every * steps if every < 1 else every))
        instead: dict[str, Any] = {}
        for name, part in self.parts.items():
            if name == "adaptive_kl":
                given = float(grpo.get("beta", 0.0))
                beta = part.begin(given)
                if beta != given:
                    instead["beta"] = beta
            elif name == "temperature":
                part.begin(temperature, steps)
            elif name == "entropy_floor":
                part.begin(temperature, logs, max(1, int(steps_per_batch(grpo, processes))))
            elif name == "kl_budget":
                part.begin(logs)
            else:
                part.begin()
        return instead

    def logged(self, step: int, numbers: Mapping[str, float]) -> Orders:
        """What is to hold after GRPO step ``step``, by what was logged for it."""
        taken, self.step = max(1, step - self.step), step
        beta = rate = temperature = stop = None
        kl, entropy = numbers.get("kl"), numbers.get("entropy")
        share = numbers.get("frac_reward_zero_std")
        parts = self.parts
        if kl is not None and math.isfinite(kl):
            if "adaptive_kl" in parts:
                beta = parts["adaptive_kl"].update(kl, taken)
            if "rate" in parts:
                rate = parts["rate"].update(kl)
            if "kl_budget" in parts:
                stop = parts["kl_budget"].update(kl)
        if "temperature" in parts:
            temperature = parts["temperature"].update(step)
        if "entropy_floor" in parts and entropy is not None and math.isfinite(entropy):
            orders = parts["entropy_floor"].update(entropy, step, taken)
            temperature = orders.temperature if orders.temperature is not None else temperature
            stop = stop or orders.stop
        if "zero_variance" in parts and share is not None and math.isfinite(share):
            stop = stop or parts["zero_variance"].update(share)
        return self._ordered(Orders(beta, rate, temperature, stop))

    def raise_beta(self, beta: float, factor: float) -> float:
        """A KL coefficient ``factor`` times as large, as far as it may be."""
        raised = min(beta * factor, self.config.max_beta)
        if "adaptive_kl" in self.parts:
            self.parts["adaptive_kl"].beta = raised
        self._ordered(Orders(beta=raised))
        return raised

    def dropped(self) -> None:
        """The phase was not kept."""
        if "adaptive_kl" in self.parts:
            self.parts["adaptive_kl"].dropped()

    def _ordered(self, orders: Orders) -> Orders:
        given = {name: value for name, value in asdict(orders).items() if value is not None}
        self.standing = replace(self.standing, **given)
        return orders

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "standing": asdict(self.standing)} | {
            name: part.state_dict() for name, part in self.parts.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state; a controller that it does not know begins anew."""
        self.step = state.get("step", 0)
        self.standing = Orders(**state.get("standing", {}))
        for name, part in self.parts.items():
            if name in state:
                part.load_state_dict(state[name])
