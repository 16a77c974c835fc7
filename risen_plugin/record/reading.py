"""Read a run's record into plain data: its description, events and phases.

A run that is still going on, or has died in the middle of a line, is read as far as it got.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from risen_plugin.errors import DataError, near_path, one_line, typed_line
from risen_plugin.kit.files import read_json
from risen_plugin.kit.json_lines import read_lines
from risen_plugin.kit.jsonable import as_number
from risen_plugin.progress import seconds_of
from risen_plugin.record.answered import ANSWERS, Pair, pairs_in
from risen_plugin.record.events import DecisionEvent, Event, PhaseEvent, event_in
from risen_plugin.record.lock import Holder, holder_of
from risen_plugin.record.run_record import DESCRIPTION, EVENTS, FOLDER, FORMAT, PHASE

E = TypeVar("E", bound=Event)
_FINE_TUNE = "fine_tune"
_KINDS: Mapping[type, Sequence[str]] = {
    dict: ("environment", "hashes", "versions", "buffers", "model", "guard", "control"),
    list: ("rewards", "reserved"),
}
"""The values of ``run.json`` that a reader looks into."""


@dataclass(frozen=True)
class Phase:
    """A RISEN phase, or a burst of fine-tuning, as far as it got.

    :param step: the outer run's step.
    :param begins: seconds of the run.
    :param ends: seconds of the run; None while it goes on.
    :param steps: optimizer steps taken in it; while it goes on, those planned.
    :param accepted: None where nobody judged it, or not yet.
    :param metrics: as its record has them.
    :param logs: TRL's logs, one entry per logging step.
    :param parameters: what the scheduler chose for it.
    :param answers: to held-out rows, before it and after it.
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
    parameters: Mapping[str, Any] = field(default_factory=dict)
    answers: Sequence[Pair] = ()

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
    :param description: the content of ``run.json``.
    :param holder: who is writing to it now; None if nobody is, as far as the lock says.
    :param unread: what of it is damaged and was left out, one line each.
    """

    folder: Path
    description: Mapping[str, Any]
    events: Sequence[Event]
    phases: Sequence[Phase]
    holder: Holder | None = None
    unread: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.folder.absolute().parent.name or str(self.folder)

    @property
    def seconds(self) -> float:
        """How long the run has taken, up to its latest event."""
        return max((event.at for event in self.events), default=0.0)

    @property
    def step(self) -> int:
        """The outer run's latest recorded step."""
        return max((event.step for event in self.events), default=0)

    def of(self, kind: type[E]) -> Iterator[E]:
        """The events of one class, oldest first."""
        return (event for event in self.events if isinstance(event, kind))


def read_run(path: str | Path) -> Run:
    """The record in a run's output folder, or in its ``risen`` folder.

    Damage costs what is damaged, and is named in ``unread``.

    :raises DataError: if there is none, or its description cannot be read.
    """
    folder = record_folder(path)
    unread: list[str] = []
    description = _sound(read_description(folder), unread)
    events = _events(folder / EVENTS, unread)
    phases = tuple(
        phases_of(events, lambda number: _written(folder / f"phase-{number:03d}", unread))
    )
    holder = holder_of(folder.parent)
    if phases and phases[-1].ends is None and holder is None:
        phases = (*phases[:-1], dataclasses.replace(phases[-1], is_cut=True))
    return Run(folder, description, events, phases, holder, unread)


def _sound(description: Mapping[str, Any], unread: list[str]) -> Mapping[str, Any]:
    """The description without values that are not of the kind that a reader relies on."""
    sound = dict(description)
    for kind, names in _KINDS.items():
        for name in names:
            value = sound.get(name)
            if value is None or isinstance(value, kind):
                continue
            del sound[name]
            unread.append(f"{DESCRIPTION}: '{name}' is {value!r:.60}, and no {kind.__name__}")
    rewards = sound.get("rewards") or []
    if not all(isinstance(reward, dict) for reward in rewards):
        sound["rewards"] = [reward for reward in rewards if isinstance(reward, dict)]
        unread.append(f"{DESCRIPTION}: one of 'rewards' is no dict")
    return sound


def _events(path: Path, unread: list[str]) -> list[Event]:
    """The events that can be understood; a last line that is being written is passed over."""
    events: list[Event] = []
    wrong = []
    try:
        for line in read_lines(path):
            try:
                event = event_in(line)
            except DataError as error:
                if not line.is_cut_off:
                    wrong.append(str(error))
                continue
            if event is not None:
                events.append(event)
    except FileNotFoundError:
        return events  # nothing has happened yet
    except OSError as error:
        unread.append(f"{path}: {error.strerror}")
    if wrong:
        lines = "a line is" if len(wrong) == 1 else f"{len(wrong)} lines are"
        unread.append(f"{path}: {lines} left out; {wrong[0]}")
    return events


def record_folder(path: str | Path) -> Path:
    """The folder of a run's record, which is ``path`` or the ``risen`` folder in it.

    :raises DataError: if there is no record.
    """
    path = Path(path)
    for folder in (path / FOLDER, path):
        if (folder / DESCRIPTION).is_file():
            return folder
    if not path.exists():
        raise DataError(f"there is no run '{path}'{near_path(path, folders=True)}")
    inside = sorted(path.glob(f"*/{FOLDER}/{DESCRIPTION}"))
    hint = (
        f"did you mean '{inside[0].parent.parent}'?"
        if inside
        else "give the output folder of a run with a RisenCallback"
    )
    raise DataError(f"'{path}' has no record: there is no {FOLDER}/{DESCRIPTION} in it; {hint}")


@dataclass(frozen=True)
class EventLog:
    """The events of one run, each checked and with the number of its line.

    :param path: the file that holds them.
    :param cut_off: the number of the last line if it is being written, or its writer died.
    :param description: the content of ``run.json``; empty where there is none beside the file.
    """

    path: Path
    events: Sequence[tuple[int, Event]]
    cut_off: int | None
    description: Mapping[str, Any]


def read_log(path: str | Path) -> EventLog:
    """The events of a run in its output folder, its ``risen`` folder, or the file of them.

    :raises DataError: if there is no such file, or a line of it is no event, naming the line.
    """
    file = _log_file(Path(path))
    events: list[tuple[int, Event]] = []
    cut_off: int | None = None
    try:
        for line in read_lines(file):
            try:
                event = event_in(line)
            except DataError:
                if not (line.is_cut_off and line.is_text):
                    raise
                cut_off = line.number
            else:
                if event is not None:
                    events.append((line.number, event))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    folder = file.parent
    description = read_description(folder) if (folder / DESCRIPTION).is_file() else {}
    return EventLog(file, events, cut_off, description)


def _log_file(path: Path) -> Path:
    for file in (path / FOLDER / EVENTS, path / EVENTS, path):
        if file.is_file():
            return file
    if path.is_dir():
        raise DataError(
            f"'{path}' is no run: there is no {FOLDER}/{EVENTS} in it; give a run's output "
            f"folder, or an {EVENTS}"
        )
    raise DataError(f"there is no trace '{path}'{near_path(path)}")


def read_description(folder: Path) -> Mapping[str, Any]:
    """The content of ``run.json`` in the folder of a record.

    :raises DataError: if it cannot be read, or a newer release wrote it.
    """
    try:
        description = read_json(folder / DESCRIPTION)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the record in {folder}: {one_line(error)}") from error
    if not isinstance(description, dict):
        raise DataError(f"cannot read the record in {folder}: {DESCRIPTION} holds no object")
    written = description.get("format", FORMAT)
    if not isinstance(written, int) or written > FORMAT:
        raise DataError(
            f"the record in {folder} has format {written}, and this release reads {FORMAT}; "
            f"install the release that wrote it: risen-plugin {description.get('risen_plugin')}"
        )
    return description


def phases_of(events: Sequence[Event], written: Callable[[int], _Written]) -> Iterator[Phase]:
    """The phases in the events, oldest first; fine-tuning lies between them.

    :param written: the file of the phase of a number.
    """
    begun: dict[tuple[str, int], DecisionEvent] = {}
    latest: Event | None = None
    for event in events:
        if isinstance(event, DecisionEvent):
            latest = event
            if event.phase not in (_FINE_TUNE, None):
                begun[str(event.phase), event.number] = event
        elif isinstance(event, PhaseEvent):
            latest = event
            if event.kind != _FINE_TUNE:
                first = begun.pop((event.kind, event.number), None)
                yield _ended(event, first, written)
    for first in begun.values():
        if first is latest:
            kind = str(first.phase)
            yield Phase(first.number, kind, first.step, first.at, None, first.steps, first.reason)


def _ended(
    event: PhaseEvent,
    first: DecisionEvent | None,
    written: Callable[[int], _Written],
) -> Phase:
    file = written(event.number) if event.kind == "risen" else _Written()
    return Phase(
        event.number,
        event.kind,
        event.step,
        first.at if first else max(0.0, event.at - seconds_of(event.record)),
        event.at,
        event.steps,
        event.reason,
        event.accepted,
        event.metrics,
        file.logs,
        parameters=event.parameters,
        answers=file.answers,
    )


@dataclass(frozen=True)
class _Written:
    """What the file of a phase holds beside its event."""

    logs: Sequence[Mapping[str, float]] = ()
    answers: Sequence[Pair] = ()


def _written(folder: Path, unread: list[str]) -> _Written:
    try:
        data = read_json(folder / PHASE)
        logs, answers = data["logs"], data.get(ANSWERS)
    except FileNotFoundError:
        return _Written()
    except (OSError, ValueError, KeyError, TypeError) as error:
        unread.append(f"{folder / PHASE}: {getattr(error, 'strerror', None) or typed_line(error)}")
        return _Written()
    sound = [log for log in logs if isinstance(log, dict)] if isinstance(logs, list) else ()
    return _Written(sound, pairs_in(answers))
