"""Steer a phase by GRPO's logs: the rules that a configuration asks for, together.

Pure: logged numbers in, orders out. ``Steering`` in ``phases`` hands the orders to a
live trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from risen_plugin.config import ControlConfig
from risen_plugin.guard.rules import (
    AdaptiveKl,
    EntropyFloor,
    KlBudget,
    Orders,
    PhaseStart,
    RateByKl,
    Rule,
    TemperatureLine,
    ZeroVariance,
)


class Controllers:
    """The rules that a configuration asks for, together.

    ``standing`` is the sum of their orders since the phase began.

    >>> controllers = Controllers(ControlConfig(max_zero_variance=0.5, window=1))
    >>> controllers.begin({}, steps=9)
    {}
    >>> [controllers.observe(step, {"frac_reward_zero_std": 0.9}).stop for step in (1, 2)]
    [None, '90% of the groups have no variance, more than 50%, also on instructions drawn anew']
    """

    def __init__(self, config: ControlConfig) -> None:
        self.config = config
        self.standing = Orders()
        self.rules = _rules(config)

    def begin(self, grpo: Mapping[str, Any], steps: int, processes: int = 1) -> dict[str, Any]:
        """Start a phase; returns the fields of ``GRPOConfig`` that replace those of ``grpo``."""
        phase = PhaseStart.of(grpo, steps, processes)
        self.standing = orders = Orders()
        for rule in self.rules.values():
            orders = orders.before(rule.begin(phase))
        return {} if orders.beta is None else {"beta": orders.beta}

    def observe(self, step: int, numbers: Mapping[str, float]) -> Orders:
        """The orders that hold after GRPO step ``step``, by the numbers logged for it."""
        orders = Orders()
        for rule in self.rules.values():
            orders = orders.before(rule.observe(step, numbers))
        self.standing = orders.before(self.standing)
        return orders

    def raise_beta(self, beta: float, factor: float) -> float:
        """A KL coefficient ``factor`` times as large, up to the largest allowed."""
        raised = min(beta * factor, self.config.max_beta)
        for rule in self.rules.values():
            rule.take_beta(raised)
        self.standing = Orders(beta=raised).before(self.standing)
        return raised

    def drop(self) -> None:
        """The phase was not kept."""
        for rule in self.rules.values():
            rule.drop()

    def state_dict(self) -> dict[str, Any]:
        return {"standing": asdict(self.standing)} | {
            name: rule.state_dict() for name, rule in self.rules.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state; a rule that it does not know begins anew."""
        self.standing = Orders(**state.get("standing", {}))
        for name, rule in self.rules.items():
            if name in state:
                rule.load_state_dict(state[name])


def _rules(config: ControlConfig) -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    if config.kl_target is not None:
        rules["adaptive_kl"] = AdaptiveKl(config.kl_target, config.kl_horizon, config.max_beta)
        if config.learning_rate == "kl":
            rules["rate"] = RateByKl(config.kl_target)
    if config.kl_budget is not None:
        rules["kl_budget"] = KlBudget(config.kl_budget, config.window)
    if config.temperature_end is not None:
        rules["temperature"] = TemperatureLine(config.temperature_end)
    if config.entropy_floor is not None:
        rules["entropy_floor"] = EntropyFloor(
            config.entropy_floor,
            config.window,
            config.max_temperature,
            heats=config.entropy_action == "temperature",
        )
    if config.max_zero_variance is not None:
        rules["zero_variance"] = ZeroVariance(config.max_zero_variance, config.window)
    return rules
