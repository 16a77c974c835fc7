"""The results of an audit: plain data, the same for the table, for JSON and for a test."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Verdict: TypeAlias = Literal["ok", "fail", "note", "allowed", "skip"]
"""``note`` is worth knowing and no fault; ``allowed`` is a fault that its author declared."""

NOTHING_PASSED = "nothing passed"
"""Begins the finding of a reward that accepted no answer at all, of which no check says much."""
GIVE_ONE = "give --right or --column"

WIDTH = 100
_HEAD = ("check", "verdict", "accepted", "time", "what was seen")


@dataclass(frozen=True)
class Check:
    """The result of one check.

    :param name: the check, as ``--allow`` takes it.
    :param verdict: the result in one word.
    :param accepted: accepted answers that cannot be right; None if the check asks none.
    :param probes: answers that cannot be right, accepted or not.
    :param seen: the finding in one line, with an example.
    :param time_s: seconds that it took.
    """

    name: str
    verdict: Verdict
    seen: str = ""
    accepted: int | None = None
    probes: int | None = None
    time_s: float = 0.0


@dataclass(frozen=True)
class Report:
    """All checks of one reward.

    :param reward: as messages name it.
    :param instructions: instructions that were asked about.
    :param scored: answers that were scored.
    :param passes_at: the score from which an answer counts as accepted.
    :param is_penalty: whether that is 0 because no score is above it.
    """

    reward: str
    checks: Sequence[Check]
    instructions: int
    scored: int
    passes_at: float
    time_s: float
    is_penalty: bool = False

    @property
    def findings(self) -> list[Check]:
        """The failed checks that were not allowed to fail."""
        return [check for check in self.checks if check.verdict == "fail"]

    @property
    def accepted(self) -> int:
        """Accepted answers that cannot be right, allowed ones left out."""
        return sum(check.accepted or 0 for check in self._counted)

    @property
    def probes(self) -> int:
        """Answers that cannot be right, allowed ones left out."""
        return sum(check.probes or 0 for check in self._counted)

    @property
    def false_accept_rate(self) -> float:
        """The share of answers that cannot be right and were accepted."""
        return self.accepted / self.probes if self.probes else 0.0

    @property
    def _counted(self) -> list[Check]:
        return [check for check in self.checks if check.verdict != "allowed"]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "reward": self.reward,
            "clean": not self.findings,
            "passes_at": self.passes_at,
            "is_penalty": self.is_penalty,
            "instructions": self.instructions,
            "scored": self.scored,
            "accepted": self.accepted,
            "probes": self.probes,
            "false_accept_rate": self.false_accept_rate,
            "findings": [check.name for check in self.findings],
            "checks": [vars(check) for check in self.checks],
            "time_s": self.time_s,
        }

    def lines(self) -> list[str]:
        """The table and the closing line, at most ``WIDTH`` characters wide."""
        rows = [
            (c.name, c.verdict, _count(c), f"{c.time_s:.2f}s", c.seen)
            for c in self.checks
            if c.verdict != "skip"
        ]
        widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)][:-1]
        table = [_line(row, widths) for row in [_HEAD, *rows]]
        head = (
            f"{self.reward}: {self.instructions} instructions, {self.scored} answers scored, "
            f"{'a penalty: ' * self.is_penalty}accepted from {self.passes_at:g}"
        )
        return [_cut(head, WIDTH), "", *table, "", *textwrap.wrap(self.closing(), WIDTH)]

    def closing(self) -> str:
        """The closing line: clean or not, and the false-accept rate."""
        rate = (
            f"{self.accepted} of {self.probes} wrong answers accepted "
            f"({100 * self.false_accept_rate:.1f} %)"
        )
        others = [
            f"{count} {word}{'s' if word == 'note' and count > 1 else ''}"
            for word in ("note", "allowed")
            if (count := sum(check.verdict == word for check in self.checks))
        ]
        failed = [check.name for check in self.findings]
        verdict = "clean"
        if len(failed) == 1 and self.findings[0].seen.startswith(NOTHING_PASSED):
            verdict = f"{NOTHING_PASSED}; {GIVE_ONE}"
        elif failed:
            verdict = f"{len(failed)} finding{'s' if len(failed) > 1 else ''} ({', '.join(failed)})"
        return f"{'; '.join([verdict, rate, *others])}; {self.time_s:.1f} s"


def short(text: object, limit: int = 40) -> str:
    """``text`` as Python writes it, cut to ``limit`` characters."""
    shown = repr(text)
    return shown if len(shown) <= limit else f"{shown[: limit - 4]}...{shown[0]}"


def _count(check: Check) -> str:
    return "" if check.probes is None else f"{check.accepted} of {check.probes}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    return _cut("  ".join([*cells, row[-1]]).rstrip(), WIDTH)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
