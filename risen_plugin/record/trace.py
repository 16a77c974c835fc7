"""Read what a run has recorded of itself into a Trace: measurements by step, and its phases.

Knows the files; what a scheduler would have made of them is the replay's business.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from risen_plugin.contracts import PhaseRecord
from risen_plugin.errors import DataError, near_path, one_line
from risen_plugin.progress import Series, finite, seconds_of

EVENTS = "events.jsonl"
_FOLDER = "risen"
_READ = ("log", "evaluation", "phase")


@dataclass(frozen=True)
class Trace:
    """The measurements of one run, in the order of its steps.

    :param source: where they were read, for messages.
    :param max_steps: optimizer steps of the outer run.
    :param train_losses: (step, loss) as logged.
    :param eval_metrics: (step, metrics) of its evaluations.
    :param phases: its RISEN phases and bursts, oldest first.
    :param clock: (step, seconds of fine-tuning up to it): phases and bursts are not counted.
    :param demonstrations: how many of them the run was given; None if that is not known.
    :param notes: what a reader should know of it, one line each.
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
        place = bisect.bisect_right(self.clock, step, key=lambda point: point[0])
        before = self.clock[place - 1] if place else (0, 0.0)
        if place < len(self.clock):
            after = self.clock[place]
            share = (step - before[0]) / (after[0] - before[0])
            return before[1] + share * (after[1] - before[1])
        return before[1] * step / before[0] if before[0] else 0.0


def read_trace(place: str | Path, *, max_steps: int | None = None) -> Trace:
    """The trace of a run.

    :param place: its output folder, the folder ``risen`` in it, or the file ``events.jsonl``.
    :param max_steps: steps of the outer run; what the run recorded, or its last step, if None.
    :raises DataError: if there is no such file, or a line of it is none of a record, by its number.
    """
    path = _file(Path(place))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(f"cannot read {path}: {reason}") from error
    notes: list[str] = []
    reading = _Reading(str(path))
    for number, event in _events(text, path, notes):
        reading.take(number, event)
    if not reading.count:
        raise DataError(
            f"{path} holds no measurements: no line is an event of {', '.join(_READ)}, so there is "
            "nothing to replay"
        )
    described = _described(path.parent / "run.json")
    recorded = _whole(described.get("max_steps")) or None
    whole = max_steps or max(recorded or 0, reading.last)
    if recorded is not None and not max_steps and reading.last < recorded:
        notes.append(f"the run was recorded up to step {reading.last} of {recorded}")
    if max_steps is not None and max_steps > reading.last:
        notes.append(f"nothing was measured after step {reading.last}")
    given = _whole((described.get("buffers") or {}).get("demonstrations_usable"))
    return replace(reading.trace(whole, notes), demonstrations=given)


def _file(place: Path) -> Path:
    for path in (place / _FOLDER / EVENTS, place / EVENTS, place):
        if path.is_file():
            return path
    if place.is_dir():
        raise DataError(
            f"'{place}' is no run: there is no {_FOLDER}/{EVENTS} in it; give a run's output "
            "folder, or an events.jsonl"
        )
    raise DataError(f"there is no trace '{place}'{near_path(place)}")


def _events(text: str, path: Path, notes: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                notes.append(f"line {number}, the last one, is cut off and was left out")
                return
            told = one_line(error)
            raise DataError(f"{path}, line {number} is no JSON: {told}") from error
        if not isinstance(event, Mapping) or not isinstance(event.get("event"), str):
            raise DataError(
                f"{path}, line {number} is no event: it is an object with 'event' and 'step'"
            )
        yield number, event


def _described(path: Path) -> Mapping[str, Any]:
    """What the run says of itself; nothing where that cannot be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


@dataclass
class _Reading:
    """Takes events one by one."""

    path: str
    count: int = 0
    last: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    evaluations: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    phases: list[PhaseRecord] = field(default_factory=list)
    clock: list[tuple[int, float]] = field(default_factory=list)
    in_phases_s: float = 0.0

    def take(self, number: int, event: Mapping[str, Any]) -> None:
        name = event["event"]
        if name not in (*_READ, "decision"):
            return
        where = f"{self.path}, line {number}: {name}"
        step = event.get("step")
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise DataError(f"{where} has the step {step!r}; it is a whole number from 0")
        if step < self.last:
            raise DataError(
                f"{where} goes back from step {self.last} to {step}; a record has one run, whose "
                "steps only rise"
            )
        self.last = step
        if name in _READ:
            self.count += 1
            getattr(self, f"_{name}")(where, step, event)
        time = finite(event.get("time"))
        if time is not None and step:
            spent = max(time - self.in_phases_s, self.clock[-1][1] if self.clock else 0.0)
            if self.clock and self.clock[-1][0] == step:
                self.clock.pop()
            self.clock.append((step, spent))

    def _log(self, where: str, step: int, event: Mapping[str, Any]) -> None:
        loss = event.get("loss")
        if loss is not None:
            self.losses.append((step, _number(f"{where} has the loss", loss)))

    def _evaluation(self, where: str, step: int, event: Mapping[str, Any]) -> None:
        metrics = event.get("metrics")
        if not isinstance(metrics, Mapping):
            raise DataError(f"{where} has no metrics; they are an object of names and numbers")
        numbers = {
            str(k): float(v)
            for k, v in metrics.items()
            if isinstance(v, int | float) and not isinstance(v, bool)
        }
        self.evaluations.append((step, numbers))

    def _phase(self, where: str, step: int, event: Mapping[str, Any]) -> None:
        kind, steps, metrics = event.get("kind"), event.get("steps"), event.get("metrics") or {}
        if kind not in ("fine_tune", "risen", "burst"):
            raise DataError(
                f"{where} is of the kind {kind!r}; there are fine_tune, risen and burst"
            )
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise DataError(f"{where} has {steps!r} steps; they are a whole number from 0")
        if not isinstance(metrics, Mapping):
            raise DataError(f"{where} has metrics that are no object of names and values")
        if kind == "fine_tune":
            return
        accepted = event.get("accepted")
        record = PhaseRecord(
            kind,
            steps,
            step,
            str(event.get("reason", "")),
            accepted if isinstance(accepted, bool) else None,
            metrics,
        )
        self.phases.append(record)
        self.in_phases_s += seconds_of(record)

    def trace(self, max_steps: int, notes: Iterable[str]) -> Trace:
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
        )


def _number(told: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{told} {value!r}; it is a number")
    return float(value)
