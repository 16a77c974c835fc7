"""Compare the scores of several rewards for the same answers, a group at a time.

Pure, and in memory that does not grow with the answers. A group is the answers to one visit of a
prompt: GRPO learns from the differences inside it, so two rewards are compared inside it too.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from risen_plugin.commands.score.summary import share
from risen_plugin.rewards.scores import Kind, Score, kind_of

_NO_DIFFERENCE = 1e-6  # a smaller one is rounding


def is_flat(outcomes: Sequence[Score]) -> bool:
    """Whether a group teaches nothing: fewer than two scores, or no difference between them.

    >>> is_flat([0.5, 0.5, None]), is_flat([0.5, 1.0])
    (True, False)
    """
    scores = [outcome for outcome in outcomes if _is_score(outcome)]
    return len(scores) < 2 or max(scores) - min(scores) <= _NO_DIFFERENCE


def best_changes(first: Sequence[Score], second: Sequence[Score]) -> bool | None:
    """Whether two rewards prefer different answers of a group: none is best by both.

    Only answers that both scored count; None if those are fewer than two.

    >>> best_changes([1.0, 0.0], [0.2, 0.4]), best_changes([1.0, 1.0], [0.2, 0.4])
    (True, False)
    """
    both = [(a, b) for a, b in zip(first, second, strict=True) if _is_score(a) and _is_score(b)]
    if len(both) < 2:
        return None
    tops = [max(a for a, _ in both), max(b for _, b in both)]
    return not any(a >= tops[0] - _NO_DIFFERENCE and b >= tops[1] - _NO_DIFFERENCE for a, b in both)


@dataclass
class Moments:
    """Pearson's correlation of pairs that come one at a time (Welford's way)."""

    count: int = 0
    means: tuple[float, float] = (0.0, 0.0)
    squares: tuple[float, float] = (0.0, 0.0)
    products: float = 0.0

    def add(self, x: float, y: float) -> None:
        """Take in one more pair."""
        self.count += 1
        dx, dy = x - self.means[0], y - self.means[1]
        self.means = (self.means[0] + dx / self.count, self.means[1] + dy / self.count)
        after_x, after_y = x - self.means[0], y - self.means[1]
        self.squares = (self.squares[0] + dx * after_x, self.squares[1] + dy * after_y)
        self.products += dx * after_y

    @property
    def correlation(self) -> float | None:
        """From -1 to 1; None where one side never differs."""
        spread = math.sqrt(self.squares[0]) * math.sqrt(self.squares[1])
        if self.count < 2 or spread <= _NO_DIFFERENCE**2:
            return None
        return max(-1.0, min(1.0, self.products / spread))


@dataclass
class Tally:
    """The outcomes and scores of one reward over all answers."""

    outcomes: Counter[Kind] = field(default_factory=Counter)
    total: float = 0.0
    passed: int = 0
    groups: int = 0
    flat_groups: int = 0

    def add(self, seen: Sequence[Score], passes_at: float) -> None:
        """Take in the outcomes of one group; none if the reward did not see it."""
        if not seen:
            return
        self.groups += 1
        self.flat_groups += is_flat(seen)
        for outcome in seen:
            self.outcomes[kind_of(outcome)] += 1
            if _is_score(outcome):
                self.total += outcome
                self.passed += outcome >= passes_at


@dataclass
class Pair:
    """The agreement of two rewards."""

    moments: Moments = field(default_factory=Moments)
    agreed: int = 0
    groups: int = 0
    best_changed: int = 0

    def add(self, first: Sequence[Score], second: Sequence[Score], passes_at: float) -> None:
        """Take in the outcomes of one group by both rewards."""
        changed = best_changes(first, second)
        if changed is not None:
            self.groups += 1
            self.best_changed += changed
        for a, b in zip(first, second, strict=True):
            if _is_score(a) and _is_score(b):
                self.moments.add(a, b)
                self.agreed += (a >= passes_at) == (b >= passes_at)


@dataclass(frozen=True)
class Disagreement:
    """An answer that two rewards score differently.

    :param distance: the difference of their scores.
    :param about: the object that the caller passed with the answer.
    """

    distance: float
    first: str
    second: str
    about: Any
    outcomes: Mapping[str, Score]


class Comparison:
    """Compares rewards, group by group.

    :param names: the rewards.
    :param passes_at: the score from which an answer counts as passed.
    :param examples: the number of the largest disagreements to collect.
    :param new: the rewards of which one must take part in a pair; all of them if empty.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        passes_at: float = 1.0,
        examples: int = 0,
        new: Sequence[str] = (),
    ) -> None:
        self.names = tuple(names)
        self.passes_at = passes_at
        self.answers = self.groups = 0
        self.ones = {name: Tally() for name in self.names}
        self.pairs = {
            pair: Pair()
            for pair in itertools.combinations(self.names, 2)
            if not new or set(pair) & set(new)
        }
        self._most = examples
        self._serial = itertools.count()
        self._largest: list[tuple[float, int, Disagreement]] = []

    def add(self, group: Sequence[Mapping[str, Score]], about: Sequence[Any] | None = None) -> None:
        """Take in one group.

        :param group: per answer the outcome by each reward; one that is absent did not see it.
        :param about: per answer what an example should tell of it.
        """
        self.answers += len(group)
        self.groups += 1
        by_name = {name: [outcomes.get(name) for outcomes in group] for name in self.names}
        for name, one in self.ones.items():
            one.add([outcomes[name] for outcomes in group if name in outcomes], self.passes_at)
        for (first, second), pair in self.pairs.items():
            pair.add(by_name[first], by_name[second], self.passes_at)
        if self._most:
            self._collect(group, about)

    def examples(self) -> list[Disagreement]:
        """The largest disagreements, the largest first; one per group."""
        return [one for _, _, one in sorted(self._largest, key=lambda one: (-one[0], -one[1]))]

    def data(self) -> dict[str, Any]:
        """All but the examples in plain values; a share of nothing is None."""
        return {
            "answers": self.answers,
            "groups": self.groups,
            "passes_at": self.passes_at,
            "rewards": {name: self._one_data(one) for name, one in self.ones.items()},
            "pairs": [
                {
                    "rewards": list(names),
                    "answers": pair.moments.count,
                    "correlation": pair.moments.correlation,
                    "agreement": share(pair.agreed, pair.moments.count),
                    "groups": pair.groups,
                    "best_changed": pair.best_changed,
                    "best_changed_share": share(pair.best_changed, pair.groups),
                }
                for names, pair in self.pairs.items()
            ],
        }

    def _one_data(self, one: Tally) -> dict[str, Any]:
        scores = one.outcomes["score"]
        return {
            "mean": share(one.total, scores),
            "pass_rate": share(one.passed, scores),
            "outcomes": {name: one.outcomes[name] for name in ("score", "abstain", "error")},
            "groups": one.groups,
            "flat_groups": one.flat_groups,
            "flat_share": share(one.flat_groups, one.groups),
        }

    def _collect(self, group: Sequence[Mapping[str, Score]], about: Sequence[Any] | None) -> None:
        """Keep the largest disagreement of the group, if it is among the largest of all."""
        distance, first, second, index = max(
            self._distances(group), default=(0.0, "", "", 0), key=lambda candidate: candidate[0]
        )
        if distance <= _NO_DIFFERENCE:
            return
        disagreement = Disagreement(
            distance, first, second, None if about is None else about[index], group[index]
        )
        # Of equals the first one stays: the heap gives up the least entry, which is the latest.
        entry = (distance, -next(self._serial), disagreement)
        if len(self._largest) < self._most:
            heapq.heappush(self._largest, entry)
        elif distance > self._largest[0][0]:
            heapq.heapreplace(self._largest, entry)

    def _distances(
        self, group: Sequence[Mapping[str, Score]]
    ) -> Iterator[tuple[float, str, str, int]]:
        for index, outcomes in enumerate(group):
            for first, second in self.pairs:
                a, b = outcomes.get(first), outcomes.get(second)
                if _is_score(a) and _is_score(b):
                    yield abs(a - b), first, second, index


def _is_score(outcome: Score) -> TypeGuard[float]:
    return outcome is not None and math.isfinite(outcome)
