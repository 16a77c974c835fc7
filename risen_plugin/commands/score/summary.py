"""Sum up scored answers, one at a time, in memory that does not grow with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from risen_plugin.commands.score.by_row import Scored
from risen_plugin.record.rollouts import reason_of
from risen_plugin.rewards.scores import Kind, kind_of


@dataclass
class Passed:
    """How often a constraint was met, strictly and loosely, among ``rows``."""

    rows: int = 0
    strict: int = 0
    loose: int = 0

    def add(self, strict: bool, loose: bool) -> None:
        """Count one more."""
        self.rows += 1
        self.strict += strict
        self.loose += loose

    def counted(self) -> dict[str, Any]:
        """As :meth:`data`, of single constraints and not of rows."""
        data = self.data()
        return {"count": data.pop("rows"), **data}

    def data(self) -> dict[str, Any]:
        """Counts and shares; a share of nothing is None."""
        return {
            "rows": self.rows,
            "strict": share(self.strict, self.rows),
            "loose": share(self.loose, self.rows),
        }


@dataclass
class Summary:
    """Counts and means of many scored answers.

    :param passes_at: the score from which an answer counts as passed.
    """

    passes_at: float = 1.0
    rows: int = 0
    outcomes: Counter[Kind] = field(default_factory=Counter)
    total: float = 0.0
    passed: int = 0
    adherence: Passed = field(default_factory=Passed)
    instructions: Passed = field(default_factory=Passed)
    constraints: dict[str, Passed] = field(default_factory=dict)
    first_error: str = ""

    def add(self, scored: Scored) -> None:
        """Count one more answer."""
        self.rows += 1
        name = kind_of(scored.outcome)
        self.outcomes[name] += 1
        if name == "error" and not self.first_error:
            self.first_error = f"{scored.where}: {reason_of(scored.outcome)}"
        if name == "score" and scored.outcome is not None:
            self.total += scored.outcome
            self.passed += scored.outcome >= self.passes_at
        if scored.judgements is not None:
            self.adherence.add(bool(scored.strict), bool(scored.loose))
            for judgement in scored.judgements:
                one = self.constraints.setdefault(judgement.id, Passed())
                one.add(judgement.strict, judgement.loose)
                self.instructions.add(judgement.strict, judgement.loose)

    def data(self) -> dict[str, Any]:
        """The object that ``risen score --summary --json`` prints."""
        scores = self.outcomes["score"]
        return {
            "rows": self.rows,
            "outcomes": {name: self.outcomes[name] for name in ("score", "abstain", "error")},
            "mean_score": share(self.total, scores),
            "pass_rate": share(self.passed, scores),
            "adherence": self.adherence.data() if self.adherence.rows else None,
            "instructions": self.instructions.counted() if self.adherence.rows else None,
            "per_constraint": {
                id_: passed.data() for id_, passed in sorted(self.constraints.items())
            },
        }


def summed(results: Iterable[Scored]) -> Summary:
    """The summary of all of them."""
    summary = Summary()
    for scored in results:
        summary.add(scored)
    return summary


def share(part: float, whole: int) -> float | None:
    """``part`` of ``whole``; None where that is nothing."""
    return part / whole if whole else None
