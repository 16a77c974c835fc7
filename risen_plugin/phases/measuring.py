"""Measure a model on what it never trains on, before a phase and after it.

Adherence on held-out instructions, the probe's loss, tripped wires and the user's own metrics. What
the numbers mean for the phase is the guard's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainingArguments

from risen_plugin.config import RisenConfig
from risen_plugin.constraints.counting import Count, counts_by_constraint, counts_by_family
from risen_plugin.contracts import Failed, Row
from risen_plugin.errors import ConfigError, DataError, near_miss
from risen_plugin.guard.changes import Changes, RowByRow, Task
from risen_plugin.guard.controllers import Controllers
from risen_plugin.guard.verdicts import Measured
from risen_plugin.instructions.supply import Instructions
from risen_plugin.kit.processes import ALONE, Processes
from risen_plugin.phases.leftovers.buffers import Buffers
from risen_plugin.record.run_record import Keeping
from risen_plugin.rewards.adherence import (
    Adherence,
    NamedReward,
    adherence,
    score,
    unjudged,
    verdicts,
)
from risen_plugin.rewards.panel import Panel
from risen_plugin.rewards.pass_rates import PassRates
from risen_plugin.rewards.scores import Scores
from risen_plugin.rewards.tripwires import Tripped, watch
from risen_plugin.training.answering import Encoded, answers_to
from risen_plugin.training.losses import mean_loss, row_losses

DomainMetrics = Callable[[], Mapping[str, float]]


@dataclass
class Surroundings:
    """All that a phase needs of the run around it.

    :param domain: measures the user's own metrics, where the callback is attached to a Trainer.
    :param processes: those of the run; where there are several, all of them are in a phase.
    :param others: objects beside model and tokenizer that the clean room restores.
    :param domain_reward: scores the guard's answers as the domain wants them; None for nobody.
    :param tasks: what else a phase should leave as good as it was.
    :param keeping: what becomes of a record that finds no room.
    :param told: gets (phase, GRPO step, numbers) whenever TRL logs.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    args: TrainingArguments
    config: RisenConfig
    rewards: Sequence[NamedReward]
    panel: Panel
    instructions: Instructions
    pass_rates: PassRates
    probe: Sequence[Encoded]
    controllers: Controllers
    buffers: Buffers
    domain: DomainMetrics | None = None
    others: Sequence[Any] = ()
    domain_reward: NamedReward | None = None
    tasks: Sequence[Task] = ()
    quiet: bool = False
    keeping: Keeping = field(default_factory=Keeping)
    told: Callable[[int, int, Mapping[str, float]], None] | None = None
    processes: Processes = ALONE


@dataclass(frozen=True)
class State:
    """What was measured at one end of a phase.

    :param by_row: the same row by row.
    :param tasks: the mean score of each task.
    :param errors: rows of the guard that a reward failed on.
    :param outage: one line, if there were too many of them to judge by.
    :param by_family: per family of all held-out rows, how many of how many answers passed.
    :param by_constraint: per constraint, how many of how many answers met it.
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


def measure_state(
    around: Surroundings,
    model: Any,
    grpo: Mapping[str, Any],
    label: str,
    *,
    entry_answers: Sequence[Encoded] = (),
    is_whole: bool = True,
) -> State:
    """Measure ``model`` as it stands; ``label`` is what the progress bar says.

    :param entry_answers: answers of the model at phase entry, for the forward KL from it.
    :param is_whole: whether to measure what decides nothing too, and the user's own metrics.
    """
    config = around.config.guard

    graded = [reward for reward in around.rewards if reward.graded]
    seen: list[Row] = []
    told: list[Any] = []
    passed: list[bool | None] = []

    def answered(
        rows: Sequence[Row], rewards: Sequence[NamedReward]
    ) -> tuple[list[Any], dict[str, Scores]]:
        return _answered_and_scored(around, model, rows, rewards, grpo=grpo, label=label)

    def measured(rows: Sequence[Row]) -> tuple[Adherence, dict[str, Scores]]:
        made, scores = answered(rows, graded)
        seen.extend(rows)
        told.extend(made)
        passed.extend(verdicts(around.rewards, scores))
        found = adherence(around.rewards, scores)
        if not found.rows and not found.errors:
            names = ", ".join(reward.__name__ for reward in around.rewards if reward.graded)
            raise DataError(
                f"every graded reward ({names}) abstained from all {len(rows)} held-out "
                "instructions, so adherence cannot be measured; give instructions that they score"
            )
        return found, scores

    rows = around.instructions
    held_out, scores = measured(rows.guard)
    in_domain = around.processes.main(
        lambda: _scores_of(around.domain_reward, rows.guard, told[: len(rows.guard)])
    )
    outage = unjudged(around.rewards, scores, around.config.breaker.max_error_rate)
    probe = row_losses(model, around.probe, batch_size=config.batch_size)
    further: dict[str, tuple[Adherence, dict[str, Scores]]] = {}
    for name, some in (("reported", rows.report), ("unseen", rows.unseen)):
        if some and is_whole:
            further[name] = measured(some)
    tasks = {task.name: _known(answered(task.rows, [task.reward])[1]) for task in around.tasks}
    domain = dict(around.domain()) if around.domain is not None and is_whole else {}
    metric = _domain_metric(around, domain) if is_whole else None
    if around.domain_reward is not None and any(value is not None for value in in_domain):
        domain[around.domain_reward.__name__] = _mean(in_domain)
    wires = watch(seen, told)
    by_row = RowByRow(
        passed=verdicts(around.rewards, scores),
        probe=probe,
        entry_answers=row_losses(model, entry_answers, batch_size=config.batch_size),
        reported=_verdicts(around, further.get("reported")),
        unseen=_verdicts(around, further.get("unseen")),
        tripped=list(map(bool, wires.by_answer)),
        domain=in_domain,
        domain_metric=metric,
        tasks=tasks,
    )
    return State(
        Measured(held_out.strict, held_out.soft, mean_loss(probe)),
        further["reported"][0] if "reported" in further else None,
        further["unseen"][0] if "unseen" in further else None,
        wires,
        by_row,
        domain,
        {name: mean for name, given in tasks.items() if not math.isnan(mean := _mean(given))},
        held_out.errors,
        outage,
        counts_by_family(seen, passed),
        counts_by_constraint(seen, told),
    )


def _verdicts(
    around: Surroundings, measured: tuple[Adherence, dict[str, Scores]] | None
) -> list[bool | None]:
    return [] if measured is None else verdicts(around.rewards, measured[1])


def _answered_and_scored(
    around: Surroundings,
    model: Any,
    rows: Sequence[Row],
    rewards: Sequence[NamedReward],
    *,
    grpo: Mapping[str, Any],
    label: str,
) -> tuple[list[Any], dict[str, Scores]]:
    """Greedy answers to ``rows`` and their scores; each process answers and scores its share."""
    processes = around.processes

    def work() -> tuple[list[Any], dict[str, Scores]]:
        part = processes.share(rows)
        if not part:
            return [], {}
        made = answers_to(
            model,
            around.tokenizer,
            part,
            max_new_tokens=grpo["max_completion_length"],
            batch_size=around.config.guard.batch_size,
            progress=None if around.quiet else label,
        )
        return made, score(rewards, part, made)

    parts = processes.gather(work)
    names = list(parts[0][1])
    return (
        processes.joined([made for made, _ in parts]),
        {name: processes.joined([scores.get(name, []) for _, scores in parts]) for name in names},
    )


def _scores_of(
    reward: NamedReward | None, rows: Sequence[Row], completions: Sequence[Any]
) -> list[float | None]:
    return [] if reward is None else _known(score([reward], rows, completions))


def _known(scores: Mapping[str, Scores]) -> list[float | None]:
    """The scores of the one reward; None where it has no opinion or failed."""
    [given] = scores.values()
    return [None if isinstance(value, Failed) else value for value in given]


def _mean(scores: Sequence[float | None]) -> float:
    given = [score for score in scores if score is not None]
    return sum(given) / len(given) if given else math.nan


def _domain_metric(around: Surroundings, metrics: Mapping[str, float]) -> float | None:
    """The user's metric that ``guard.domain`` names.

    :raises ConfigError: if there is none of that name.
    """
    name = around.config.guard.domain_metric
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


def metrics_of(before: State, after: State | None, changes: Changes | None) -> dict[str, Any]:
    """Both ends of a phase as its record has them; nothing after it if it was cut short."""
    metrics: dict[str, Any] = {}
    for when, state in (("before", before), ("after", after)):
        if state is None:
            continue
        metrics |= {f"guard/{k}": v for k, v in state.guard.as_metrics(f"_{when}").items()}
        metrics[f"guard/errors_{when}"] = state.errors
        if state.reported is not None:
            metrics[f"adherence_strict_{when}"] = state.reported.strict
            metrics[f"adherence_soft_{when}"] = state.reported.soft
        if state.unseen is not None:
            metrics[f"unseen/adherence_strict_{when}"] = state.unseen.strict
            metrics[f"unseen/adherence_soft_{when}"] = state.unseen.soft
        metrics[f"trip_wire_rate_{when}"] = state.tripped.rate
        metrics |= {f"domain/{name}_{when}": value for name, value in state.domain.items()}
        metrics |= {f"task/{name}_{when}": value for name, value in state.tasks.items()}
        for what, counts in (("families", state.by_family), ("constraints", state.by_constraint)):
            if counts:
                metrics[f"{what}_{when}"] = {name: list(count) for name, count in counts.items()}
    if after is not None:
        metrics["trip_wire_rate"] = after.tripped.rate
        metrics["trip_wires"] = dict(after.tripped.by_wire)
    if changes is not None:
        metrics |= {f"guard/{name}": value for name, value in changes.as_metrics().items()}
        for name in ("gap", "trip_wire_rise"):
            if name in changes.harms:
                metrics[name] = changes.harms[name].of.value
    return metrics
