"""Read JSON that somebody else wrote: bounded, strict, and of the shape that is expected.

A shape is a function that takes a value and the name of its place, and raises ``ShapeError``;
shapes are made of smaller ones. Nothing here knows what a bundle is.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from risen_plugin.errors import ExportError, one_line

Shape = Callable[[Any, str], None]

_DEEPEST = 40  # lists and objects in one another
_MOST_DIGITS = 40  # transformers writes a model_max_length of 31 digits
_LONGEST_SHOWN = 60  # characters of a wrong value in a message


class ShapeError(ValueError):
    """A value is not of the shape that is expected there; the message names its place."""


def read_object(path: Path, most_bytes: int, shape: Shape | None = None) -> dict[str, Any]:
    """The JSON object in ``path``, checked against ``shape``.

    Refused beside what is no JSON: keys that occur twice, ``NaN`` and ``Infinity``, numbers beyond
    any float, and objects that lie too deep in one another.

    :raises ExportError: in one line with the file's name.
    """
    try:
        text = _read(path, most_bytes).decode("utf-8")
        content = json.loads(
            text,
            object_pairs_hook=_without_twins,
            parse_constant=_no_constant,
            parse_int=_bounded_int,
            parse_float=_finite,
        )
        if not isinstance(content, dict):
            raise ShapeError("it holds no object")
        _check_depth(content)
        if shape is not None:
            shape(content, "")
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or one_line(error)}") from error
    except ShapeError as error:
        raise ExportError(f"{path} is damaged or of another make: {one_line(error)}") from error
    except RecursionError as error:
        raise ExportError(f"{path} is nested too deeply") from error
    except ValueError as error:
        raise ExportError(f"{path} is not valid JSON: {one_line(error)}") from error
    return content


def _read(path: Path, most_bytes: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ShapeError("it is no ordinary file")
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ShapeError(f"it is larger than {most_bytes} bytes")
    return data


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ShapeError(f"the key {_shown(twin)} occurs twice")
    return content


def _no_constant(name: str) -> Any:
    raise ShapeError(f"{name} is no number of JSON")


def _bounded_int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ShapeError(f"a number has {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ShapeError(f"the number {digits[:_LONGEST_SHOWN]} is too large")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ShapeError("it is nested too deeply")


# Shapes


def boolean(value: Any, place: str) -> None:
    """True or false."""
    _require(isinstance(value, bool), value, place, "true or false")


def integer(low: int, high: int) -> Shape:
    """A whole number from ``low`` to ``high``."""

    def shape(value: Any, place: str) -> None:
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        _require(fits, value, place, f"a whole number from {low} to {high}")

    return shape


def number(low: float = -1e308, high: float = 1e308) -> Shape:
    """A finite number from ``low`` to ``high``."""

    def shape(value: Any, place: str) -> None:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        _require(fits and low <= value <= high, value, place, f"a number from {low:g} to {high:g}")

    return shape


def text(longest: int = 1000, *, fitting: Callable[[str], bool] | None = None) -> Shape:
    """A text of at most so many characters.

    :param fitting: says of a text whether it may stand there.
    """

    def shape(value: Any, place: str) -> None:
        _require(isinstance(value, str), value, place, "a text")
        _require(len(value) <= longest, value, place, f"a text of at most {longest} characters")
        _require(fitting is None or fitting(value), value, place, "what may stand there")

    return shape


def one_of(*values: Any) -> Shape:
    """One of these values."""

    def shape(value: Any, place: str) -> None:
        fits = any(value == one and type(value) is type(one) for one in values)
        _require(fits, value, place, " or ".join(map(_shown, values)))

    return shape


def either(*shapes: Shape) -> Shape:
    """A value of one of these shapes; the message is that of the last."""

    def shape(value: Any, place: str) -> None:
        for one in shapes[:-1]:
            try:
                return one(value, place)
            except ShapeError:
                continue
        return shapes[-1](value, place)

    return shape


def nothing(value: Any, place: str) -> None:
    """Null."""
    _require(value is None, value, place, "null")


def listing(of: Shape, most: int = 100_000) -> Shape:
    """A list of at most ``most`` values of one shape."""

    def shape(value: Any, place: str) -> None:
        _require(isinstance(value, list), value, place, "a list")
        _require(len(value) <= most, value, place, f"a list of at most {most}")
        for index, one in enumerate(value):
            of(one, f"{place}[{index}]")

    return shape


def mapping(of: Shape, *, keys: Shape | None = None, most: int = 100_000) -> Shape:
    """An object whose values are all of one shape; so are its keys, where ``keys`` says so."""

    def shape(value: Any, place: str) -> None:
        _require(isinstance(value, dict), value, place, "an object")
        _require(len(value) <= most, value, place, f"an object of at most {most} keys")
        for key, one in value.items():
            if keys is not None:
                keys(key, f"a key of {place}" if place else "a key")
            of(one, _inside(place, key))

    return shape


def record(needed: Mapping[str, Shape], allowed: Mapping[str, Shape] | None = None) -> Shape:
    """An object with the ``needed`` keys; keys that are named nowhere may hold anything."""
    optional = allowed or {}

    def shape(value: Any, place: str) -> None:
        _require(isinstance(value, dict), value, place, "an object")
        lacking: Sequence[str] = [key for key in needed if key not in value]
        if lacking:
            raise ShapeError(f"{_inside(place, lacking[0])} is missing")
        for key, one in {**optional, **needed}.items():
            if key in value:
                one(value[key], _inside(place, key))

    return shape


def _inside(place: str, key: str) -> str:
    return f"{place}.{key[:_LONGEST_SHOWN]}" if place else key[:_LONGEST_SHOWN]


def _require(fits: bool, value: Any, place: str, wanted: str) -> None:
    if not fits:
        raise ShapeError(f"{place or 'it'} is {_shown(value)} and not {wanted}")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
