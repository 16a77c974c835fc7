"""Whether the amounts that constraints ask for suit a task, and one another.

A story has room for four sections and none for a limit of 60 words; an answer of fewer than 80
words has none for six paragraphs. The figures are what people would expect, not what is possible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints import Constraint
from risen_plugin.instructions.fitting.tasks import Kind, Task

_LETTERS_A_WORD = 5


@dataclass(frozen=True)
class Room:
    """The sizes of an answer that a reader expects, in words, sentences and parts.

    :param least_limit: the lowest upper limit of words.
    :param most_asked: the highest lower limit of words.
    :param parts: the most paragraphs, sections, bullets or highlights.
    :param times: the most occurrences of one word or letter that are asked for.
    """

    least_limit: int
    most_asked: int
    parts: int
    times: int


_ROOM: Mapping[Kind, Room] = {
    "long": Room(200, 300, 5, 12),
    "message": Room(100, 150, 3, 6),
    "script": Room(200, 200, 4, 8),
    "explanation": Room(80, 150, 5, 8),
    "list": Room(100, 100, 6, 5),
    "verse": Room(100, 60, 3, 5),
    "question": Room(60, 60, 3, 4),
    "yes or no": Room(60, 30, 2, 3),
    "line": Room(30, 10, 2, 2),
    "fixed": Room(60, 30, 2, 2),
    "artifact": Room(100, 30, 2, 2),
}
_PARTS = {
    "num_paragraphs": 40,
    "num_sections": 40,
    "num_bullets": 12,
    "num_highlights": 8,
    "num_placeholders": 5,
    "capital_frequency": 4,
    "frequency": 8,
    "n": 15,
}
"""The kwargs that ask for parts, with the words that one of them takes."""


def amounts_suit(constraints: Sequence[Constraint], task: Task) -> bool:
    """Whether each amount suits ``task``, and a limit of words leaves room for what is asked."""
    room = _ROOM[task.kind]
    needed = sum(_words_needed(constraint) for constraint in constraints)
    return all(_suits(constraint, room, needed) for constraint in constraints)


def _suits(constraint: Constraint, room: Room, needed: int) -> bool:
    kwargs = constraint.kwargs
    words = _words(kwargs)
    if words is not None:
        if _is_limit(kwargs):
            return words >= max(room.least_limit, needed)
        return words <= room.most_asked
    most = {
        **dict.fromkeys(_PARTS, room.parts),
        "let_frequency": 2 * room.times,
        "frequency": max(2, room.times // 2),
        "capital_frequency": room.times,
    }
    return _is_limit(kwargs) or all(
        kwargs[name] <= limit for name, limit in most.items() if name in kwargs
    )


def _words(kwargs: Mapping[str, Any]) -> int | None:
    """The words that a limit of length stands for; None where it limits something else."""
    if "num_words" in kwargs:
        return int(kwargs["num_words"])
    if "num_sentences" in kwargs:
        return 15 * int(kwargs["num_sentences"])
    return int(kwargs["N"]) // _LETTERS_A_WORD if {"N", "relation"} <= kwargs.keys() else None


def _words_needed(constraint: Constraint) -> int:
    """The words that it takes to do what ``constraint`` asks for, roughly."""
    kwargs = constraint.kwargs
    if _is_limit(kwargs):
        return 0
    each = [words * int(kwargs[name]) for name, words in _PARTS.items() if name in kwargs]
    return max([*each, 0]) + 4 * len(kwargs.get("keywords", ()))


def _is_limit(kwargs: Mapping[str, Any]) -> bool:
    return any(name.endswith("relation") and value == "less than" for name, value in kwargs.items())
