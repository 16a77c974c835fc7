"""The settings of the controllers that steer a running phase: frozen data.

Settings that contradict each other are refused here, both of them named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from risen_plugin.errors import ConfigError
from risen_plugin.kit.checks import check_between, check_bound, check_whole, is_number
from risen_plugin.kit.fields import checked_fields

EntropyAction: TypeAlias = Literal["temperature", "stop"]
RateRule: TypeAlias = Literal["fixed", "kl"]


@checked_fields
@dataclass(frozen=True)
class ControlConfig:
    """The controllers that steer a running phase, after each of GRPO's logging steps.

    :param kl_target: the KL from the model at phase entry that ``beta`` is steered to, in nats per
        token; None leaves ``beta`` as it is.
    :param kl_horizon: GRPO steps over which ``beta`` follows; more is slower.
    :param max_beta: the most that ``beta`` is raised to.
    :param kl_budget: the KL from the model at phase entry that ends a phase; every phase has it
        anew, since each is anchored at its own entry. None for no end.
    :param entropy_floor: entropy per token, in nats, that a phase should not fall below; None for
        no floor.
    :param entropy_action: below it ``temperature`` samples hotter, up to ``max_temperature``, and
        stops the phase there; ``stop`` stops it at once.
    :param max_temperature: the hottest sampling.
    :param temperature_end: the sampling temperature at the end of a phase, reached in equal steps;
        None leaves it as it is.
    :param learning_rate: ``fixed`` leaves it to ``grpo``; ``kl`` divides it by 1.5 where the KL is
        above twice ``kl_target`` and raises it again below half of that.
    :param max_zero_variance: the largest share of groups whose answers all score the same; a phase
        that stays above it also on fresh instructions is stopped. None for no limit.
    :param window: logging steps that a share or an entropy is averaged over.
    """

    kl_target: float | None = None
    kl_horizon: int = 10
    max_beta: float = 1.0
    kl_budget: float | None = None
    entropy_floor: float | None = None
    entropy_action: EntropyAction = "temperature"
    max_temperature: float = 1.5
    temperature_end: float | None = None
    learning_rate: RateRule = "fixed"
    max_zero_variance: float | None = 0.7
    window: int = 4

    def __post_init__(self) -> None:
        for name in ("kl_horizon", "window"):
            check_whole(f"control.{name}", getattr(self, name), 1)
        for name in ("kl_target", "kl_budget", "entropy_floor", "temperature_end"):
            check_bound(f"control.{name}", getattr(self, name), 0.0, is_above=True)
        for name in ("max_beta", "max_temperature"):
            check_between(f"control.{name}", getattr(self, name), 1e-9, math.inf)
        if self.max_zero_variance is not None:
            check_between("control.max_zero_variance", self.max_zero_variance, 0.0, 1.0)
        for name, choices in (
            ("entropy_action", ("temperature", "stop")),
            ("learning_rate", ("fixed", "kl")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"control.{name} is {getattr(self, name)!r}; it is "
                    f"{' or '.join(map(repr, choices))}"
                )
        self._check_contradictions()

    def _check_contradictions(self) -> None:
        target, budget = self.kl_target, self.kl_budget
        if target is not None and budget is not None and budget <= target:
            raise ConfigError(
                f"control.kl_target is {target:g}, but control.kl_budget is {budget:g}, so a phase "
                "ends before it is steered anywhere; set the budget above the target"
            )
        if self.learning_rate == "kl" and target is None:
            raise ConfigError(
                "control.learning_rate is 'kl', but control.kl_target is not set; set it, or leave "
                "the rate 'fixed'"
            )
        heats = self.entropy_floor is not None and self.entropy_action == "temperature"
        if heats and self.temperature_end is not None:
            raise ConfigError(
                f"control.temperature_end is {self.temperature_end:g}, but control.entropy_floor "
                "moves the temperature too; set control.entropy_action to 'stop', or leave one out"
            )
        if self.temperature_end is not None and self.temperature_end > self.max_temperature:
            raise ConfigError(
                f"control.temperature_end is {self.temperature_end:g}, above "
                f"control.max_temperature {self.max_temperature:g}"
            )

    @property
    def needs_kl(self) -> str | None:
        """The first setting that goes by the KL, which TRL measures only with ``beta``."""
        for name in ("kl_target", "kl_budget"):
            if getattr(self, name) is not None:
                return name
        return None


def check_control(control: ControlConfig, grpo: Mapping[str, Any], label: str = "grpo") -> None:
    """Refuse GRPO settings that leave a controller nothing to steer by.

    :param label: whose settings they are.
    :raises ConfigError: naming both settings.
    """
    needed, beta = control.needs_kl, grpo.get("beta", 0.0)
    if needed is not None and not (is_number(beta) and beta > 0.0):
        raise ConfigError(
            f"control.{needed} is {getattr(control, needed):g}, but {label}.beta is {beta!r}: TRL "
            f"measures the KL only with a beta above 0; set {label}.beta, to 0.04 for example"
        )
    if needed is not None and beta > control.max_beta:
        raise ConfigError(
            f"{label}.beta is {beta:g}, above control.max_beta {control.max_beta:g}; raise that"
        )
    temperature = grpo.get("temperature", 1.0)
    heats = control.entropy_floor is not None and control.entropy_action == "temperature"
    if heats and is_number(temperature) and temperature > control.max_temperature:
        raise ConfigError(
            f"{label}.temperature is {temperature:g}, above control.max_temperature "
            f"{control.max_temperature:g}; raise that"
        )
