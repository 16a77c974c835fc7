"""The fields of TRL's ``GRPOConfig``: a phase's defaults, and checks that need no TRL.

That a field exists is checked where TRL is loaded.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from risen_plugin.errors import ConfigError, near_miss
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


@dataclass(frozen=True)
class Chosen:
    """A field of ``GRPOConfig`` that a person set.

    :param label: whose it is, for messages: ``grpo``, or a scheduler's.
    """

    label: str
    name: str
    value: Any


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


def answers_per_step(grpo: Mapping[str, Any], processes: int = 1) -> float:
    """New answers that one optimizer step takes on average."""
    return answers_per_batch(grpo, processes) / max(1.0, steps_per_batch(grpo, processes))


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


_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
    "max_length": 1,
    "save_total_limit": 1,
}
"""Whole numbers, and the least of each that a Trainer can work with."""

GRPO_WORDS: Mapping[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("server", "colocate"),
    "vllm_importance_sampling_mode": (
        "token_truncate",
        "token_mask",
        "sequence_truncate",
        "sequence_mask",
    ),
}
"""The words for fields of ``GRPOConfig`` that are declared as any text, and looked at in use."""

_MOST_WORDS = 12  # that a message lists

_ABOVE_0 = ("num_train_epochs", "logging_steps", "save_steps", "eval_steps", "temperature")
_FROM_0 = ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "beta")


def check_fields(
    kind: Any,
    fields: Mapping[str, Any],
    managed: Mapping[str, str],
    label: str,
    words: Mapping[str, Collection[str]] = {},
) -> None:
    """Refuse a name that is no field, a field that is set here, and a value that does not fit.

    :param kind: the configuration class, such as ``SFTConfig``; none is built.
    :param managed: fields that are set here, with the reason.
    :param label: whose fields they are, for messages.
    :param words: those that a field takes, where its type does not say it.
    :raises ConfigError: naming the field and the near miss, or the values that it takes.
    """
    known = {entry.name for entry in dataclasses.fields(kind) if entry.init}
    hints = typing.get_type_hints(kind)
    for name, value in fields.items():
        if name in managed:
            raise ConfigError(f"{label} may not set '{name}': {managed[name]}")
        if name not in known:
            raise ConfigError(
                f"{label} has '{name}', which is no field of TRL's {kind.__name__}"
                f"{near_miss(str(name), known - managed.keys())}"
            )
        where = f"{label}.{name}"
        _check_value(where, name, value, hints[name])
        _check_word(where, value, words.get(name, ()), hints[name])


_WHOLE: Mapping[str, tuple[Any, ...]] = {
    "top_p": (None, 1, 1.0),
    "top_k": (None, 0, -1),
    "min_p": (None, 0, 0.0),
    "repetition_penalty": (None, 1, 1.0),
    "generation_kwargs": (None, {}),
    "use_transformers_continuous_batching": (None, False),
    "use_liger_kernel": (None, False),
    "use_vllm": (None, False),
}
"""Fields of ``GRPOConfig``, and the values under which answers are drawn from all of the model's
distribution and are weighted by it."""


def refused_setting(grpo: Mapping[str, Any]) -> str | None:
    """The setting that forbids to sample outside of TRL, with its value; None if there is none.

    A cut distribution (``top_p`` and its like) has other likelihoods than those that are learned
    from, so the weights of its tokens would be biased.
    """
    for name, free in _WHOLE.items():
        if grpo.get(name) not in free:
            return f"grpo.{name} = {shown(grpo[name])}"
    return None


def _check_word(where: str, value: object, words: Collection[str], hint: object) -> None:
    """Refuse a value that is none of the words which a field takes."""
    kinds = _kinds_in(hint)
    known = [*words, *(str(m.value) for kind in kinds if _is_enum(kind) for m in kind)]
    is_empty = value is None and type(None) in kinds
    if not known or is_empty or isinstance(value, bool | enum.Enum):
        return  # true and false stand for words, such as YAML's unquoted no
    if value in known:
        return
    longer = [word for word in known if word.startswith(f"{value}_")]
    hint = f"; did you mean '{longer[0]}'?" if longer else near_miss(str(value), known)
    rest = len(known) - _MOST_WORDS
    more = f" and {rest} more" if rest > 0 else ""
    raise ConfigError(
        f"{where} is {shown(value)}{hint or '.'} It is one of "
        f"{', '.join(known[:_MOST_WORDS])}{more}"
    )


def _is_enum(kind: object) -> bool:
    return isinstance(kind, enum.EnumType)


def _check_value(where: str, name: str, value: object, hint: object) -> None:
    kinds = _numbers_in(hint)
    if not kinds or (value is None and type(None) in kinds):
        return
    if bool in kinds and (isinstance(value, bool) or len(kinds - {type(None)}) > 1):
        return
    if kinds <= {bool, type(None)}:
        raise ConfigError(f"{where} is {shown(value)}; it is true or false")
    if float not in kinds:
        _check_count(where, name, value)
        return
    if not is_number(value) or not math.isfinite(value):
        raise ConfigError(f"{where} is {shown(value)}; it is a finite number")
    if (name in _ABOVE_0 and value <= 0) or (name in _FROM_0 and value < 0):
        raise ConfigError(
            f"{where} is {value:g}; it is a number {'above' if name in _ABOVE_0 else 'from'} 0"
        )


def _check_count(where: str, name: str, value: object) -> None:
    if name in _LEAST:
        check_whole(where, value, _LEAST[name])
    elif isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{where} is {shown(value)}; it is a whole number")
    elif name == "max_steps" and value == 0:
        raise ConfigError(f"{where} is 0, so there is nothing to do; give at least 1")


def _numbers_in(hint: object) -> set[Any]:
    """The types of a field that holds numbers or a switch alone; nothing for any other field."""
    kinds = _kinds_in(hint)
    return kinds if kinds <= {int, float, bool, type(None)} else set()


def _kinds_in(hint: object) -> set[Any]:
    """The types that a field may have."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return set(typing.get_args(hint)) if is_union else {hint}
