"""Ask a scheduler after each step of a recorded run for its decision. Pure.

Losses and evaluations are those of the run at their steps, and the n-th RISEN phase of the replay
makes the changes of the run's n-th; later ones change nothing. A record cannot show how another
order would have changed the measurements.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from risen_plugin.commands.simulate.assumed import COUNTED, measured
from risen_plugin.commands.simulate.layout import Stretch, stretches, totals
from risen_plugin.commands.simulate.trace import Trace
from risen_plugin.contracts import Decision, PhaseRecord, Progress, Scheduler
from risen_plugin.kit.jsonable import as_count
from risen_plugin.progress import BUFFERED, DEMONSTRATIONS, UNSOLVED, seconds_of
from risen_plugin.run.deciding import Decisions, decide, timeline

_T = TypeVar("_T")
_BUFFERS = {
    "unsolved": UNSOLVED,
    "buffered": BUFFERED,
    "demonstrations": DEMONSTRATIONS,
}
"""The sizes of the buffers: their names in a progress, and in the metrics of a phase."""


@dataclass(frozen=True)
class LoggedDecision:
    """A decision that a run would log.

    :param step: the outer run's step after which it was made.
    :param time: seconds of the replayed run.
    :param borrowed: the number of the recorded phase that its phase is assumed to equal; None if
        the run had no such phase.
    """

    step: int
    time: float
    decision: Decision
    borrowed: int | None = None


@dataclass(frozen=True)
class Replay:
    """The decisions and phases of a scheduler over a trace."""

    scheduler: str
    trace: Trace
    made: tuple[LoggedDecision, ...]
    phases: tuple[PhaseRecord, ...]

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The replayed run on its clock."""
        return stretches(self.trace, self.phases)

    @property
    def recorded(self) -> tuple[Stretch, ...]:
        """The recorded run on its clock."""
        return stretches(self.trace, self.trace.phases)

    def as_json(self) -> dict[str, Any]:
        """The replay as JSON values."""
        return {
            "scheduler": self.scheduler,
            "trace": self.trace.source,
            "max_steps": self.trace.max_steps,
            "notes": list(self.trace.notes),
            "decisions": [
                {
                    "step": made.step,
                    "time": round(made.time, 3),
                    **dataclasses.asdict(made.decision),
                    "measured_as_phase": made.borrowed,
                }
                for made in self.made
            ],
            "phases": [dataclasses.asdict(stretch) for stretch in self.stretches],
            "recorded_phases": [dataclasses.asdict(stretch) for stretch in self.recorded],
            "seconds": totals(self.stretches),
            "recorded_seconds": totals(self.recorded),
        }


def replay(trace: Trace, scheduler: Scheduler, label: str) -> Replay:
    """Run ``scheduler`` over ``trace``, asked after each step as a run asks it.

    The scheduler gets the measurements of a step one step later, since a Trainer logs and evaluates
    after asking it.

    :raises PluginError: naming the scheduler, if it raises or returns what is no decision.
    """
    past: list[PhaseRecord] = []
    made: list[LoggedDecision] = []
    news = Decisions()
    counted = dict.fromkeys(COUNTED, 0)
    spent = 0.0
    fullness = {**dict.fromkeys(_BUFFERS, 0), "demonstrations": trace.demonstrations or 0}
    losses, evaluations = _Growing(trace.train_losses), _Growing(trace.eval_metrics)
    for step in range(1, trace.max_steps + 1):
        time = trace.fine_tune_seconds(step) + spent
        progress = Progress(
            step=step,
            max_steps=trace.max_steps,
            phases=timeline(tuple(past), step),
            train_losses=losses.before(step),
            eval_metrics=evaluations.before(step),
            elapsed_s=time,
            rollouts=counted["rollouts"],
            tokens=counted["tokens"],
            unsolved=fullness["unsolved"],
            buffered=fullness["buffered"],
            demonstrations=fullness["demonstrations"],
        )
        decision = decide(scheduler, progress, label)
        is_news = news.is_news(decision)
        if decision.phase == "fine_tune":
            if is_news:
                made.append(LoggedDecision(step, time, decision))
            continue
        if (
            decision.phase == "burst"
            and trace.demonstrations is not None
            and not _has_rows(progress)
        ):
            continue  # as the run skips it
        record, number = measured(trace, past, decision, step)
        made.append(LoggedDecision(step, time, decision, number))
        if progress.phases[-1].steps:
            past.append(progress.phases[-1])
        past.append(record)
        spent += seconds_of(record)
        for name in COUNTED:
            counted[name] += as_count(record.metrics.get(name)) or 0
        for name, before in fullness.items():
            seen = as_count(record.metrics.get(_BUFFERS[name]))
            fullness[name] = before if seen is None else seen
    return Replay(
        label, trace, tuple(made), tuple(phase for phase in past if phase.kind != "fine_tune")
    )


def _has_rows(progress: Progress) -> bool:
    """Whether there are answers for a burst to fine-tune on."""
    return progress.buffered + progress.demonstrations > 0


class _Growing(Generic[_T]):
    """The entries of a series before a step, for steps that rise."""

    def __init__(self, series: tuple[tuple[int, _T], ...]) -> None:
        self.series = series
        self.seen: tuple[tuple[int, _T], ...] = ()

    def before(self, step: int) -> tuple[tuple[int, _T], ...]:
        count = len(self.seen)
        while count < len(self.series) and self.series[count][0] < step:
            count += 1
        if count > len(self.seen):
            self.seen = self.series[:count]
        return self.seen
