"""Grade answers, and say how well they follow their instructions.

Pure but for :func:`grade` and :func:`score`, which call rewards outside of any training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from risen_plugin.contracts import Completion, Failed, Row
from risen_plugin.errors import ConfigError
from risen_plugin.rewards.calling import NamedReward, call_all
from risen_plugin.rewards.scores import Scores, errors_in

_IDS = "instruction_id_list"
_WHOLE = 1e-6  # a share of the constraints times their number is whole, but for rounding


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


@dataclass
class TrainingState:
    """In place of the Trainer's state, where rewards are called outside of a training.

    A training at its end, so that rewards which change as it goes on judge as they do there. Has
    what rewards read of ``transformers.TrainerState``.
    """

    global_step: int = 1
    max_steps: int = 1
    epoch: float = 1.0
    num_train_epochs: int = 1
    log_history: list[dict[str, float]] = field(default_factory=list)
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True


def beside_training(
    completion_ids: Sequence[Sequence[int]] | None, trainer_state: object = None
) -> dict[str, Any]:
    """The arguments that TRL hands to every reward, as they are outside of a training.

    :param completion_ids: None where they are not known; they are no argument then.
    :param trainer_state: None for a training at its end.
    """
    ids = {} if completion_ids is None else {"completion_ids": [list(i) for i in completion_ids]}
    return {
        **ids,
        "trainer_state": TrainingState() if trainer_state is None else trainer_state,
        "log_extra": lambda *args, **kwargs: None,
        "log_metric": lambda *args, **kwargs: None,
    }


def check_ids(reward: NamedReward, columns: Mapping[str, Any]) -> None:
    """Refuse a reward that looks at an answer's token ids, where they are not known.

    :raises ConfigError: naming the reward.
    """
    if "completion_ids" not in columns and reward.takes_ids:
        raise ConfigError(
            f"{reward.label} takes completion_ids, the token ids of answers, which are not known "
            "here; give rows a column 'completion_ids', or the argument a default"
        )


def grade(
    rewards: Sequence[NamedReward],
    rows: Sequence[Row],
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]] | None = None,
) -> dict[str, Scores]:
    """The scores of every graded reward for answers to ``rows``, outside of any training.

    :param completion_ids: the answers' token ids; None where they are not known.
    :raises RisenError: if a reward fails that stops on errors, or needs token ids that are not
        known.
    """
    graded = [reward for reward in rewards if reward.grading.graded]
    return score(graded, rows, completions, completion_ids=completion_ids)


def score(
    rewards: Sequence[NamedReward],
    rows: Sequence[Row],
    completions: Sequence[Completion],
    *,
    completion_ids: Sequence[Sequence[int]] | None = None,
    trainer_state: object = None,
) -> dict[str, Scores]:
    """The scores of ``rewards``, graded or not, for answers to ``rows``, outside of any training.

    :param completion_ids: the answers' token ids; None where they are not known.
    :param trainer_state: the Trainer's, by which rewards may change as a phase goes on; None for
        a training at its end.
    :raises ConfigError: if a reward needs the token ids, and they are not known.
    :raises RisenError: if a reward fails that stops on errors.
    """
    columns = columns_of(rows) | beside_training(completion_ids, trainer_state)
    for reward in rewards:
        check_ids(reward, columns)
    return call_all(
        rewards,
        lambda reward: {
            "prompts": [row["prompt"] for row in rows],
            "completions": list(completions),
            **columns,
        },
        len(rows),
    )


Judged: TypeAlias = list[tuple[float, bool]]
"""The scores of an answer by the graded rewards that scored it, and whether each one passes."""


def judged_rows(
    rewards: Sequence[NamedReward], scores: Mapping[str, Scores]
) -> Iterator[Judged | None]:
    """For each answer, how the graded rewards that scored it judge it; None where one failed."""
    graded = [reward for reward in rewards if reward.grading.graded]
    for row in zip(*(scores[reward.__name__] for reward in graded), strict=True):
        if any(isinstance(score, Failed) for score in row):
            yield None
            continue
        yield [
            (score, score >= reward.grading.passes_at)
            for reward, score in zip(graded, row, strict=True)
            if score is not None
        ]


def verdicts(rewards: Sequence[NamedReward], scores: Mapping[str, Scores]) -> list[bool | None]:
    """For each answer, whether every graded reward that scored passes it.

    None where none did, or one failed on it.
    """
    return [
        all(passes for _, passes in judged) if judged else None
        for judged in judged_rows(rewards, scores)
    ]


def checks_met(
    rewards: Sequence[NamedReward], rows: Sequence[Row], scores: Mapping[str, Scores]
) -> list[tuple[int, int] | None]:
    """For each answer, how many of how many checks it meets; None where :func:`verdicts` has none.

    A reward that reads the row's constraints and scores their share checks each of them. Any other
    graded reward that scored is one check: whether it passes.
    """
    graded = [reward for reward in rewards if reward.grading.graded]
    by_constraint = {reward.__name__: _IDS in reward.needs for reward in graded}
    met: list[tuple[int, int] | None] = []
    for row, judged in zip(rows, judged_rows(rewards, scores), strict=True):
        if not judged:
            met.append(None)
            continue
        names = [r.__name__ for r in graded if scores[r.__name__][len(met)] is not None]
        counts = [
            _checks(score, passes, len(row.get(_IDS) or ()) if by_constraint[name] else 0)
            for name, (score, passes) in zip(names, judged, strict=True)
        ]
        met.append((sum(count for count, _ in counts), sum(asked for _, asked in counts)))
    return met


def _checks(score: float, passes: bool, constraints: int) -> tuple[int, int]:
    """The checks of one reward on an answer, whose row names so many constraints that it reads."""
    count = round(score * constraints)
    if constraints and 0 <= count <= constraints and abs(score * constraints - count) < _WHOLE:
        return count, constraints
    return int(passes), 1


def totals(rewards: Sequence[NamedReward], scores: Mapping[str, Scores]) -> list[float | None]:
    """For each answer, the weighted sum over the rewards that scored it.

    None where none did, or one failed on it.
    """
    sums: list[float | None] = []
    for row in zip(*(scores[reward.__name__] for reward in rewards), strict=True):
        weighted = [
            reward.weight * score
            for reward, score in zip(rewards, row, strict=True)
            if score is not None
        ]
        total = sum(weighted)
        sums.append(total if weighted and math.isfinite(total) else None)
    return sums


def adherence(rewards: Sequence[NamedReward], scores: Mapping[str, Scores]) -> Adherence:
    """Strict and soft adherence from each graded reward's scores.

    Abstentions do not count, and an answer that a reward failed on counts for nothing.
    """
    passed: list[bool] = []
    values: list[float] = []
    errors = 0
    for judged in judged_rows(rewards, scores):
        if judged is None:
            errors += 1
        elif judged:
            passed.append(all(passes for _, passes in judged))
            values.append(sum(score for score, _ in judged) / len(judged))
    count = len(passed)
    if not count:
        return Adherence(0.0, 0.0, 0, errors)
    return Adherence(sum(passed) / count, sum(values) / count, count, errors)


def unjudged(
    rewards: Sequence[NamedReward], scores: Mapping[str, Scores], limit: float
) -> str | None:
    """One line if more than the share ``limit`` of answers could not be judged, or none could."""
    judged = adherence(rewards, scores)
    errors = {name: errors_in(values) for name, values in scores.items()}
    worst = max(errors, key=lambda name: len(errors[name]))
    total = len(scores[worst])
    if not judged.errors or (judged.errors <= limit * total and judged.rows):
        return None
    [label] = [reward.label for reward in rewards if reward.__name__ == worst]
    return (
        f"{judged.errors} of {total} held-out answers could not be judged "
        f"({judged.errors / total:.0%}, limit {limit:.0%}): {label} failed on "
        f"{len(errors[worst])}, for example: {errors[worst][-1].reason}"
    )
