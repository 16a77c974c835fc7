"""Write an item of a task into one JSON text, and read it back as it was.

Scorers need tuples, fractions and keys that are no texts, which JSON does not have: they are marked
in the text, and restored when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

_MARK = "reasoning_gym"
_TUPLE, _PAIRS, _FRACTION = _TAGS = ("__tuple__", "__pairs__", "__fraction__")


@dataclass(frozen=True)
class Entry:
    """An item with what its scorer is built from.

    :param task: the name of the task.
    :param item: the item as the task made it.
    :param config: the fields of the task's configuration that were set.
    :param level: the level of its curriculum; None if that was not used.
    """

    task: str
    item: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    level: int | None = None


def written(entry: Entry, version: str) -> str:
    """The entry as JSON.

    :param version: of reasoning-gym, for the reader of the file.
    :raises TypeError: if the item holds what cannot be written.
    """
    data = {
        _MARK: version,
        "task": entry.task,
        "config": dict(entry.config),
        "level": entry.level,
        "item": _plain(entry.item),
    }
    return json.dumps(data)


def read(text: Any) -> Entry | None:
    """The entry in ``text``; None if it is something else, as in the rows of another generator."""
    if not isinstance(text, str) or _MARK not in text:
        return None
    try:
        data = json.loads(text)
    except ValueError:
        return None
    if not isinstance(data, dict) or not {_MARK, "task", "config", "level", "item"} <= data.keys():
        return None
    return Entry(data["task"], _restored(data["item"]), data["config"], data["level"])


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return {_TUPLE: [_plain(part) for part in value]}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, Fraction):
        return {_FRACTION: [value.numerator, value.denominator]}
    if isinstance(value, dict):
        if all(isinstance(key, str) and key not in _TAGS for key in value):
            return {key: _plain(part) for key, part in value.items()}
        return {_PAIRS: [[_plain(key), _plain(part)] for key, part in value.items()]}
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(part) for part in value]
    if isinstance(value, dict):
        if value.keys() == {_TUPLE}:
            return tuple(_restored(part) for part in value[_TUPLE])
        if value.keys() == {_FRACTION}:
            return Fraction(*value[_FRACTION])
        if value.keys() == {_PAIRS}:
            return {_restored(key): _restored(part) for key, part in value[_PAIRS]}
        return {key: _restored(part) for key, part in value.items()}
    return value
