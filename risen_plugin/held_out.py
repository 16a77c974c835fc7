"""Measure a model on what it never trains on, before a phase and after it.

Adherence on held-out instructions, the probe's loss, tripped wires and the user's own metrics. What
the numbers mean for the phase is the guard's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainingArguments

from risen_plugin.buffers.buffers import Buffers
from risen_plugin.config import RisenConfig
from risen_plugin.contracts import Row
from risen_plugin.errors import DataError
from risen_plugin.guard import Honesty, Measured
from risen_plugin.instructions import Instructions
from risen_plugin.measure import Encoded, answers_to, probe_loss
from risen_plugin.outcomes import Scores
from risen_plugin.panel import Panel
from risen_plugin.processes import ALONE, Processes
from risen_plugin.scoring import (
    Adherence,
    NamedReward,
    PassRates,
    adherence,
    grade,
    unjudged,
    verdicts,
)
from risen_plugin.tripwires import Tripped, watch

DomainMetrics = Callable[[], Mapping[str, float]]


@dataclass
class Surroundings:
    """All that a phase needs of the run around it.

    :param domain: measures the user's own metrics, where the callback is attached to a Trainer.
    :param processes: those of the run; where there are several, all of them are in a phase.
    :param others: objects beside model and tokenizer that the clean room restores.
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
    buffers: Buffers
    domain: DomainMetrics | None = None
    others: Sequence[Any] = ()
    quiet: bool = False
    processes: Processes = ALONE


@dataclass(frozen=True)
class State:
    """What was measured at one end of a phase.

    :param errors: rows of the guard that a reward failed on.
    :param outage: one line, if there were too many of them to judge by.
    """

    guard: Measured
    reported: Adherence | None
    unseen: Adherence | None
    tripped: Tripped
    passed: Sequence[bool | None]
    domain: Mapping[str, float]
    errors: int = 0
    outage: str | None = None


def measure_state(around: Surroundings, model: Any, grpo: Mapping[str, Any], label: str) -> State:
    """Measure ``model`` as it stands; ``label`` is what the progress bar says."""
    config = around.config.guard

    seen: list[Row] = []
    told: list[Any] = []

    def measured(rows: Sequence[Row]) -> tuple[Adherence, dict[str, Scores]]:
        made, scores = _answered_and_graded(around, model, rows, grpo, label)
        seen.extend(rows)
        told.extend(made)
        found = adherence(around.rewards, scores)
        if not found.rows and not found.errors:
            names = ", ".join(reward.__name__ for reward in around.rewards if reward.graded)
            raise DataError(
                f"every graded reward ({names}) abstained from all {len(rows)} held-out "
                "instructions, so adherence cannot be measured; give instructions that they score"
            )
        return found, scores

    held_out, scores = measured(around.instructions.guard)
    outage = unjudged(around.rewards, scores, around.config.breaker.max_error_rate)
    loss = probe_loss(model, around.probe, batch_size=config.batch_size)
    reported = measured(around.instructions.report)[0] if around.instructions.report else None
    unseen = measured(around.instructions.unseen)[0] if around.instructions.unseen else None
    return State(
        Measured(held_out.strict, held_out.soft, loss),
        reported,
        unseen,
        watch(seen, told),
        verdicts(around.rewards, scores),
        around.domain() if around.domain is not None else {},
        held_out.errors,
        outage,
    )


def _answered_and_graded(
    around: Surroundings, model: Any, rows: Sequence[Row], grpo: Mapping[str, Any], label: str
) -> tuple[list[Any], dict[str, Scores]]:
    """Greedy answers to ``rows`` and their scores; each process answers and grades its share."""
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
        return made, grade(around.rewards, part, made)

    parts = processes.gather(work)
    names = list(parts[0][1])
    return (
        processes.joined([made for made, _ in parts]),
        {name: processes.joined([scores.get(name, []) for _, scores in parts]) for name in names},
    )


def honesty_of(before: State, after: State) -> Honesty:
    """What the gain is worth: on families never trained on, and by tripped wires."""
    gap = math.nan
    if before.reported and after.reported and before.unseen and after.unseen:
        gain = after.reported.strict - before.reported.strict
        gap = gain - (after.unseen.strict - before.unseen.strict)
    return Honesty(gap, after.tripped.rate - before.tripped.rate)


def metrics_of(before: State, after: State | None) -> dict[str, Any]:
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
    if after is not None:
        metrics["trip_wire_rate"] = after.tripped.rate
        metrics["trip_wires"] = dict(after.tripped.by_wire)
        honesty = asdict(honesty_of(before, after))
        metrics |= {name: value for name, value in honesty.items() if not math.isnan(value)}
    return metrics
