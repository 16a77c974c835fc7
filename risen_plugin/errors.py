"""The errors that a person can cause, written for the person who reads them.

Each message says in one line what happened, to what, whose it is and what to do. The command line
prints the message alone and exits with 2; anything that is not a ``RisenError`` is a bug and keeps
its traceback.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_ALIKE = 0.6  # of 1, by difflib
_LONGEST = 2000  # characters of somebody else's message
_ACTING = re.compile(
    # control characters; marks of direction, blanks of no width, tags; line and paragraph ends;
    # halves of surrogate pairs. What joins letters and emoji stays.
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0001-\U000e007f]"
)


class RisenError(Exception):
    """Base of everything that a person can cause and mend."""


class ConfigError(RisenError):
    """A configuration names something unknown, or contradicts itself, the model or the Trainer."""


class PluginError(RisenError):
    """A plugin's reward, generator, scheduler or exporter broke its contract while it was used."""


class DataError(RisenError):
    """Rows lack a column, cannot be read or do not fit the model."""


class RecordError(RisenError):
    """The record of a run cannot be written or resumed from."""


class ExportError(RisenError):
    """A model or adapter cannot be merged, built or written as a bundle."""


def near_miss(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest known name, or an empty string.

    An ending that both have, such as ``.jsonl``, does not make them more alike.
    """
    best = _nearest(name, known)
    return "" if best is None else f"; did you mean '{best}'?"


def near_path(path: Path, *, folders: bool = False) -> str:
    """A hint at a path that does not exist: its near miss, or that its folder is missing too.

    An empty string where the path exists.

    :param folders: whether only folders could be meant.
    """
    if path.exists():
        return ""
    if not path.parent.is_dir():
        return f"; there is no folder '{path.parent}' either"
    beside = [other.name for other in path.parent.iterdir() if other.is_dir() or not folders]
    return near_beside(path, beside)


def near_beside(path: Path, names: Iterable[str]) -> str:
    """The near miss of a path among names in its folder, with the folder before it."""
    best = _nearest(path.name, names)
    return "" if best is None else f"; did you mean '{path.parent / best}'?"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    likeness = {other: _likeness(name, other) for other in known}
    best = max(likeness, key=likeness.__getitem__, default="")
    return best if likeness.get(best, 0.0) >= _ALIKE else None


def _likeness(name: str, other: str) -> float:
    stem, point, ending = name.rpartition(".")
    if stem and other.endswith(point + ending):
        name, other = stem, other.removesuffix(point + ending)
    return difflib.SequenceMatcher(None, name, other).ratio()


def printable(text: str, *, keeping: str = "") -> str:
    r"""``text`` with an escape for each character that a terminal obeys in place of showing it.

    Names, rows and messages of others hold what they like: a sequence that clears the screen, or a
    mark that turns the line around. The escapes are those of JSON, so that JSON stays the same.

    >>> printable("up\x1b[A \u202eback")
    'up\\u001b[A \\u202eback'

    :param keeping: characters that are left as they are, such as a line's end.
    """
    return _ACTING.sub(lambda m: m[0] if m[0] in keeping else json.dumps(m[0])[1:-1], text)


def one_line(error: BaseException) -> str:
    """The message of ``error`` in one line that can be printed, or its type's name if it has none.

    A text that raises, as the one of a plugin's error may, is said to do so.
    """
    try:
        text = " ".join(str(error).split())
    except BaseException as raised:  # noqa: BLE001  its class is somebody else's code
        text = f"{_name(error)}, whose text raises {_name(raised)}"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return printable(text or _name(error))


def _name(error: BaseException) -> str:
    return printable(type(error).__name__)


def typed_line(error: BaseException) -> str:
    r"""The type and the message of ``error`` in one line.

    >>> typed_line(ValueError("low is\\nabove high"))
    'ValueError: low is above high'
    """
    kind, message = _name(error), one_line(error)
    return message if message.startswith(kind) else f"{kind}: {message}"


@contextmanager
def boundary(label: str) -> Iterator[None]:
    """Attach ``label`` to whatever a plugin raises; plugin authors raise plain Python errors.

    Their messages are put in one line.
    """
    try:
        yield
    except RisenError as error:
        if str(error).startswith(label):
            raise
        raise type(error)(f"{label}: {one_line(error)}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # who calls a plugin decides when the program ends
        raise PluginError(f"{label} raised {typed_line(error)}") from error


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put ``where`` before the message of an error that a person can cause; once, however deep."""
    try:
        yield
    except (ConfigError, DataError) as error:
        if str(error).startswith(where):
            raise
        raise type(error)(f"{where}: {error}") from error
