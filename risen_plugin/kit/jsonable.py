"""Any value as JSON that every reader takes, and dataclasses to JSON values and back.

Other people's data is logged too, and nothing in it may stop a run: a value that JSON does not know
becomes its representation.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from risen_plugin.errors import printable

T = TypeVar("T")

MOST_COUNTED = 10**15
"""What a record may count up to: a float holds it as it is."""
_LONGEST = 1000  # characters of the representation of an object
_MOST_NUMBERS = 10_000  # of an array that is listed
_DEEPEST = 50
_MOST_SECONDS = 1e12  # 30,000 years


def as_number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of some 300 digits
        return None
    return number if math.isfinite(number) else None


def as_seconds(value: object) -> float | None:
    """Seconds that something can have taken, so that sums of them are finite; None for others."""
    number = as_number(value)
    return None if number is None or abs(number) > _MOST_SECONDS else number


def as_count(value: object) -> int | None:
    """A number of things, in whole; None for what counts none."""
    number = as_number(value)
    return None if number is None or not 0 <= number <= MOST_COUNTED else round(number)


def json_text(value: object) -> str:
    """``value`` as JSON in one line, readable where it can be; never raises for a value.

    >>> json_text({"name": "Zoë", 1: [float("nan"), ..., (2, 3)]})
    '{"name": "Zoë", "1": ["nan", "Ellipsis", [2, 3]]}'
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(_jsonable(value, 0), ensure_ascii=False)
    return printable(text)  # JSON's escapes; half of a surrogate pair has no other form


def _jsonable(value: Any, depth: int) -> Any:  # noqa: PLR0911  one line per sort of value
    """``value`` in the types that JSON knows."""
    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _shown(value)
    if depth < _DEEPEST:
        try:
            if isinstance(value, Mapping):
                return {_key(key): _jsonable(item, depth + 1) for key, item in value.items()}
            if isinstance(value, list | tuple | set | frozenset):
                return [_jsonable(item, depth + 1) for item in value]
            if hasattr(value, "tolist") and math.prod(value.shape) <= _MOST_NUMBERS:
                return _jsonable(value.tolist(), depth + 1)
        except Exception:  # noqa: BLE001  an object may raise whatever it likes when it is looked at
            return _shown(value)
    return _shown(value)


def _key(key: object) -> str:
    return key if isinstance(key, str) else _shown(key)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  as above
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def plain(value: object, where: str) -> Any:
    """``value`` as it comes back from JSON, tuples as lists.

    >>> plain({"a": (1, 2)}, "the row")
    {'a': [1, 2]}

    :param where: what it is, for messages.
    :raises TypeError: naming the place of what JSON would lose or change.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{where} is {value}, which JSON lacks")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}.{index}") for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        raise TypeError(f"{where} is of type {type(value).__name__}, which is no JSON")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{where} has the key {key!r:.40}, which is no text")
    return {key: plain(item, f"{where}.{key}") for key, item in value.items()}


def to_plain(value: object) -> Any:
    """A dataclass, and those that it holds, as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {entry.name: to_plain(getattr(value, entry.name)) for entry in fields}
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset | collections.abc.Sequence) and not (
        isinstance(value, str | bytes)
    ):
        return [to_plain(entry) for entry in value]
    item = getattr(value, "item", None)  # of numpy's and torch's scalars
    return value if item is None else item()


def from_plain(kind: type[T], data: Mapping[str, Any]) -> T:
    """The dataclass ``kind`` from the JSON values that :func:`to_plain` made of it.

    :raises TypeError: if the data does not fit it.
    """
    hints = typing.get_type_hints(kind)
    names = [entry.name for entry in dataclasses.fields(kind) if entry.init]  # type: ignore[arg-type]
    return kind(**{name: _value(hints[name], data[name]) for name in names if name in data})


def _value(hint: Any, data: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if data is None:
        return None
    if origin in (typing.Union, types.UnionType):
        chosen = [
            kind
            for kind in inner
            if kind is not type(None) and dataclasses.is_dataclass(kind) == isinstance(data, dict)
        ] or [kind for kind in inner if kind is not type(None)]
        return _value(chosen[0], data)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_plain(hint, data)
    if isinstance(data, dict) and inner:
        return {key: _value(inner[-1], entry) for key, entry in data.items()}
    if isinstance(data, list) and inner:
        kinds = inner if origin is tuple and inner[-1] is not ... else (inner[0],) * len(data)
        values = [_value(kind, entry) for kind, entry in zip(kinds, data, strict=True)]
        return origin(values) if origin in (tuple, set, frozenset) else values
    return data
