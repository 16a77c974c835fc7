"""Call a reward on answers, batch by batch, and give a result for each row.

When a batch fails, its answers are scored one by one, so that the error names the row at fault and
the other rows are scored.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import re
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from risen_plugin.commands.score.rows import Answer, Unusable
from risen_plugin.constraints import Judgement
from risen_plugin.constraints.core import Rules
from risen_plugin.constraints.judging import judge_row
from risen_plugin.contracts import Failed, text_of, without_thinking
from risen_plugin.errors import DataError, PluginError, RisenError, boundary, near_miss
from risen_plugin.kit.time_limit import limited
from risen_plugin.record.rollouts import reason_of
from risen_plugin.rewards.adherence import beside_training, columns_of
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.rewards.scores import Score, check_scores, kind_of

_OF_ONE = re.compile(r"row 1 of the batch: | for completion 0\b")  # of a batch of a single row


@dataclass(frozen=True, slots=True)
class Scored:
    """The result of one row.

    :param text: the answer's text; empty for a row without an answer.
    :param judgements: by constraint, in the order of ``instruction_id_list``; None for a row
        without constraints and for a reward that does not read them.
    :param note: why there are no judgements where there should be.
    """

    row: int
    where: str
    text: str
    outcome: Score
    judgements: tuple[Judgement, ...] | None = None
    note: str = ""

    @property
    def strict(self) -> bool | None:
        """Whether every constraint is met; None without constraints."""
        return None if self.judgements is None else all(j.strict for j in self.judgements)

    @property
    def loose(self) -> bool | None:
        """Whether every constraint is met loosely; None without constraints."""
        return None if self.judgements is None else all(j.loose for j in self.judgements)

    def data(self) -> dict[str, Any]:
        """The object that ``risen score --json`` prints."""
        data: dict[str, Any] = {"row": self.row, **outcome_data(self.outcome)}
        if self.judgements is not None:
            data |= {
                "strict": self.strict,
                "loose": self.loose,
                "per_constraint": [judgement.strict for judgement in self.judgements],
                "detail": [_line(judgement) for judgement in self.judgements],
            }
        elif self.note:
            data["detail"] = [self.note]
        return data


def outcome_data(outcome: Score) -> dict[str, Any]:
    """``score``, ``outcome`` and, for an error, ``error``."""
    name = kind_of(outcome)
    data: dict[str, Any] = {"score": outcome if name == "score" else None, "outcome": name}
    return data | ({"error": reason_of(outcome)} if name == "error" else {})


def verdict(judgement: Judgement) -> str:
    """``met``, ``met loosely`` or ``missed``."""
    if judgement.strict:
        return "met"
    return "met loosely" if judgement.loose else "missed"


def _line(judgement: Judgement) -> str:
    seen = f" ({judgement.seen})" if judgement.seen else ""
    return f"{judgement.id}: {verdict(judgement)}{seen}"


def score_rows(
    reward: NamedReward,
    rows: Iterable[Answer | Unusable],
    *,
    batch_size: int = 256,
    stop: bool = True,
    judge: bool = True,
    rules: Rules = "risen",
    strip_thinking: bool = False,
    timeout_s: float | None = None,
) -> Iterator[Scored]:
    """One result per row, in order; memory holds one batch.

    A :class:`~risen_plugin.contracts.Failed` that the reward returns is an outcome and never stops.

    :param batch_size: rows that the reward gets at once.
    :param stop: raise at a row that cannot be read or scored; False makes it an error's outcome.
    :param judge: whether rows are also judged by constraint, if the reward reads constraints.
    :param rules: by whose rules they are.
    :param strip_thinking: whether thinking sections are taken off the answers first.
    :param timeout_s: seconds that one call of the reward may take; None for no limit.
    :raises DataError: with ``stop``, naming the row; and always, before anything is scored, if the
        first answer lacks a column that the reward needs.
    :raises PluginError: if the reward returns a wrong number of scores, or fails on a batch but on
        none of its rows.
    """
    judged_by = rules if judge and "instruction_id_list" in reward.needs else None
    is_first = True
    pending = iter(rows)
    while batch := list(itertools.islice(pending, batch_size)):
        if strip_thinking:
            batch = [_without_thinking(row) for row in batch]
        first = next((row for row in batch if isinstance(row, Answer)), None)
        if is_first and first is not None:
            is_first = False
            if reason := lacking(reward, first):
                raise DataError(reason)
        yield from _score_batch(reward, batch, stop=stop, judged_by=judged_by, timeout_s=timeout_s)


def _without_thinking(row: Answer | Unusable) -> Answer | Unusable:
    if isinstance(row, Unusable):
        return row
    return replace(row, completion=without_thinking(row.completion))


def _score_batch(
    reward: NamedReward,
    batch: Sequence[Answer | Unusable],
    *,
    stop: bool,
    judged_by: Rules | None,
    timeout_s: float | None,
) -> Iterator[Scored]:
    """The results of a batch; with ``stop`` those before the first row at fault, then its error."""
    judgements: dict[int, tuple[Judgement, ...]] = {}
    notes: dict[int, str] = {}
    faults: dict[int, str] = {}
    for index, row in enumerate(batch):
        if isinstance(row, Unusable):
            faults[index] = row.reason
        elif reason := lacking(reward, row):
            faults[index] = reason
        elif judged_by is not None:
            try:
                of_row = judge_row(row.prompt, row.completion, row.columns, judged_by)
            except DataError as error:
                # A reward of another author may know ids that are none of ours.
                to = faults if _is_ours(reward) else notes
                to[index] = f"{row.where}: {error}" if _is_ours(reward) else str(error)
            else:
                if of_row is not None:
                    judgements[index] = tuple(of_row)
    fit = [
        (index, row)
        for index, row in enumerate(batch)
        if isinstance(row, Answer) and index not in faults
    ]
    fault: DataError | None = None
    if stop and faults:
        first = min(faults)
        fault = DataError(faults[first])
        batch, fit = batch[:first], [(index, row) for index, row in fit if index < first]
    outcomes, failures = _outcomes(reward, [row for _, row in fit], timeout_s)
    if stop and failures:
        position, fault = min(failures), failures[min(failures)]
        batch, fit, outcomes = batch[: fit[position][0]], fit[:position], outcomes[:position]
    scored = {index: outcome for (index, _), outcome in zip(fit, outcomes, strict=True)}
    for index, row in enumerate(batch):
        yield Scored(
            row.row,
            row.where,
            text_of(row.completion) if isinstance(row, Answer) else "",
            _without_where(row, scored.get(index, Failed(faults.get(index, "")))),
            judgements.get(index),
            notes.get(index, ""),
        )
    if fault is not None:
        raise fault


def _without_where(row: Answer | Unusable, outcome: Score) -> Score:
    """An error's reason without the row's name, which the result holds already."""
    if isinstance(outcome, Failed) and outcome.reason.startswith(f"{row.where}: "):
        return Failed(outcome.reason.removeprefix(f"{row.where}: "))
    return outcome


def _is_ours(reward: NamedReward) -> bool:
    return type(reward.reward).__module__.startswith("risen_plugin.")


def lacking(reward: NamedReward, answer: Answer) -> str:
    """The first column that the answer lacks and the reward needs, in one line; empty if none."""
    ids = ["completion_ids"] if reward.takes_ids else []
    for column in [*reward.needs, *ids]:
        if column not in answer.columns:
            has = ", ".join(answer.columns) or "none"
            hint = near_miss(column, answer.columns) or "."
            return (
                f"{answer.where} lacks the column '{column}', which {reward.label} needs{hint} "
                f"Beside prompt and completion it has: {has}"
            )
    return ""


def _outcomes(
    reward: NamedReward, answers: Sequence[Answer], timeout_s: float | None
) -> tuple[list[Score], dict[int, DataError]]:
    """The outcomes, and by index the errors of the answers that made the reward fail."""
    if not answers:
        return [], {}
    try:
        scores = _called(reward, answers, timeout_s)
    except RisenError as whole:
        return _one_by_one(reward, answers, whole, timeout_s)
    return _settled(reward, answers, scores)


def _one_by_one(
    reward: NamedReward, answers: Sequence[Answer], whole: RisenError, timeout_s: float | None
) -> tuple[list[Score], dict[int, DataError]]:
    outcomes: list[Score] = []
    failures: dict[int, DataError] = {}
    for index, answer in enumerate(answers):
        try:
            result = whole if len(answers) == 1 else _called(reward, [answer], timeout_s)
        except RisenError as error:
            result = error
        if isinstance(result, RisenError):
            failures[index] = _at(answer, result)
            outcomes.append(Failed(str(failures[index])))
        else:
            [outcome], failed = _settled(reward, [answer], result)
            outcomes.append(outcome)
            if failed:
                failures[index] = failed[0]
    if not failures:  # it cannot take them together
        raise PluginError(
            f"{answers[0].where} to row {answers[-1].row}: {whole}; one by one it scores them all, "
            "so try --batch-size 1"
        ) from whole
    return outcomes, failures


def _settled(
    reward: NamedReward, answers: Sequence[Answer], scores: Any
) -> tuple[list[Score], dict[int, DataError]]:
    """The scores, checked one by one; a wrong number of them raises, since no row is at fault."""
    if hasattr(scores, "tolist"):  # arrays and tensors
        scores = scores.tolist()
    if not isinstance(scores, list | tuple) or len(scores) != len(answers):
        check_scores(scores, len(answers), reward.label)
        scores = list(scores)
    outcomes: list[Score] = []
    failures: dict[int, DataError] = {}
    for index, (answer, score) in enumerate(zip(answers, scores, strict=True)):
        if isinstance(score, Failed):
            outcomes.append(score)
            continue
        try:
            outcomes += check_scores([score], 1, reward.label)
        except PluginError as error:
            failures[index] = _at(answer, error)
            outcomes.append(Failed(str(failures[index])))
    return outcomes, failures


def _at(answer: Answer, error: RisenError) -> DataError:
    named = DataError(f"{answer.where}: {_OF_ONE.sub('', str(error))}")
    named.__cause__ = error
    return named


def _called(reward: NamedReward, answers: Sequence[Answer], timeout_s: float | None) -> Any:
    rows = [answer.columns for answer in answers]
    columns: Mapping[str, Any] = columns_of(rows) | beside_training(
        [row["completion_ids"] for row in rows] if _have_ids(rows) else None
    )
    with boundary(reward.label), limited(timeout_s):
        scores = reward.reward(
            prompts=[answer.prompt for answer in answers],
            completions=[answer.completion for answer in answers],
            **columns,
        )
        return asyncio.run(_awaited(scores)) if inspect.isawaitable(scores) else scores


def _have_ids(rows: Sequence[Mapping[str, Any]]) -> bool:
    return all(row.get("completion_ids") is not None for row in rows)


async def _awaited(scores: Awaitable[object]) -> object:
    return await scores
