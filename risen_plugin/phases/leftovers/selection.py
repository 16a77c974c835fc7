"""Choose from a scored batch the answers worth saving. Pure: a batch in, findings out.

Of each group of answers to one instruction: the best one that every graded reward passed, if the
group is neither too easy nor hopeless; or that nobody passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from risen_plugin.contracts import Completion, Row
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
    prompt: Any
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
    key_of: Callable[[Any], str],
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
    given = {name: scores[index] for name, scores in batch.scores.items()}
    return {
        name: score for name, score in given.items() if score is not None and math.isfinite(score)
    }
