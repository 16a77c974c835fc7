"""Dataclasses that people make: wrong fields end in one line, and a repr shows what was changed."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterator
from typing import Any, TypeVar

from risen_plugin.errors import ConfigError
from risen_plugin.kit.checks import check_keys

_LONGEST = 200
_Class = TypeVar("_Class", bound=type)


def checked_fields(kind: _Class) -> _Class:
    """The dataclass ``kind``, which refuses wrong fields with a ``ConfigError``.

    Its repr leaves out the fields that have their defaults.
    """
    made: Any = vars(kind)["__init__"]
    signature = inspect.signature(made)
    known = {entry.name for entry in dataclasses.fields(kind) if entry.init}

    @functools.wraps(made)
    def __init__(self: Any, *values: Any, **fields: Any) -> None:  # noqa: N807  it takes its place
        check_keys(fields, known, kind.__name__)
        try:
            signature.bind(self, *values, **fields)
        except TypeError as error:
            raise ConfigError(f"{kind.__name__} cannot be made: {error}") from None
        made(self, *values, **fields)

    setattr(kind, "__init__", __init__)  # noqa: B010  type checkers take no assignment here
    if vars(kind)["__dataclass_params__"].repr:
        setattr(kind, "__repr__", short_repr)  # noqa: B010
    return kind


def short_repr(value: Any) -> str:
    """``NAME(field=...)`` with the fields of a dataclass that differ from their defaults."""
    return f"{type(value).__name__}({', '.join(changed_fields(value))})"


def changed_fields(value: Any) -> Iterator[str]:
    """``field=value`` for each field of a dataclass that differs from its default."""
    for entry in dataclasses.fields(value):
        now = getattr(value, entry.name)
        default = entry.default
        if entry.default_factory is not dataclasses.MISSING:
            default = entry.default_factory()
        if type(now) is not type(default) or now != default:
            text = repr(now)
            shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
            yield f"{entry.name}={shown}"
