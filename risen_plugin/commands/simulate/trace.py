"""A run's record as a Trace: its measurements by step, and its phases.

The record is read by ``risen_plugin.record``; the replay asks a scheduler about the trace.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from risen_plugin.contracts import PhaseRecord
from risen_plugin.errors import DataError
from risen_plugin.kit.jsonable import MOST_COUNTED
from risen_plugin.progress import Series, seconds_of
from risen_plugin.record.events import (
    DecisionEvent,
    EvaluationEvent,
    Event,
    LogEvent,
    PhaseEvent,
)
from risen_plugin.record.reading import read_log

_READ = (LogEvent, EvaluationEvent, PhaseEvent)
_MOST_STEPS = 10_000_000


@dataclass(frozen=True)
class Trace:
    """The measurements of one run, in the order of its steps.

    :param source: the file that they were read from, for messages.
    :param max_steps: optimizer steps of the outer run.
    :param train_losses: (step, loss) as logged.
    :param eval_metrics: (step, metrics) of its evaluations.
    :param phases: its RISEN phases and bursts, oldest first.
    :param clock: (step, seconds of fine-tuning up to it): phases and bursts are not counted.
    :param demonstrations: the number of demonstrations of the run; None if it is not known.
    :param notes: remarks for a reader, one line each.
    """

    source: str
    max_steps: int
    train_losses: tuple[tuple[int, float], ...] = ()
    eval_metrics: tuple[tuple[int, Mapping[str, float]], ...] = ()
    phases: tuple[PhaseRecord, ...] = ()
    clock: Series = ()
    notes: tuple[str, ...] = ()
    demonstrations: int | None = None

    def of_kind(self, kind: str) -> list[PhaseRecord]:
        """Its phases of one kind."""
        return [phase for phase in self.phases if phase.kind == kind]

    def fine_tune_seconds(self, step: int) -> float:
        """Seconds of fine-tuning up to ``step``; in between and beyond by the mean pace."""
        index = bisect.bisect_right(self.clock, step, key=lambda point: point[0])
        before = self.clock[index - 1] if index else (0, 0.0)
        if index < len(self.clock):
            after = self.clock[index]
            share = (step - before[0]) / (after[0] - before[0])
            return before[1] + share * (after[1] - before[1])
        return before[1] * step / before[0] if before[0] else 0.0


def read_trace(path: str | Path, *, max_steps: int | None = None) -> Trace:
    """The trace of a run.

    :param path: its output folder, the folder ``risen`` in it, or the file ``events.jsonl``.
    :param max_steps: steps of the outer run; the recorded number, or the last step, if None.
    :raises DataError: if there is no such file, or a line of it is no event, naming the line; or if
        the run has more steps than a replay can take.
    """
    log = read_log(path)
    notes: list[str] = []
    if log.cut_off is not None:
        notes.append(f"line {log.cut_off}, the last one, is cut off and was left out")
    building = _Building(str(log.path))
    for number, event in log.events:
        building.take(number, event)
    if not building.count:
        raise DataError(
            f"{log.path} holds no measurements: no line is an event of "
            f"{', '.join(kind.name for kind in _READ)}, so there is nothing to replay"
        )
    described = log.description
    recorded = _whole(described.get("max_steps")) or None
    whole = max_steps or max(recorded or 0, building.last)
    if whole > _MOST_STEPS:
        raise DataError(
            f"{log.path} is of a run of {whole:.4g} steps, and a replay takes up to "
            f"{_MOST_STEPS:,}; --max-steps sets their number"
        )
    if recorded is not None and not max_steps and building.last < recorded:
        notes.append(f"the run was recorded up to step {building.last} of {recorded}")
    if max_steps is not None and max_steps > building.last:
        notes.append(f"nothing was measured after step {building.last}")
    buffers = described.get("buffers")
    usable = buffers.get("demonstrations_usable") if isinstance(buffers, Mapping) else None
    return building.trace(whole, notes, _whole(usable))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= MOST_COUNTED else None


@dataclass
class _Building:
    """A trace that grows event by event."""

    path: str
    count: int = 0
    last: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    evaluations: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
    phases: list[PhaseRecord] = field(default_factory=list)
    clock: list[tuple[int, float]] = field(default_factory=list)
    in_phases_s: float = 0.0

    def take(self, number: int, event: Event) -> None:
        if not isinstance(event, (*_READ, DecisionEvent)):
            return
        if event.step < self.last:
            raise DataError(
                f"{self.path}, line {number}: {event.name} goes back from step {self.last} to "
                f"{event.step}; a record has one run, whose steps only rise"
            )
        self.last = event.step
        self.count += isinstance(event, _READ)
        if isinstance(event, LogEvent) and event.loss is not None:
            self.losses.append((event.step, event.loss))
        elif isinstance(event, EvaluationEvent):
            self.evaluations.append((event.step, event.metrics))
        elif isinstance(event, PhaseEvent) and event.kind != "fine_tune":
            self.phases.append(event.record)
            self.in_phases_s += seconds_of(event.record)
        if event.time is not None and event.step:
            spent = max(event.time - self.in_phases_s, self.clock[-1][1] if self.clock else 0.0)
            if self.clock and self.clock[-1][0] == event.step:
                self.clock.pop()
            self.clock.append((event.step, spent))

    def trace(self, max_steps: int, notes: Iterable[str], demonstrations: int | None) -> Trace:
        notes = [*notes]
        if not self.evaluations:
            notes.append("the run has no evaluations; what asks for them has to do without")
        if not self.clock:
            notes.append("the run has no times: fine-tuning takes none here")
        if not any(phase.kind == "risen" for phase in self.phases):
            notes.append(
                "the run has no RISEN phase: what one would have gained or taken is not known, and "
                "counts as nothing"
            )
        return Trace(
            self.path,
            max_steps,
            tuple(self.losses),
            tuple(self.evaluations),
            tuple(self.phases),
            tuple(self.clock),
            tuple(notes),
            demonstrations,
        )
