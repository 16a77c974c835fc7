"""Any value as JSON text that every reader takes, whatever it is made of.

For what a run logs of other people's data: nothing in there may stop it. What JSON does not know is
told in words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_LONGEST_TOLD = 1000  # characters of an object that is told in words
_MOST_NUMBERS = 10_000  # of an array that is listed
_DEEPEST = 50


def json_text(value: Any) -> str:
    """``value`` as JSON in one line, readable where it can be; never raises for a value.

    >>> json_text({"name": "Zoë", 1: [float("nan"), ..., (2, 3)]})
    '{"name": "Zoë", "1": ["nan", "Ellipsis", [2, 3]]}'
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(_plain(value, 0), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as a cut answer may have
        return json.dumps(json.loads(text))
    return text


def _plain(value: Any, depth: int) -> Any:  # noqa: PLR0911  one line per sort of value
    """``value`` in the types that JSON knows."""
    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _told(value)
    if depth < _DEEPEST:
        try:
            if isinstance(value, Mapping):
                return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
            if isinstance(value, list | tuple | set | frozenset):
                return [_plain(item, depth + 1) for item in value]
            if hasattr(value, "tolist") and math.prod(value.shape) <= _MOST_NUMBERS:
                return _plain(value.tolist(), depth + 1)
        except Exception:  # noqa: BLE001  an object may raise whatever it likes when it is looked at
            return _told(value)
    return _told(value)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else _told(key)


def _told(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  as above
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= _LONGEST_TOLD else f"{text[:_LONGEST_TOLD]}..."
