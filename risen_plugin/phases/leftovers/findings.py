"""The findings of RISEN phases, chosen from each scored batch and held until they are used. Pure.

Of each group of answers to one instruction: the best one that every graded reward passed, if the
group is neither too easy nor hopeless; or that nobody passed. Held are of verified answers one per
instruction, none twice, and no more than fit; of unsolved instructions each until somebody solves
it. When a finding counts is decided by the buffers as a whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from risen_plugin.contracts import Completion, Prompt, Row, text_of
from risen_plugin.rewards.batch import Batch

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Moment:
    """When answers were sampled.

    :param phase: the RISEN phase's number.
    :param step: GRPO steps that it had taken.
    :param at_step: the outer run's step when it began.
    """

    phase: int
    step: int
    at_step: int


@dataclass(frozen=True)
class Verified:
    """The best answer of a group that every graded reward passed.

    :param key: fingerprint of the prompt.
    :param family: the row's family, or an empty text.
    :param scores: each reward's score.
    :param total: their weighted sum, the largest in its group.
    :param passed: answers of the group that passed.
    :param of: answers of the group that were judged.
    """

    key: str
    prompt: Prompt
    completion: Completion
    family: str
    scores: Mapping[str, float]
    total: float
    passed: int
    of: int
    phase: int
    step: int
    at_step: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Unmet:
    """A group of which no answer passed; the best one shows how far it came.

    :param row: the instruction with the columns that its rewards need.
    """

    key: str
    row: Row
    completion: Completion
    scores: Mapping[str, float]
    total: float
    phase: int
    step: int
    at_step: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Findings:
    """The findings of one batch.

    :param solved: fingerprints of the prompts that at least one answer met.
    """

    verified: list[Verified] = field(default_factory=list)
    unmet: list[Unmet] = field(default_factory=list)
    solved: list[str] = field(default_factory=list)


def select(
    batch: Batch,
    *,
    band: tuple[float, float],
    key_of: Callable[[Prompt], str],
    moment: Moment,
) -> Findings:
    """The findings of a batch.

    An answer that trips a wire is never the best one. A group counts as unmet only if every one of
    its answers was judged: an error of a reward says nothing about the instruction.

    :param band: share of passed answers above the first and up to the second, in which a group's
        best answer is chosen.
    """
    passed, sums = batch.verdicts, batch.totals
    findings = Findings()
    for members in batch.groups:
        judged = [index for index in members if passed[index] is not None]
        good = [index for index in judged if passed[index]]
        key = key_of(batch.prompts[members[0]])
        if good:
            findings.solved.append(key)
            if not band[0] < len(good) / len(judged) <= band[1] + _ROUNDING:
                continue
            clean = [i for i in good if sums[i] is not None and not batch.tripped[i]]
            if clean:
                best = max(clean, key=lambda index: (sums[index], -index))
                findings.verified.append(
                    Verified(
                        key,
                        batch.prompts[best],
                        batch.completions[best],
                        str(batch.rows[best].get("family") or ""),
                        _scores(batch, best),
                        float(sums[best] or 0.0),
                        len(good),
                        len(judged),
                        **vars(moment),
                    )
                )
        elif judged and len(judged) == len(members):
            best = max(judged, key=lambda index: (sums[index] or 0.0, -index))
            findings.unmet.append(
                Unmet(
                    key,
                    batch.rows[best],
                    batch.completions[best],
                    _scores(batch, best),
                    float(sums[best] or 0.0),
                    **vars(moment),
                )
            )
    return findings


def _scores(batch: Batch, index: int) -> dict[str, float]:
    by_reward = {name: scores[index] for name, scores in batch.scores.items()}
    return {
        name: score
        for name, score in by_reward.items()
        if score is not None and math.isfinite(score)
    }


class VerifiedAnswers:
    """Verified answers in the order in which they came.

    :param largest: the most that are held. Over it, one answer of the family that has most of them
        goes: one whose text another answer has too, if there is any, else the oldest.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.evicted = 0
        self._held: dict[str, Verified] = {}
        self._families: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Verified]:
        return iter(self._held.values())

    def add(self, answer: Verified) -> bool:
        """Take an answer in; False if a better one to its instruction is held.

        An equally good one takes the place of the older, which the model has moved away from.
        """
        held = self._held.get(answer.key)
        if held is not None and held.total > answer.total:
            return False
        if held is not None:
            self._drop(answer.key)
        self._held[answer.key] = answer
        self._families[answer.family] += 1
        while len(self._held) > self.largest:
            self._drop(self._most_redundant())
            self.evicted += 1
        return answer.key in self._held

    def _drop(self, key: str) -> None:
        gone = self._held.pop(key)
        self._families[gone.family] -= 1

    def _most_redundant(self) -> str:
        # The earlier of equally large families, whatever order a counter has them in.
        most = max(self._families.values())
        family = min(name for name, count in self._families.items() if count == most)
        members = [answer for answer in self._held.values() if answer.family == family]
        texts = Counter(plainly(answer) for answer in members)
        return next(
            (answer.key for answer in members if texts[plainly(answer)] > 1), members[0].key
        )


@dataclass(frozen=True)
class Attempted:
    """An instruction that has not been solved since it was first asked, or since last solved.

    :param visits: groups of answers in a row of which none passed.
    :param best: the group with the best answer of these.
    """

    visits: int
    best: Unmet
    last: Unmet

    def as_row(self) -> dict[str, Any]:
        """The row that a person writes a demonstration into: ``completion`` is empty."""
        return {
            "prompt": self.best.row["prompt"],
            "completion": "",
            "visits": self.visits,
            "best_answer": self.best.completion,
            "best_scores": dict(self.best.scores),
            "phase": self.last.phase,
            "grpo_step": self.last.step,
            "at_step": self.last.at_step,
            "columns": {name: value for name, value in self.best.row.items() if name != "prompt"},
        }


class Unsolved:
    """Instructions whose answers all failed, in the order in which they were first asked.

    :param after: visits without a passed answer, in a row, from which an instruction counts.
    :param most: instructions that are remembered; over it an eighth of them is forgotten, those
        with the fewest visits first, and of these the oldest.
    """

    def __init__(self, after: int, most: int = 65_536) -> None:
        self.after = after
        self.most = most
        self.solved = 0
        self._tried: dict[str, Attempted] = {}
        self._count = 0  # read after each step of the outer run, so it is counted here

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Attempted]:
        return (tried for tried in self._tried.values() if self._counts(tried))

    def _counts(self, tried: Attempted) -> bool:
        return tried.visits >= self.after

    def failed(self, unmet: Unmet) -> None:
        """Nobody of another group solved it."""
        tried = self._tried.get(unmet.key)
        if tried is None:
            now = Attempted(1, unmet, unmet)
        else:
            best = unmet if unmet.total >= tried.best.total else tried.best
            now = replace(tried, visits=tried.visits + 1, best=best, last=unmet)
        self._tried[unmet.key] = now
        self._count += now.visits == self.after
        if len(self._tried) > self.most:
            self._forget(1 + self.most // 8)

    def _forget(self, count: int) -> None:
        by_visits = sorted(self._tried, key=lambda key: self._tried[key].visits)
        for key in by_visits[:count]:
            self._count -= self._counts(self._tried.pop(key))

    def was_tried(self, key: str) -> bool:
        """Whether it has failed since it was last solved."""
        return key in self._tried

    def solve(self, key: str) -> None:
        """Somebody solved it."""
        tried = self._tried.pop(key, None)
        if tried is not None and self._counts(tried):
            self._count -= 1
            self.solved += 1


def plainly(answer: Verified) -> str:
    """The text of an answer by which repetitions are known: without case and spacing."""
    return " ".join(text_of(answer.completion).casefold().split())
