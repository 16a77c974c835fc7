"""Check the judge's options, each with one line that says how to mend it.

No message repeats a text that may be a key: an address or a variable's name may hold a pasted one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from risen_plugin.errors import ConfigError

_OURS = ("messages", "model", "n", "stream")


def check_criteria(criteria: str | Sequence[str] | None, column: str | None) -> None:
    """Refuse neither or both of the two, and empty criteria.

    :raises ConfigError: naming the option.
    """
    if (criteria is None) == (column is None):
        both = "both" if criteria is not None else "neither of them"
        raise ConfigError(
            f"give either criteria, for all rows, or the column of the rows with them, not {both}"
        )
    texts = [criteria] if isinstance(criteria, str) else list(criteria or [])
    if criteria is not None and not (texts and all(text.strip() for text in texts)):
        raise ConfigError("criteria must hold at least one text, and no empty ones")
    if column is not None and not column.strip():
        raise ConfigError("column must be the name of a column")


def check_numbers(least: Mapping[str, tuple[float | None, float]]) -> None:
    """Refuse a number below its least value; None is allowed.

    :raises ConfigError: naming the option.
    """
    for name, (value, bound) in least.items():
        if value is not None and not (math.isfinite(value) and value >= bound):
            raise ConfigError(f"{name} is {value}, but must be at least {bound:g}")


def check_extra(extra: Mapping[str, Any]) -> None:
    """Refuse fields that the judge sets itself, or that are no JSON.

    :raises ConfigError: naming the field.
    """
    for name in extra:
        if name in _OURS:
            raise ConfigError(f"extra: '{name}' is set by the judge; leave it out")
    try:
        json.dumps(dict(extra), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"extra holds what JSON cannot: {error}") from error
