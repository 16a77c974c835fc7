"""Judge answers with the rewards of installed plugins, and choose the best.

Who asks names rewards, and gives what they need to know of the instruction. Options are the
server's: a reward may open files or call services by them. No torch.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from risen_export.serving.refusals import RefusedError
from risen_plugin.config.choices import Grading, Use
from risen_plugin.constraints.judging import Judgement, judge_row
from risen_plugin.contracts import Completion, Failed, Prompt
from risen_plugin.errors import RisenError, one_line
from risen_plugin.plugins import Plugins
from risen_plugin.plugins.lookup import OnlyOffers, look_up
from risen_plugin.rewards.adherence import score, totals, verdicts
from risen_plugin.rewards.calling import NamedReward, wrap


@dataclass(frozen=True)
class Judged:
    """What rewards say of one answer.

    :param passed: whether every graded reward passes it; None if none scored it, or one failed.
    :param total: the weighted sum of scores.
    :param scores: by reward; a text where it failed.
    :param constraints: of the instruction, one by one.
    """

    passed: bool | None
    total: float | None
    scores: Mapping[str, float | str | None]
    constraints: tuple[Judgement, ...]

    def data(self) -> dict[str, Any]:
        """As clients get it."""
        return {
            "passed": self.passed,
            "score": self.total,
            "rewards": dict(self.scores),
            "constraints": [
                {"id": one.id, "met": one.strict, "met_loosely": one.loose, "seen": one.seen}
                for one in self.constraints
            ],
        }


class Judges:
    """The rewards that requests may name.

    :param options: of rewards that need some, by name.
    """

    def __init__(self, options: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._options = dict(options or {})
        self._made: dict[str, NamedReward] = {}
        self._plugins: Plugins | None = None
        self._lock = threading.Lock()  # rewards need not stand several threads

    def rewards(self, names: Sequence[str]) -> list[NamedReward]:
        """The rewards of some names.

        :raises RefusedError: if one is not to be had.
        """
        with self._lock:
            return [self._reward(name) for name in names]

    def _reward(self, name: str) -> NamedReward:
        if name not in self._made:
            self._plugins = self._plugins or Plugins.load()
            try:
                used = Use(name, self._options.get(name, {}))
                built = look_up(OnlyOffers(self._plugins), "reward", used)
            except RisenError as error:
                raise RefusedError(str(error), param="risen.rewards") from None
            grading = Grading(on_error="skip")
            self._made[name] = wrap(built.value, built.name, built.label, grading)
        return self._made[name]

    def judge(
        self,
        names: Sequence[str],
        prompt: Prompt,
        completions: Sequence[Completion],
        ids: Sequence[Sequence[int]],
        columns: Mapping[str, Any],
    ) -> list[Judged]:
        """What some rewards say of answers to one prompt.

        :raises RefusedError: if a reward is not to be had, or cannot read the columns.
        """
        rewards = self.rewards(names)
        row = {**columns, "prompt": prompt}
        rows = [row] * len(completions)
        with self._lock:
            try:
                scores = score(rewards, rows, completions, completion_ids=ids)
                constraints = [judge_row(prompt, one, columns) or () for one in completions]
            except Exception as error:  # columns are a stranger's, and hold anything
                raise RefusedError(
                    f"the answers cannot be judged: {one_line(error)}", param="risen.columns"
                ) from error
        passed = verdicts(rewards, scores)
        sums = totals(rewards, scores)
        return [
            Judged(
                passed[line],
                sums[line],
                {name: _shown(of[line]) for name, of in scores.items()},
                tuple(constraints[line]),
            )
            for line in range(len(completions))
        ]


def best(judged: Sequence[Judged], count: int) -> list[int]:
    """The places of the best answers, the best first; those written first among equals."""

    def worth(place: int) -> tuple[bool, int, float]:
        one = judged[place]
        met = sum(constraint.strict for constraint in one.constraints)
        return one.passed is True, met, float("-inf") if one.total is None else one.total

    return sorted(range(len(judged)), key=worth, reverse=True)[:count]


def _shown(value: float | None) -> float | str | None:
    return value.reason if isinstance(value, Failed) else value
