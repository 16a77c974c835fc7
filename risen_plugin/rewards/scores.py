"""Tell scores, abstentions and errors apart, select those to learn from, and count the errors.

Pure: plain values in, plain values out. Calling rewards is left to ``calling``, and handing the
scores to TRL to ``panel``.
"""

from __future__ import annotations

import contextlib
import math
import reprlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, TypeAlias

from risen_plugin.contracts import Failed
from risen_plugin.errors import PluginError, RisenError, typed_line

Score: TypeAlias = float | Failed | None
"""The score of one answer by one reward: a number, an abstention, or an error with its reason."""

Scores: TypeAlias = list[float | None]
"""One reward's score of each completion: a finite number, None to abstain, or ``Failed``."""

Kind: TypeAlias = Literal["score", "abstain", "error"]
_NO_LISTS = (str, bytes, Mapping, set, frozenset)  # a set forgets which score is whose
_FEWEST = 2  # answers that can be compared with each other


class OutageError(RisenError):
    """A reward fails too often for a phase to go on; the phase is dropped and the run goes on."""


def kind_of(score: float | None) -> Kind:
    """The kind of a score: a number that is not finite is an error too.

    >>> [kind_of(score) for score in (0.0, None, Failed("no answer"))]
    ['score', 'abstain', 'error']
    """
    if score is None:
        return "abstain"
    return "score" if math.isfinite(score) else "error"


def check_scores(scores: Any, expected: int, label: str) -> Scores:
    """The scores as plain floats, Nones and :class:`Failed`.

    :raises PluginError: for a wrong number of scores, NaN, infinity, or a value that is no number
        or raises where it is read.
    """
    from risen_plugin.kit.foreign import contained

    said = f"{label} returned what cannot be read as scores"
    with contained(lambda error: PluginError(f"{said}: {typed_line(error)}")):
        return _checked(scores, expected, label)  # a score's class is somebody else's code


def _checked(scores: Any, expected: int, label: str) -> Scores:
    try:
        if isinstance(scores, _NO_LISTS):
            raise TypeError
        count = len(scores)
    except TypeError:  # a value without a length, and also a tensor or array without dimensions
        raise PluginError(
            f"{label} returned {type(scores).__name__}, not a list of scores"
        ) from None
    if count != expected:
        raise PluginError(
            f"{label} returned {count} scores for {expected} completions; "
            "it must return one per completion (None to abstain)"
        )
    return [_number(score, index, label) for index, score in enumerate(scores)]


def _number(score: Any, index: int, label: str) -> float | None:
    if score is None or isinstance(score, Failed):
        return score
    returned = score
    if hasattr(score, "item"):  # numpy and torch scalars
        with contextlib.suppress(ValueError, RuntimeError):  # several scores in place of one
            score = score.item()
    if not isinstance(score, Real):
        text = " ".join(reprlib.repr(returned).split())
        raise PluginError(
            f"{label} returned {text} for completion {index}; a score is a number or None"
        )
    try:
        number = float(score)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PluginError(
            f"{label} returned {number} for completion {index}; "
            "a score is finite, and None means that the reward abstains"
        )
    return number


def groups_of(rows: int, size: int) -> list[range]:
    """The rows of each group: TRL puts the ``size`` answers to one prompt one after another."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def learnable(scores: Mapping[str, Scores], groups: Sequence[range]) -> dict[str, Scores]:
    """The scores that answers may be compared by; None where one may not count.

    An error of any reward takes the completion out of all of them: a row that lacks one reward
    would look worse than its equals. A reward that abstains on part of the rest of a group is left
    out for that group. A group of which a single completion is left has nothing to compare it
    with, and is left out whole.
    """
    comparable: dict[str, Scores] = {
        name: [None] * len(of_reward) for name, of_reward in scores.items()
    }
    for group in groups:
        sound = [
            row
            for row in group
            if not any(isinstance(of_reward[row], Failed) for of_reward in scores.values())
        ]
        if len(sound) < _FEWEST:
            continue
        for name, of_reward in scores.items():
            if all(of_reward[row] is not None for row in sound):
                for row in sound:
                    comparable[name][row] = of_reward[row]
    return comparable


def errors_in(scores: Scores) -> list[Failed]:
    """The errors among scores."""
    return [score for score in scores if isinstance(score, Failed)]


def failed_rows(scores: Mapping[str, Scores]) -> int:
    """Completions that at least one reward could not judge."""
    return sum(
        any(isinstance(score, Failed) for score in row)
        for row in zip(*scores.values(), strict=True)
    )


@dataclass
class ErrorCount:
    """How often one reward failed in a phase, and lately.

    :param window: latest completions that the rate is taken over; a whole batch at the least.
    :param errors: errors in all.
    :param example: the reason of the latest one.
    """

    window: int
    errors: int = 0
    completions: int = 0
    example: str = ""
    latest: deque[bool] = field(default_factory=deque)

    @classmethod
    def from_state(cls, window: int, state: Mapping[str, Any]) -> ErrorCount:
        """The count of a phase that was cut off, as :meth:`state_dict` had it."""
        latest = deque(map(bool, state["latest"]))
        return cls(window, state["errors"], state["completions"], state["example"], latest)

    def state_dict(self) -> dict[str, Any]:
        """The count as JSON values."""
        return {
            "errors": self.errors,
            "completions": self.completions,
            "example": self.example,
            "latest": [int(failed) for failed in self.latest],
        }

    def add(self, scores: Scores) -> None:
        """Count a batch."""
        failed = errors_in(scores)
        self.errors += len(failed)
        self.completions += len(scores)
        if failed:
            self.example = failed[-1].reason
        self.latest.extend(isinstance(score, Failed) for score in scores)
        while len(self.latest) > max(self.window, len(scores)):
            self.latest.popleft()

    @property
    def rate(self) -> float:
        """Share of errors among the latest completions."""
        return sum(self.latest) / len(self.latest) if self.latest else 0.0


def outage(label: str, failed: int, of: int, limit: float, example: str) -> str | None:
    """One line about the errors of a reward; None where they are not too many."""
    if not failed or failed <= limit * of:
        return None
    return (
        f"{label} failed on {failed} of {of} answers ({failed / of:.0%}, limit {limit:.0%}), "
        f"for example: {example}"
    )
