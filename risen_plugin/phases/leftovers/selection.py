"""Choose from a scored batch what is worth keeping. Pure: outcomes in, findings out.

Of each group of answers to one instruction: the best one that every graded reward passed, if the
group is neither too easy nor hopeless; or that nobody passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from risen_plugin.contracts import Completion, Row
from risen_plugin.rewards.adherence import NamedReward, totals, verdicts
from risen_plugin.rewards.scores import Scores, groups_of
from risen_plugin.rewards.tripwires import tripped

_NOT_OF_THE_ROW = frozenset(("prompt", "completion", "completion_ids"))
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
    """A group of which no answer passed; the best one is kept, to see how far it came.

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
class Found:
    """What a batch had.

    :param solved: fingerprints of the prompts that at least one answer met.
    """

    verified: list[Verified] = field(default_factory=list)
    unmet: list[Unmet] = field(default_factory=list)
    solved: list[str] = field(default_factory=list)


def select(
    rewards: Sequence[NamedReward],
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    columns: Mapping[str, Any],
    outcomes: Mapping[str, Scores],
    *,
    group: int,
    band: tuple[float, float],
    key_of: Callable[[Any], str],
    moment: Moment,
) -> Found:
    """The findings of a batch whose answers to one prompt stand side by side, ``group`` of them.

    An answer that trips a wire is never the best one. A group counts as unmet only if every one of
    its answers was judged: an error of a reward says nothing about the instruction.

    :param band: share of passed answers above the first and up to the second, in which a group's
        best answer is kept.
    """
    passed = verdicts(rewards, outcomes)
    sums = totals(rewards, outcomes)
    rows = _rows(prompts, columns)
    found = Found()
    for members in groups_of(len(completions), group):
        judged = [index for index in members if passed[index] is not None]
        good = [index for index in judged if passed[index]]
        key = key_of(prompts[members[0]])
        if good:
            found.solved.append(key)
            share = len(good) / len(judged)
            clean = [
                index
                for index in good
                if sums[index] is not None and not tripped(rows[index], completions[index])
            ]
            if clean and band[0] < share <= band[1] + _ROUNDING:
                best = max(clean, key=lambda index: (sums[index], -index))
                found.verified.append(
                    Verified(
                        key,
                        prompts[best],
                        completions[best],
                        str(rows[best].get("family") or ""),
                        _scores(outcomes, best),
                        float(sums[best] or 0.0),
                        len(good),
                        len(judged),
                        **vars(moment),
                    )
                )
        elif judged and len(judged) == len(members):
            best = max(judged, key=lambda index: (sums[index] or 0.0, -index))
            found.unmet.append(
                Unmet(
                    key,
                    rows[best],
                    completions[best],
                    _scores(outcomes, best),
                    float(sums[best] or 0.0),
                    **vars(moment),
                )
            )
    return found


def _rows(prompts: Sequence[Any], columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The instructions that were answered, put together from their columns."""
    kept = {
        name: values
        for name, values in columns.items()
        if name not in _NOT_OF_THE_ROW
        and isinstance(values, list | tuple)
        and len(values) == len(prompts)
    }
    return [
        {"prompt": prompt, **{name: values[index] for name, values in kept.items()}}
        for index, prompt in enumerate(prompts)
    ]


def _scores(outcomes: Mapping[str, Scores], index: int) -> dict[str, float]:
    given = {name: scores[index] for name, scores in outcomes.items()}
    return {
        name: score for name, score in given.items() if score is not None and math.isfinite(score)
    }
