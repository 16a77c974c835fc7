"""Measure a model on rows that it never trains on, before a phase or burst and after it.

Three questions: does it follow held-out instructions (adherence), is it as good as before at all
else (retention), and does it follow them in earnest (honesty). The meaning of the numbers is the
guard's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

from transformers import TrainerState

from risen_plugin.constraints.judging import Count, counts_by_constraint, counts_by_family
from risen_plugin.contracts import Failed, Row
from risen_plugin.errors import ConfigError, DataError, near_miss
from risen_plugin.guard.changes import Losses, RowByRow
from risen_plugin.guard.looks import Met
from risen_plugin.guard.verdicts import Measured
from risen_plugin.phases.context import PhaseContext
from risen_plugin.record.answered import Asked, asked, bounded
from risen_plugin.rewards.adherence import (
    Adherence,
    adherence,
    checks_met,
    score,
    unjudged,
    verdicts,
)
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.rewards.scores import Scores
from risen_plugin.rewards.tripwires import Tripped, watch
from risen_plugin.training.answering import Answers, Encoded, answers_to
from risen_plugin.training.asking import Asking, in_precision
from risen_plugin.training.losses import mean_loss, row_losses
from risen_plugin.training.outside import Outside
from risen_plugin.training.protocols import Model

Ask: TypeAlias = Callable[[Sequence[Row], Sequence[NamedReward]], tuple[Answers, dict[str, Scores]]]
"""The model's answers to rows, and the scores that rewards give them."""


LossesOf: TypeAlias = tuple[Losses, Losses]
"""A model's losses on the probe's rows, and on answers of the model at phase entry."""


@dataclass(frozen=True)
class Measurement:
    """A model as it was measured at one moment.

    :param by_row: the same row by row.
    :param tasks: the mean score of each task.
    :param errors: rows of the guard that a reward failed on.
    :param outage: one line, if there were too many of them to judge by.
    :param by_family: per family of all held-out rows, how many of how many answers passed.
    :param by_constraint: per constraint, how many of how many answers met it.
    :param answered: the held-out rows with their answers, as the record has them.
    """

    guard: Measured
    reported: Adherence | None
    unseen: Adherence | None
    tripped: Tripped
    by_row: RowByRow
    domain: Mapping[str, float]
    tasks: Mapping[str, float]
    errors: int = 0
    outage: str | None = None
    by_family: Mapping[str, Count] = field(default_factory=dict)
    by_constraint: Mapping[str, Count] = field(default_factory=dict)
    answered: Sequence[Asked] = ()


@dataclass(frozen=True)
class AnsweredRows:
    """Held-out rows with the model's answers and the rewards' scores.

    :param passed: for each row, whether every graded reward passes its answer.
    :param met: for each row, how many of how many checks its answer meets.
    """

    rows: Sequence[Row]
    answers: Answers
    scores: Mapping[str, Scores]
    passed: Sequence[bool | None]
    met: Sequence[Met | None]
    adherence: Adherence


@dataclass(frozen=True)
class Retention:
    """How good the model is at all that a phase does not train.

    :param probe: of each probe row, its loss in nats and its tokens.
    :param entry_answers: the same of answers of the model at phase entry.
    :param tasks: per task, the score of each row.
    :param domain: the user's metrics, and the mean score by the domain's reward.
    :param by_row: the score of each of the guard's answers by the domain's reward.
    :param metric: the user's metric that ``guard.domain`` names.
    """

    probe: Sequence[tuple[float, int]]
    entry_answers: Sequence[tuple[float, int]]
    tasks: Mapping[str, Sequence[float | None]]
    domain: Mapping[str, float]
    by_row: Sequence[float | None]
    metric: float | None


def measure(
    context: PhaseContext,
    model: Model,
    asking: Asking,
    label: str,
    *,
    steps: int,
    guard_rows: int,
    entry_answers: Sequence[Encoded] = (),
    is_whole: bool = True,
    outside: Outside | None = None,
    losses: LossesOf | None = None,
) -> Measurement:
    """Measure ``model`` as it is now.

    :param label: of the progress bar.
    :param guard_rows: how many of the guard's rows are measured, the first ones.
    :param steps: of the phase; rewards judge before it and after it as they do at its end.
    :param entry_answers: answers of the model at phase entry, for the forward KL from it.
    :param is_whole: whether to measure also the rows that decide nothing, and the user's metrics.
    :param outside: answers in the place of the model.
    :param losses: as :func:`measure_losses` measured them already.
    """
    state = TrainerState(global_step=steps, max_steps=steps, epoch=1.0)
    ask = partial(
        answered_and_scored, context, model, asking, label, state, outside
    )  # every process answers its share
    rows = context.instructions.held_out
    guard = measure_adherence(context, ask, rows.guard[:guard_rows])
    reported = measure_adherence(context, ask, rows.report) if rows.report and is_whole else None
    unseen = measure_adherence(context, ask, rows.unseen) if rows.unseen and is_whole else None
    held_out = [answered for answered in (guard, reported, unseen) if answered is not None]
    wires = measure_honesty(held_out)
    if losses is None:
        losses = measure_losses(context, model, asking, entry_answers)
    retention = measure_retention(context, ask, guard, state, losses=losses, is_whole=is_whole)
    means = {name: _mean(scores) for name, scores in retention.tasks.items()}
    all_rows = [row for answered in held_out for row in answered.rows]
    all_answers = [answer for answered in held_out for answer in answered.answers.completions]
    all_passed = [passed for answered in held_out for passed in answered.passed]
    return Measurement(
        Measured(guard.adherence.strict, guard.adherence.soft, mean_loss(retention.probe)),
        reported.adherence if reported else None,
        unseen.adherence if unseen else None,
        wires,
        RowByRow(
            passed=list(guard.passed),
            met=list(guard.met),
            probe=list(retention.probe),
            entry_answers=list(retention.entry_answers),
            reported=list(reported.passed) if reported else [],
            unseen=list(unseen.passed) if unseen else [],
            tripped=list(map(bool, wires.by_answer)),
            domain=list(retention.by_row),
            domain_metric=retention.metric,
            tasks={name: list(scores) for name, scores in retention.tasks.items()},
        ),
        retention.domain,
        {name: mean for name, mean in means.items() if not math.isnan(mean)},
        guard.adherence.errors,
        unjudged(context.rewards, guard.scores, context.config.breaker.max_error_rate),
        counts_by_family(all_rows, all_passed),
        counts_by_constraint(all_rows, all_answers),
        _for_the_record(guard=guard, report=reported, unseen=unseen),
    )


def _for_the_record(**sets: AnsweredRows | None) -> list[Asked]:
    return bounded(
        [
            one
            for name, answered in sets.items()
            if answered is not None
            for one in asked(name, answered.rows, answered.answers.completions, answered.passed)
        ]
    )


@dataclass(frozen=True)
class MoreRows:
    """Further rows of the guard, measured at one moment."""

    passed: Sequence[bool | None]
    met: Sequence[Met | None]
    adherence: Adherence
    answered: Sequence[Asked] = ()


def measure_more(
    context: PhaseContext, model: Model, asking: Asking, label: str, *, steps: int, rows: slice
) -> MoreRows:
    """Have further rows of the guard answered; the model itself answers."""
    state = TrainerState(global_step=steps, max_steps=steps, epoch=1.0)
    graded = [reward for reward in context.rewards if reward.grading.graded]
    further = context.instructions.held_out.guard[rows]
    made, scores = answered_and_scored(context, model, asking, label, state, None, further, graded)
    passed = verdicts(context.rewards, scores)
    return MoreRows(
        passed,
        checks_met(context.rewards, further, scores),
        adherence(context.rewards, scores),
        asked("guard", further, made.completions, passed, first=rows.start or 0),
    )


def with_more(measured: Measurement, more: MoreRows) -> Measurement:
    """A measurement whose adherence is that of further rows too."""
    passed = [*measured.by_row.passed, *more.passed]
    judged = [row for row in passed if row is not None]
    earlier = len(judged) - more.adherence.rows
    soft = measured.guard.adherence_soft * earlier + more.adherence.soft * more.adherence.rows
    guard = replace(
        measured.guard,
        adherence_strict=sum(judged) / max(1, len(judged)),
        adherence_soft=soft / max(1, len(judged)),
    )
    by_row = replace(measured.by_row, passed=passed, met=[*measured.by_row.met, *more.met])
    errors = measured.errors + more.adherence.errors
    answered = bounded([*measured.answered, *more.answered])
    return replace(measured, guard=guard, by_row=by_row, errors=errors, answered=answered)


def measure_adherence(context: PhaseContext, ask: Ask, rows: Sequence[Row]) -> AnsweredRows:
    """Have held-out rows answered, and see which instructions are followed.

    :raises DataError: if no graded reward scores any of them.
    """
    graded = [reward for reward in context.rewards if reward.grading.graded]
    answers, scores = ask(rows, graded)
    measured = adherence(context.rewards, scores)
    if not measured.rows and not measured.errors:
        names = ", ".join(reward.__name__ for reward in graded)
        raise DataError(
            f"every graded reward ({names}) abstained from all {len(rows)} held-out "
            "instructions, so adherence cannot be measured; give instructions that they score"
        )
    return AnsweredRows(
        rows,
        answers,
        scores,
        verdicts(context.rewards, scores),
        checks_met(context.rewards, rows, scores),
        measured,
    )


def measure_retention(
    context: PhaseContext,
    ask: Ask,
    guard: AnsweredRows,
    state: TrainerState,
    *,
    losses: LossesOf,
    is_whole: bool,
) -> Retention:
    """Measure tasks and the user's own domain, beside the losses.

    :raises ConfigError: if ``guard.domain`` names a metric that there is not.
    """
    reward = context.domain_reward
    by_row = context.processes.main(lambda: _scores_of(reward, guard, state))
    tasks = {task.name: _known(ask(task.rows, [task.reward])[1]) for task in context.tasks}
    domain = dict(context.domain()) if context.domain is not None and is_whole else {}
    metric = _domain_metric(context, domain) if is_whole else None
    if reward is not None and any(value is not None for value in by_row):
        domain[reward.__name__] = _mean(by_row)
    return Retention(
        probe=losses[0],
        entry_answers=losses[1],
        tasks=tasks,
        domain=domain,
        by_row=by_row,
        metric=metric,
    )


def measure_losses(
    context: PhaseContext, model: Model, asking: Asking, entry_answers: Sequence[Encoded]
) -> LossesOf:
    """The losses of the probe's rows, and of answers of the model at phase entry."""
    batch_size = context.config.guard.batch_size
    with in_precision(model, asking.precision):
        probe = row_losses(model, context.probe, batch_size=batch_size)
        return probe, row_losses(model, entry_answers, batch_size=batch_size)


def measure_honesty(held_out: Sequence[AnsweredRows]) -> Tripped:
    """See which answers to held-out rows trip a wire: they please the checks alone."""
    return watch(
        [row for answered in held_out for row in answered.rows],
        [answer for answered in held_out for answer in answered.answers.completions],
    )


def answered_and_scored(  # noqa: PLR0917 the question comes last
    context: PhaseContext,
    model: Model,
    asking: Asking,
    label: str,
    state: TrainerState,
    outside: Outside | None,
    rows: Sequence[Row],
    rewards: Sequence[NamedReward],
) -> tuple[Answers, dict[str, Scores]]:
    """Greedy answers to ``rows`` and their scores; each process answers and scores its share."""
    processes = context.processes

    def work() -> tuple[Answers, dict[str, Scores]]:
        part = processes.share(rows)
        if not part:
            return Answers(), {}
        made = answers_to(
            model,
            asking,
            part,
            batch_size=context.config.guard.batch_size,
            progress=None if context.quiet else label,
            outside=outside,
        )
        return made, score(
            rewards, part, made.completions, completion_ids=made.ids, trainer_state=state
        )

    parts = processes.gather(work)
    names = list(parts[0][1])
    return (
        Answers(
            processes.joined([made.completions for made, _ in parts]),
            processes.joined([made.ids for made, _ in parts]),
        ),
        {name: processes.joined([scores.get(name, []) for _, scores in parts]) for name in names},
    )


def _scores_of(
    reward: NamedReward | None, answered: AnsweredRows, state: TrainerState
) -> list[float | None]:
    if reward is None:
        return []
    made = answered.answers
    return _known(
        score(
            [reward],
            answered.rows,
            made.completions,
            completion_ids=made.ids,
            trainer_state=state,
        )
    )


def _known(scores: Mapping[str, Scores]) -> list[float | None]:
    """The scores of the one reward; None where it has no opinion or failed."""
    [values] = scores.values()
    return [None if isinstance(value, Failed) else value for value in values]


def _mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else math.nan


def _domain_metric(context: PhaseContext, metrics: Mapping[str, float]) -> float | None:
    """The user's metric that ``guard.domain`` names.

    :raises ConfigError: if there is none of that name.
    """
    name = context.config.guard.domain_metric
    if name is None:
        return None
    if name not in metrics:
        has = (
            f"They are: {', '.join(metrics)}"
            if metrics
            else (
                "there are none: attach the callback to a Trainer with compute_metrics and an "
                "eval_dataset"
            )
        )
        raise ConfigError(
            f"guard.domain is 'metric:{name}', which is none of the metrics"
            f"{near_miss(name, metrics) or ':'} {has}"
        )
    return metrics[name]
