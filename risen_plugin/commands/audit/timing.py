"""The time of a reward per answer, and its growth with the answer's length."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from risen_plugin.commands.audit.calling import Item
from risen_plugin.commands.audit.report import Check
from risen_plugin.commands.audit.subject import Subject
from risen_plugin.contracts import Row
from risen_plugin.errors import typed_line

LENGTHS = (16, 20, 24, 28, 64, 256, 1024, 4096, 16_384, 65_536)
"""Characters of the texts, in steps small enough to stop before exponential time gets far."""
ENOUGH_S = 0.3
LONGEST_S = 2.0
"""Seconds of calls with one text, after which it is not tried again."""
WORTH_S = 0.02
STEEPEST = 1.5
_WORDS = "the wind was fair, and we left early in the morning. "


def time_per_answer(subject: Subject) -> Check:
    """The median time for one answer of a few words, called in a batch."""
    items = subject.mixed(16)
    for _ in range(3):
        _seconds(subject, items)
    taken = [_seconds(subject, items) / len(items) for _ in range(3)]
    median = statistics.median(taken)
    seen = f"{_readable(median)} per answer (median of batches of {len(items)})"
    is_slow = median > subject.slow_s
    if is_slow:
        seen += f"; the bar is {_readable(subject.slow_s)}"
    return Check("time", "fail" if is_slow else "ok", seen)


def growth(subject: Subject) -> Check:
    """Whether a text of twice the length takes more than about twice the time."""
    row = subject.instructions[0].row
    worst = ""
    for name, text in (("words", _WORDS), ("one run", "a"), ("lines", "* a [b] *c*\n")):
        times: list[tuple[int, float]] = []
        for length in LENGTHS:
            try:
                times.append((length, _quickest(subject, row, _of_length(text, length))))
            except Exception as error:  # noqa: BLE001  a stranger's reward may raise anything
                seen = f"{length} characters ({name}): {typed_line(error)}"
                return Check("growth", "fail", seen)
            if times[-1][1] > ENOUGH_S:
                break
        power = steepness(times)
        if power > STEEPEST and times[-1][1] <= ENOUGH_S:  # a busy machine may have held it up
            again = [_quickest(subject, row, _of_length(text, length)) for length, _ in times]
            pairs = zip(times, again, strict=True)
            times = [(length, min(first, second)) for (length, first), second in pairs]
            power = steepness(times)
        length, took = times[-1]
        measured = f"{_readable(took)} for {length} characters ({name})"
        if power > STEEPEST:
            return Check("growth", "fail", f"time grows as length to the {power:.1f}: {measured}")
        worst = measured
    return Check("growth", "ok", worst)


def steepness(times: Sequence[tuple[int, float]]) -> float:
    """The power of the length with which time grew over the steps that took long; 0 if none did.

    >>> round(steepness([(1000, 0.1), (2000, 0.4)]), 3)
    2.0
    """
    powers = [
        math.log(after / before) / math.log(longer / shorter)
        for (shorter, before), (longer, after) in itertools.pairwise(times)
        if after >= WORTH_S and before > 0
    ]
    return max(powers, default=0.0)


def _of_length(text: str, length: int) -> str:
    return (text * (length // len(text) + 1))[: length - 1] + "!"


def _quickest(subject: Subject, row: Row, answer: str) -> float:
    """The least time of a few calls, since disturbances only lengthen a call."""
    taken = [_seconds(subject, [Item(row, answer)], swallow=False)]
    while len(taken) < 3 and sum(taken) < LONGEST_S:
        taken.append(_seconds(subject, [Item(row, answer)], swallow=False))
    return min(taken)


def _seconds(subject: Subject, items: Sequence[Item], *, swallow: bool = True) -> float:
    began = subject.caller.clock()
    try:
        subject.caller.raw(items)
    except Exception:
        if not swallow:
            raise
    return subject.caller.clock() - began


def _readable(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
