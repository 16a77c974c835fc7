"""Refuse wrong values of a configuration, each in one line that says what it takes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

from risen_plugin.errors import ConfigError, near_miss

EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?e[-+]?\d+", re.IGNORECASE)


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse a value that is no whole number from ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{name} is {shown(value)}; it is a whole number from {least}")
    if value < least:
        raise ConfigError(f"{name} is {value}; least is {least}")


def check_between(name: str, value: object, least: float, most: float) -> None:
    """Refuse a value that is no finite number from ``least`` to ``most``."""
    if not is_number(value) or not least <= value <= most or math.isinf(value):
        band = f"from {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
        raise ConfigError(f"{name} is {shown(value)}; it is a number {band}")


def check_bound(name: str, value: object, least: float, *, is_above: bool = False) -> None:
    """Refuse a value that is no number from ``least``, or above it; None is no bound."""
    if value is None:
        return
    if not is_number(value) or math.isnan(value) or value < least or (is_above and value <= least):
        band = f"above {least:g}" if is_above else f"from {least:g}"
        raise ConfigError(f"{name} is {shown(value)}; it is a number {band}, or left out")


def check_keys(data: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse a key that is not ``known``, naming the near miss."""
    for key in data:
        if key not in known:
            raise ConfigError(
                f"{where} has no key '{key}'{near_miss(str(key), known) or '.'} "
                f"It takes: {', '.join(sorted(known))}"
            )


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def all_texts(values: object) -> bool:
    """Whether ``values`` is a sequence of texts alone."""
    return isinstance(values, Sequence) and all(isinstance(value, str) for value in values)


def shown(value: object) -> str:
    """A wrong value as a message shows it; YAML 1.1 reads ``1e-5`` as a text."""
    if isinstance(value, str) and EXPONENT.fullmatch(value):
        mantissa, exponent = value.lower().split("e")
        sign = "" if exponent[0] in "+-" else "+"
        point = "" if "." in mantissa else ".0"
        return f"the text '{value}' (in YAML write {mantissa}{point}e{sign}{exponent})"
    return repr(value)
