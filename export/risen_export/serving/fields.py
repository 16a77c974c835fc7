"""Read the fields of a JSON object that a stranger wrote: each has its kind and bounds.

A field that is null counts as one that is left out. What is not asked for by name is refused, so
that a misspelt setting does not pass for the default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from risen_export.serving.refusals import RefusedError
from risen_plugin.errors import near_miss, printable

MOST_DEPTH = 64
"""Objects and lists within each other, in a request."""
_SHOWN = 60  # characters of a value in a message


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body.

    :raises RefusedError: if it is none, or nests too deep.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise RefusedError("the body is no UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise RefusedError(f"the body is no JSON: {printable(str(error))[:200]}") from None
    if not isinstance(value, dict):
        raise RefusedError("the body has to be a JSON object")
    check_depth(value)
    if b"\\u" in body:
        _check_letters(value)
    return value


def check_depth(value: object, most: int = MOST_DEPTH, param: str | None = None) -> None:
    """Refuse a value that nests deeper than ``most``.

    :raises RefusedError: if it does.
    """
    level: list[Any] = [value]
    for _ in range(most):
        inner: list[Any] = []
        for one in level:
            members = one.values() if isinstance(one, dict) else one
            inner += [member for member in members if isinstance(member, dict | list)]
        if not inner:
            return
        level = inner
    raise _too_deep(param)


def _too_deep(param: str | None = None) -> RefusedError:
    return RefusedError(
        f"objects and lists may be {MOST_DEPTH} deep in each other, and these are deeper",
        param=param,
    )


def _check_letters(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise RefusedError(
            "a text holds half a surrogate pair (\\ud800 to \\udfff), which is no character"
        ) from None


def _no_number(name: str) -> NoReturn:
    raise RefusedError(f"{name} is no number of JSON")


class Fields:
    """The fields of one object.

    :param data: the object.
    :param where: its place in the request, with a dot at the end; empty for the request itself.
    """

    def __init__(self, data: object, where: str = "") -> None:
        self.where = where
        if not isinstance(data, Mapping):
            raise RefusedError(f"{where.rstrip('.')} has to be an object", param=where.rstrip("."))
        self._data = data
        self._known: set[str] = set()

    def take(self, name: str) -> Any:
        """A field as it is; None if it is left out."""
        self._known.add(name)
        return self._data.get(name)

    def has(self, name: str) -> bool:
        """Whether a field is given."""
        return self.take(name) is not None

    def ignore(self, names: Iterable[str]) -> None:
        """Let fields pass that change nothing here."""
        self._known.update(names)

    def only(self) -> None:
        """Refuse what has not been asked for.

        :raises RefusedError: with the name, and the near miss.
        """
        for name in self._data:
            if name not in self._known:
                shown = printable(str(name))[:_SHOWN]
                raise self.refused(shown, f"is unknown{near_miss(shown, self._known)}")

    def refused(self, name: str, why: str) -> RefusedError:
        """An error about a field."""
        return RefusedError(f"{self.where}{name} {why}", param=f"{self.where}{name}")

    def text(self, name: str, most: int | None = None) -> str | None:
        """A text."""
        value = self.take(name)
        if value is None or isinstance(value, str):
            if value is not None and most is not None and len(value) > most:
                raise self.refused(name, f"has {len(value)} characters; {most} are allowed")
            return value
        raise self._not(name, value, "a text")

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        raise self._not(name, value, "true or false")

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number within bounds."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._not(name, value, "a whole number")
        if not low <= value <= high:
            raise self.refused(name, f"is {_short(value)}, and has to be from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """A number within bounds."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._not(name, value, "a number")
        if not low <= value <= high:
            raise self.refused(name, f"is {_short(value)}, and has to be from {low:g} to {high:g}")
        return float(value)

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """One of some words."""
        value = self.take(name)
        if value is None or (isinstance(value, str) and value in choices):
            return value
        hint = near_miss(value, choices) if isinstance(value, str) else ""
        raise self.refused(name, f"is {_short(value)}{hint or ';'} it is {_either(choices)}")

    def listed(self, name: str, most: int) -> list[Any] | None:
        """A list of at most so many members."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._not(name, value, "a list")
        if len(value) > most:
            raise self.refused(name, f"has {len(value)} members; {most} are allowed")
        return value

    def texts(self, name: str, most: int) -> list[str] | None:
        """A list of texts."""
        value = self.listed(name, most)
        if value is not None and not all(isinstance(one, str) for one in value):
            raise self.refused(name, "has to be a list of texts")
        return value

    def fields(self, name: str) -> Fields | None:
        """An object within this one."""
        value = self.take(name)
        return None if value is None else Fields(value, f"{self.where}{name}.")

    def _not(self, name: str, value: object, kind: str) -> RefusedError:
        return self.refused(name, f"has to be {kind}, not {_short(value)}")


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**18:
        return "a number of many digits"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _either(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if choices[1:] else choices)
