"""The answers to held-out instructions before and after, of the phases that a decision is about.

Pure: a run in, pairs of answers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from risen_plugin.kit.intervals import Interval, of_means
from risen_plugin.record.answered import SETS, Answer, Pair
from risen_plugin.record.reading import Phase, Run

Change: TypeAlias = Literal["gained", "lost", "same"]
IN_WORDS = {
    "report": "reported: decides nothing",
    "unseen": "reserved family: never trained on",
    "guard": "the guard's",
}
"""What the rows of a set are, for people."""


@dataclass(frozen=True)
class Compared:
    """The pairs that are shown.

    :param first: the phase that the answers before are of.
    :param last: the phase that the answers after are of.
    :param is_kept: whether the model holds what the phases changed.
    """

    first: Phase
    last: Phase
    is_kept: bool
    pairs: Sequence[Pair]


def compared(run: Run) -> Compared | None:
    """From before the first kept phase to after the latest kept one.

    Where none was kept, from before to after the latest dropped one. None if no phase has ended
    that was measured at both ends.
    """
    ended = [p for p in run.phases if p.kind == "risen" and p.answers]
    kept = [phase for phase in ended if phase.accepted]
    if kept:
        return Compared(kept[0], kept[-1], True, _joined(kept[0].answers, kept[-1].answers))
    if ended:
        return Compared(ended[-1], ended[-1], False, ended[-1].answers)
    return None


def _joined(first: Sequence[Pair], last: Sequence[Pair]) -> list[Pair]:
    later = {(pair.set, pair.row): pair for pair in last}
    return [
        replace(pair, after=then.after, has_text=pair.has_text and then.has_text)
        for pair in first
        if (then := later.get((pair.set, pair.row))) is not None
    ]


def interval(pairs: Sequence[Pair], name: str, confidence: float | None) -> Interval | None:
    """The gain in strict adherence on the rows of a set, row by row; None without any."""
    rows = judged(pairs, name)
    if not rows:
        return None
    return of_means(
        [pair.before.passed for pair in rows], [pair.after.passed for pair in rows], confidence
    )


def judged(pairs: Sequence[Pair], name: str) -> list[Pair]:
    """The rows of a set whose answers were judged at both moments."""
    return [
        pair
        for pair in pairs
        if pair.set == name and pair.before.passed is not None and pair.after.passed is not None
    ]


def change(pair: Pair) -> Change:
    """Whether an instruction is followed better or worse than before.

    First by whether the answer passes as a whole, then by how many constraints it meets.
    """
    now, then = _level(pair.after), _level(pair.before)
    return "same" if now == then else "gained" if now > then else "lost"


def _level(answer: Answer) -> tuple[bool, int]:
    return bool(answer.passed), sum(answer.met or ())


def checks(constraints: Sequence[str], answer: Answer) -> list[tuple[bool | None, str]]:
    """What an answer was judged by, and how each came out; None where it was not judged.

    >>> checks(["no_comma"], Answer("...", False, [True]))
    [(True, 'met: no_comma'), (False, 'fails by another reward')]
    """
    if answer.met is None:
        verdict = {True: "passes", False: "fails", None: "not judged"}[answer.passed]
        return [(answer.passed, verdict)]
    made: list[tuple[bool | None, str]] = [
        (is_met, f"{'met' if is_met else 'not met'}: {id_}")
        for id_, is_met in zip(constraints, answer.met, strict=False)
    ]
    if answer.passed is False and all(answer.met):
        made.append((False, "fails by another reward"))
    return made


def by_change(pairs: Sequence[Pair]) -> list[Pair]:
    """Those that changed first, of these the ones that pass or fail as a whole; then by set."""

    def key(pair: Pair) -> tuple[bool, bool, int, int]:
        is_whole = bool(pair.before.passed) != bool(pair.after.passed)
        return (change(pair) == "same", not is_whole, SETS.index(pair.set), pair.row)

    return sorted(pairs, key=key)
