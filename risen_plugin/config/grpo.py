"""The fields of TRL's ``GRPOConfig`` that a phase sets by itself, and the numbers that must agree.

Without TRL: that a field exists is checked where TRL is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from risen_plugin.errors import ConfigError
from risen_plugin.kit.checks import EXPONENT, check_whole, is_number, shown

DEFAULT_GRPO: Mapping[str, Any] = {
    "num_generations": 8,
    "per_device_train_batch_size": 32,
    "max_completion_length": 128,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
}
"""The values of a phase where neither the configuration nor the scheduler sets another."""


def effective_grpo(
    grpo: Mapping[str, Any], parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The fields of ``GRPOConfig`` that a phase trains with.

    :param grpo: the configuration's, which override the defaults.
    :param parameters: of a scheduler's decision, which override both.
    """
    return {**DEFAULT_GRPO, **grpo, **(parameters or {})}


def answers_per_batch(grpo: Mapping[str, Any], processes: int = 1) -> int:
    """Answers in one generation batch of all processes together."""
    sampled = grpo.get("generation_batch_size")
    return int(sampled or grpo["per_device_train_batch_size"] * _rounds(grpo) * processes)


def rows_per_batch(grpo: Mapping[str, Any], processes: int = 1) -> int:
    """Different instructions in one generation batch of all processes together."""
    return answers_per_batch(grpo, processes) // int(grpo["num_generations"])


def steps_per_batch(grpo: Mapping[str, Any], processes: int = 1) -> float:
    """Optimizer steps for which the answers of one generation batch last."""
    rounds: float = _rounds(grpo)
    if grpo.get("generation_batch_size"):
        at_once = grpo["per_device_train_batch_size"] * processes
        rounds = grpo["generation_batch_size"] / at_once
    accumulated = grpo.get("gradient_accumulation_steps") or 1
    return float(rounds * (grpo.get("num_iterations") or 1) / accumulated)


def _rounds(grpo: Mapping[str, Any]) -> int:
    """Backward passes over one generation batch whose size is not set by itself."""
    return int(grpo.get("steps_per_generation") or grpo.get("gradient_accumulation_steps") or 1)


_COUNTS = {
    "num_generations": 2,
    "per_device_train_batch_size": 1,
    "max_completion_length": 1,
    "gradient_accumulation_steps": 1,
    "steps_per_generation": 1,
    "generation_batch_size": 1,
}
"""Whole numbers among the fields of ``GRPOConfig`` that are read here, and the least of each."""

_NUMBERS = ("learning_rate", "warmup_steps", "logging_steps")


def check_batches(grpo: Mapping[str, Any], label: str = "grpo") -> None:
    """Refuse numbers that are none, and a generation batch that cannot be cut into whole groups.

    :param label: whose settings they are.
    :raises ConfigError: naming the numbers and the group sizes that fit.
    """
    _check_numbers(grpo, label)
    settings = effective_grpo(grpo)
    group = settings["num_generations"]
    at_once = settings["per_device_train_batch_size"]
    batch, steps = settings.get("generation_batch_size"), settings.get("steps_per_generation")
    if batch is not None and steps is not None:
        raise ConfigError(
            f"{label} sets both generation_batch_size and steps_per_generation, which say the "
            "same; leave one out"
        )
    if batch is None:
        batch = answers_per_batch(settings)
    if batch % at_once:
        raise ConfigError(
            f"{label}.generation_batch_size = {batch} is no multiple of "
            f"per_device_train_batch_size = {at_once}; make it one"
        )
    if batch % group:
        fits = [n for n in range(2, batch + 1) if batch % n == 0]
        raise ConfigError(
            f"{label}.num_generations = {group} does not divide the generation batch of {batch} "
            f"answers (per_device_train_batch_size x steps per generation); "
            f"it can be {', '.join(map(str, fits)) or 'nothing: raise the batch to 2 or more'}"
        )


def _check_numbers(grpo: Mapping[str, Any], label: str) -> None:
    for name, value in grpo.items():
        if value is None and name in DEFAULT_GRPO:
            raise ConfigError(
                f"{label}.{name} has no value; leave it out for {DEFAULT_GRPO[name]!r}"
            )
        if name in _COUNTS and value is not None:
            check_whole(f"{label}.{name}", value, _COUNTS[name])
        if name in _NUMBERS and (not is_number(value) or not math.isfinite(value)):
            raise ConfigError(f"{label}.{name} is {shown(value)}; it is a finite number")
        if isinstance(value, str) and EXPONENT.fullmatch(value):
            raise ConfigError(f"{label}.{name} is {shown(value)}")
