"""Check fields that are passed through to one of TRL's configuration classes.

TRL and transformers annotate their fields but do not check them: a text where a number belongs
comes up much later, as an error about something else.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from risen_plugin.errors import ConfigError, near_miss
from risen_plugin.kit.checks import check_whole, is_number, shown

_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
    "max_length": 1,
    "save_total_limit": 1,
}
"""Whole numbers, and the least of each that a Trainer can work with."""

_ABOVE_0 = ("num_train_epochs", "logging_steps", "save_steps", "eval_steps", "temperature")
_FROM_0 = ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "beta")


def check_fields(
    kind: Any, fields: Mapping[str, Any], managed: Mapping[str, str], label: str
) -> None:
    """Refuse a name that is no field, a field that is set here, and a value that does not fit.

    :param kind: the configuration class, such as ``SFTConfig``; none is built.
    :param managed: fields that are set here, with the reason.
    :param label: whose fields they are, for messages.
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
        _check_value(f"{label}.{name}", name, value, hints[name])


def _check_value(where: str, name: str, value: Any, hint: Any) -> None:
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


def _check_count(where: str, name: str, value: Any) -> None:
    if name in _LEAST:
        check_whole(where, value, _LEAST[name])
    elif isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{where} is {shown(value)}; it is a whole number")
    elif name == "max_steps" and value == 0:
        raise ConfigError(f"{where} is 0, so there is nothing to do; give at least 1")


def _numbers_in(hint: Any) -> set[Any]:
    """The types of a field that holds numbers or a switch alone; nothing for any other field."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = set(typing.get_args(hint)) if is_union else {hint}
    return kinds if kinds <= {int, float, bool, type(None)} else set()
