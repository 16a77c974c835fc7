"""Grade answers and count what passed, outside of what TRL trains on.

How rewards are wrapped and called is told elsewhere; the names are offered here as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from risen_plugin.contracts import Failed, Row
from risen_plugin.rewards.calling import call_all
from risen_plugin.rewards.named import AsyncNamedReward, NamedReward, wrap
from risen_plugin.rewards.scores import Scores, check_scores, errors_in

__all__ = [
    "Adherence",
    "AsyncNamedReward",
    "NamedReward",
    "Scores",
    "adherence",
    "check_scores",
    "columns_of",
    "grade",
    "score",
    "totals",
    "unjudged",
    "verdicts",
    "wrap",
]


@dataclass(frozen=True)
class Adherence:
    """How well answers follow their instructions.

    :param strict: share of answers that every graded reward passes.
    :param soft: mean score over graded rewards and answers.
    :param rows: answers that at least one graded reward scored, and none failed on.
    :param errors: answers that a graded reward failed on; they do not count.
    """

    strict: float
    soft: float
    rows: int
    errors: int = 0


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The rows' other columns as TRL hands them to a reward: one list per column."""
    names = {name for row in rows for name in row if name not in ("prompt", "completion")}
    return {name: [row.get(name) for row in rows] for name in sorted(names)}


def grade(
    rewards: Sequence[NamedReward], rows: Sequence[Row], completions: Sequence[Any]
) -> dict[str, Scores]:
    """The scores of every graded reward for answers to ``rows``, outside of any training.

    :raises RisenError: if a reward fails that stops on errors.
    """
    return score([reward for reward in rewards if reward.graded], rows, completions)


def score(
    rewards: Sequence[NamedReward], rows: Sequence[Row], completions: Sequence[Any]
) -> dict[str, Scores]:
    """The scores of ``rewards`` for answers to ``rows``, as :func:`grade` of the graded ones."""
    columns: dict[str, Any] = columns_of(rows) | {
        "completion_ids": [[] for _ in rows],
        "trainer_state": None,
        "log_extra": lambda *args, **kwargs: None,
        "log_metric": lambda *args, **kwargs: None,
    }
    return call_all(
        rewards,
        lambda reward: {
            "prompts": [row["prompt"] for row in rows],
            "completions": list(completions),
            **columns,
        },
        len(rows),
    )


def verdicts(rewards: Sequence[NamedReward], scores: Mapping[str, Scores]) -> list[bool | None]:
    """For each answer, whether every graded reward that scored passes it.

    None where none did, or one failed on it.
    """
    bars = {reward.__name__: reward.passes_at for reward in rewards if reward.graded}
    found: list[bool | None] = []
    for row in zip(*(scores[name] for name in bars), strict=True):
        given = [
            (score, bar) for score, bar in zip(row, bars.values(), strict=True) if score is not None
        ]
        is_judged = bool(given) and not any(isinstance(score, Failed) for score, _ in given)
        found.append(all(score >= bar for score, bar in given) if is_judged else None)
    return found


def totals(rewards: Sequence[NamedReward], scores: Mapping[str, Scores]) -> list[float | None]:
    """For each answer, the weighted sum over the rewards that scored it; None as in verdicts."""
    found: list[float | None] = []
    for row in zip(*(scores[reward.__name__] for reward in rewards), strict=True):
        given = [
            reward.weight * score
            for reward, score in zip(rewards, row, strict=True)
            if score is not None
        ]
        total = sum(given)
        found.append(total if given and math.isfinite(total) else None)
    return found


def adherence(rewards: Sequence[NamedReward], scores: Mapping[str, Scores]) -> Adherence:
    """Strict and soft adherence from each graded reward's scores.

    Abstentions do not count, and an answer that a reward failed on counts for nothing.
    """
    bars = {reward.__name__: reward.passes_at for reward in rewards if reward.graded}
    passed: list[bool] = []
    values: list[float] = []
    errors = 0
    for row in zip(*(scores[name] for name in bars), strict=True):
        if any(isinstance(score, Failed) for score in row):
            errors += 1
            continue
        given = [
            (score, bar) for score, bar in zip(row, bars.values(), strict=True) if score is not None
        ]
        if given:
            passed.append(all(score >= bar for score, bar in given))
            values.append(sum(score for score, _ in given) / len(given))
    count = len(passed)
    if not count:
        return Adherence(0.0, 0.0, 0, errors)
    return Adherence(sum(passed) / count, sum(values) / count, count, errors)


def unjudged(
    rewards: Sequence[NamedReward], scores: Mapping[str, Scores], limit: float
) -> str | None:
    """One line if more than the share ``limit`` of answers could not be judged, or none could."""
    found = adherence(rewards, scores)
    errors = {name: errors_in(given) for name, given in scores.items()}
    worst = max(errors, key=lambda name: len(errors[name]))
    total = len(scores[worst])
    if not found.errors or (found.errors <= limit * total and found.rows):
        return None
    [label] = [reward.label for reward in rewards if reward.__name__ == worst]
    return (
        f"{found.errors} of {total} held-out answers could not be judged "
        f"({found.errors / total:.0%}, limit {limit:.0%}): {label} failed on "
        f"{len(errors[worst])}, for example: {errors[worst][-1].reason}"
    )
