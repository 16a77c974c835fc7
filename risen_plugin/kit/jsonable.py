"""Dataclasses to JSON values, and back by their annotations."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def to_plain(value: Any) -> Any:
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
    """The dataclass ``kind`` out of what :func:`to_plain` made of it.

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
