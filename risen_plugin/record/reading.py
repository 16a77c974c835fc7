"""Read a run's record into plain data: its phases, its events, what it is made of.

A run that is still going on, or has died in the middle of a line, is read as far as it got.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from risen_plugin.errors import DataError, near_path
from risen_plugin.record.lock import Holder, holder_of
from risen_plugin.record.run_record import EVENTS, FOLDER, read_events

Event = Mapping[str, Any]
_FINE_TUNE = "fine_tune"


@dataclass(frozen=True)
class Phase:
    """A RISEN phase, or a burst of fine-tuning, as far as it got.

    :param step: the outer run's step.
    :param begins: seconds of the run.
    :param ends: seconds of the run; None while it goes on.
    :param steps: optimizer steps taken in it; while it goes on, those it was given.
    :param accepted: None where nobody judged it, or not yet.
    :param metrics: as its record has them.
    :param logs: what TRL logged, one entry per logging step.
    :param is_cut: whether it stopped in the middle, since nobody goes on with it now.
    """

    number: int
    kind: str
    step: int
    begins: float
    ends: float | None
    steps: int
    reason: str
    accepted: bool | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    logs: Sequence[Mapping[str, float]] = ()
    is_cut: bool = False

    @property
    def name(self) -> str:
        return f"{'burst' if self.kind == 'burst' else 'phase'} {self.number}"

    @property
    def outcome(self) -> str:
        """``kept``, ``dropped``, ``running``, ``cut off`` or ``done``."""
        if self.ends is None:
            return "cut off" if self.is_cut else "running"
        return {True: "kept", False: "dropped", None: "done"}[self.accepted]

    def number_of(self, name: str) -> float | None:
        """A metric, if it was measured and is a number."""
        return as_number(self.metrics.get(name))


@dataclass(frozen=True)
class Run:
    """One run's record.

    :param folder: the ``risen`` folder.
    :param description: what ``run.json`` holds.
    :param holder: who is writing to it now; None if nobody is, as far as can be told.
    """

    folder: Path
    description: Mapping[str, Any]
    events: Sequence[Event]
    phases: Sequence[Phase]
    holder: Holder | None = None

    @property
    def name(self) -> str:
        return self.folder.absolute().parent.name or str(self.folder)

    @property
    def seconds(self) -> float:
        """How long the run has taken, up to its latest event."""
        return max((at(event) for event in self.events), default=0.0)

    @property
    def step(self) -> int:
        """The outer run's latest recorded step."""
        return max((int(event["step"]) for event in self.events), default=0)

    def named(self, *names: str) -> Iterator[Event]:
        """The events of these names, oldest first."""
        return (event for event in self.events if event["event"] in names)


def read_run(place: str | Path) -> Run:
    """The record in a run's output folder, or in its ``risen`` folder.

    :raises DataError: if there is none, or it cannot be read.
    """
    folder = _folder(Path(place))
    try:
        description = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        path = folder / EVENTS
        events = read_events(path) if path.is_file() else []
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the record in {folder}: {error}") from error
    if not isinstance(description, dict):
        raise DataError(f"cannot read the record in {folder}: run.json holds no object")
    phases = tuple(phases_of(events, lambda number: _logs(folder / f"phase-{number:03d}")))
    holder = holder_of(folder.parent)
    if phases and phases[-1].ends is None and holder is None:
        phases = (*phases[:-1], dataclasses.replace(phases[-1], is_cut=True))
    return Run(folder, description, events, phases, holder)


def _folder(place: Path) -> Path:
    for folder in (place / FOLDER, place):
        if (folder / "run.json").is_file():
            return folder
    if not place.exists():
        raise DataError(f"there is no run '{place}'{near_path(place, folders=True)}")
    raise DataError(
        f"'{place}' has no record: there is no {FOLDER}/run.json in it; give the output folder of "
        "a run with a RisenCallback"
    )


def phases_of(events: Sequence[Event], logs: Any = lambda number: ()) -> Iterator[Phase]:
    """The phases that the events tell of, oldest first; fine-tuning lies between them.

    :param logs: what TRL logged in the phase of a number.
    """
    begun: dict[tuple[str, int], Event] = {}
    for event in events:
        if event["event"] == "decision" and event.get("phase") not in (_FINE_TUNE, None):
            begun[str(event["phase"]), int(event.get("number") or 0)] = event
        if event["event"] == "phase" and event.get("kind") not in (_FINE_TUNE, None):
            kind, number = str(event["kind"]), int(event.get("number") or 0)
            first = begun.pop((kind, number), None)
            metrics = event.get("metrics") or {}
            ends = at(event)
            yield Phase(
                number,
                kind,
                int(event["step"]),
                at(first) if first else max(0.0, ends - _seconds(metrics)),
                ends,
                int(event.get("steps") or 0),
                str(event.get("reason") or ""),
                event.get("accepted"),
                metrics,
                logs(number) if kind == "risen" else (),
            )
    for (kind, number), first in begun.items():
        if first is _last_of(events, "decision", "phase"):
            steps = int(first.get("steps") or 0)
            reason = str(first.get("reason") or "")
            yield Phase(number, kind, int(first["step"]), at(first), None, steps, reason)


def at(event: Event) -> float:
    """When it happened, in seconds of the run."""
    return as_number(event.get("time")) or 0.0


def as_number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def _last_of(events: Sequence[Event], *names: str) -> Event | None:
    return next((event for event in reversed(events) if event["event"] in names), None)


def _seconds(metrics: Mapping[str, Any]) -> float:
    whole = as_number(metrics.get("seconds"))
    if whole is not None:
        return whole
    parts = ("guard_s", "enter_s", "reinforce_s", "leave_s")
    return sum(as_number(metrics.get(part)) or 0.0 for part in parts)


def _logs(folder: Path) -> Sequence[Mapping[str, float]]:
    try:
        logs = json.loads((folder / "phase.json").read_text(encoding="utf-8"))["logs"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return [log for log in logs if isinstance(log, dict)] if isinstance(logs, list) else ()
