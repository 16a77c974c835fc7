"""Read a Progress: series of measurements, seconds, gains. Pure, for schedulers and their replay.

The schedulers decide what the numbers mean for the next phase.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from risen_plugin.contracts import PhaseRecord, Progress
from risen_plugin.kit.jsonable import as_number, as_seconds

Series: TypeAlias = Sequence[tuple[int, float]]
"""(step of the outer run, value), in the order of the steps."""

EVAL_LOSS = "eval_loss"

# Names of metrics of a phase. Those that are measured twice end in _before and _after.
OF_THE_GUARD = "guard/"
ADHERENCE = f"{OF_THE_GUARD}adherence_strict"
ROWS = f"{OF_THE_GUARD}rows"
MOST_ROWS = f"{OF_THE_GUARD}most_rows"
SMALLEST_GAIN = f"{OF_THE_GUARD}smallest_gain"
CHECKS = f"{OF_THE_GUARD}checks_met"
FACTS_LOST = "facts_lost"
FACTS_KNOWN = f"{OF_THE_GUARD}facts_known"
LOST_FACTS = "lost_facts"
CHECKS_GAIN = "checks_gain"
STRENGTH = "strength"
STRENGTHS = "strengths"
PROBE_LOSS = f"{OF_THE_GUARD}probe_loss"
REPORTED_ADHERENCE = "adherence_strict"
REPORTED_SOFTLY = "adherence_soft"
UNSEEN_ADHERENCE = f"unseen/{REPORTED_ADHERENCE}"
UNSEEN_SOFTLY = f"unseen/{REPORTED_SOFTLY}"
OF_DOMAIN = "domain/"
OF_TASK = "task/"
OF_MENDING = "mending/"
TRIP_WIRE_RATE = "trip_wire_rate"
TRIP_WIRE_RISE = "trip_wire_rise"
TRIP_WIRES = "trip_wires"
GAP = "gap"
BUFFERED = "buffers/answers"
NEWLY_BUFFERED = "buffers/new_answers"
UNSOLVED = "buffers/unsolved"
DEMONSTRATIONS = "buffers/demonstrations"
VERDICT = "verdict"
LOOKS = "looks"
REWARD_ERRORS = "reward_errors/"
SECONDS = "seconds"
SECONDS_SAID = "seconds_said"
SECONDS_TAKEN = "seconds_taken"
GUARD_S = "guard_s"
ENTER_S = "enter_s"
REINFORCE_S = "reinforce_s"
LEAVE_S = "leave_s"
TIMED = (GUARD_S, ENTER_S, REINFORCE_S, LEAVE_S)
"""Seconds of the parts of a RISEN phase."""

finite = as_number  # the public name, for the schedulers of others


def risen_phases(progress: Progress) -> list[PhaseRecord]:
    """The RISEN phases so far, kept or dropped."""
    return [phase for phase in progress.phases if phase.kind == "risen"]


def last_risen_step(progress: Progress) -> int:
    """The outer run's step at the latest RISEN phase; 0 where there was none."""
    return max((phase.at_step for phase in risen_phases(progress)), default=0)


def evaluated(progress: Progress, metric: str | None) -> Series:
    """The values of a metric of the run's evaluations; those that are not finite are left out.

    :param metric: its name; None for ``eval_loss``, or where several sets are evaluated the loss
        of the first.
    """
    name = metric or loss_name(progress.eval_metrics)
    return [
        (step, metrics[name])
        for step, metrics in progress.eval_metrics
        if name in metrics and math.isfinite(metrics[name])
    ]


def loss_name(evaluations: Sequence[tuple[int, Mapping[str, float]]]) -> str:
    """The metric with the held-out loss in these evaluations: of the first set, if several."""
    names = [name for _, metrics in evaluations for name in metrics]
    losses = [name for name in names if name.startswith("eval_") and name.endswith("_loss")]
    return EVAL_LOSS if EVAL_LOSS in names or not losses else losses[0]


def train_loss_blocks(progress: Progress, size: int) -> Series:
    """The means of ``size`` losses each, with the step of the last; a remainder is left out."""
    losses = [(step, loss) for step, loss in progress.train_losses if math.isfinite(loss)]
    blocks = [losses[first : first + size] for first in range(0, len(losses) - size + 1, size)]
    return [(block[-1][0], sum(loss for _, loss in block) / size) for block in blocks]


@dataclass(frozen=True)
class Gain:
    """The change that a stretch of the run made.

    :param adherence: gain in strict adherence, a share of the guard's instructions.
    :param loss: by how much the held-out loss fell, in nats per token.
    :param seconds: wall-clock time of the stretch.
    """

    adherence: float = 0.0
    loss: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Gain) -> Gain:
        return Gain(
            self.adherence + other.adherence,
            self.loss + other.loss,
            self.seconds + other.seconds,
        )


def gain_of(phase: PhaseRecord) -> Gain:
    """The gain of a RISEN phase; that of a dropped one is 0 for its seconds."""
    seconds = seconds_of(phase)
    if not phase.accepted:
        return Gain(seconds=seconds)
    return Gain(
        adherence=_change(phase.metrics, ADHERENCE),
        loss=-_change(phase.metrics, PROBE_LOSS),
        seconds=seconds,
    )


def seconds_of(phase: PhaseRecord) -> float:
    """Wall-clock seconds of a RISEN phase or burst; 0.0 where none were recorded."""
    whole = as_seconds(phase.metrics.get(SECONDS))
    if whole is not None:
        return max(whole, 0.0)
    return sum(max(as_seconds(phase.metrics.get(name)) or 0.0, 0.0) for name in TIMED)


def fine_tune_seconds(progress: Progress) -> float:
    """Seconds that the outer run's own steps have taken, evaluating and saving included."""
    return max(progress.elapsed_s - sum(map(seconds_of, progress.phases)), 0.0)


def held_by_model(phase: PhaseRecord, name: str) -> float | None:
    """A measurement of the model after the phase: its entry's, if the phase was dropped."""
    return as_number(phase.metrics.get(f"{name}_{'after' if phase.accepted else 'before'}"))


def _change(metrics: Mapping[str, Any], name: str) -> float:
    before, after = (as_number(metrics.get(f"{name}_{when}")) for when in ("before", "after"))
    return 0.0 if before is None or after is None else after - before
