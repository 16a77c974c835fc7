"""Launches that follow one another as one run: their records end to end, in a folder of its own.

Where fine-tuning and phases are launches of their own, as under FSDP or DeepSpeed, each leaves its
own record. Here steps, seconds and numbers of phases go on from one to the next. A launch without
the callback has what its Trainer logged in place of a record.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from risen_plugin.errors import DataError, one_line
from risen_plugin.kit.files import read_json, write_json, write_text
from risen_plugin.kit.jsonable import as_number
from risen_plugin.record.held_out import HELD_OUT
from risen_plugin.record.lock import holder_of
from risen_plugin.record.reading import read_description, record_folder
from risen_plugin.record.run_record import DESCRIPTION, EVENTS, FOLDER, FORMAT, PHASE, read_events

TRAINER_STATE = "trainer_state.json"
_COUNTS = ("epoch", "step", "total_flos")
_FOLDERS = {"risen": "phase", "burst": "burst"}  # of phases by their kind


@dataclass(frozen=True)
class Launch:
    """One of the launches.

    :param folder: its record's; where it has none, the one with what its Trainer logged.
    :param events: as its ``events.jsonl`` has them.
    :param description: the content of its ``run.json``; empty without a record.
    """

    folder: Path
    events: Sequence[Mapping[str, Any]]
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """The outer run's latest step."""
        return max((event["step"] for event in self.events), default=0)

    @property
    def seconds(self) -> float:
        return max((as_number(event.get("time")) or 0.0 for event in self.events), default=0.0)

    def phases(self, kind: str) -> int:
        """The highest number of its phases of a kind, ``risen`` or ``burst``."""
        return max((_number(event) for event in self.events if _kind(event) == kind), default=0)


def read_launch(path: Path) -> Launch:
    """The launch whose output folder is ``path``.

    :raises DataError: if there is neither a record nor a Trainer's log, if it cannot be read, or if
        the launch still goes on.
    """
    try:
        folder = record_folder(path)
    except DataError as error:
        state = _trainer_state(path)
        if state is None:
            also = f", or one with a {TRAINER_STATE}" if path.is_dir() else ""
            raise DataError(f"{error}{also}") from error
        return Launch(state.parent, list(_logged(state)))
    if holder_of(folder.parent) is not None:
        raise DataError(f"'{path}' still goes on; join it when it has ended")
    description = read_description(folder)
    file = folder / EVENTS
    return Launch(folder, read_events(file) if file.is_file() else [], description)


@dataclass(frozen=True)
class _Before:
    """What went before a launch: outer steps, seconds, and phases of each kind."""

    steps: int = 0
    seconds: float = 0.0
    phases: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(_FOLDERS, 0))

    def and_then(self, launch: Launch) -> _Before:
        phases = {kind: count + launch.phases(kind) for kind, count in self.phases.items()}
        return _Before(self.steps + launch.steps, self.seconds + launch.seconds, phases)


def _in_turn(launches: Sequence[Launch]) -> Iterator[tuple[Launch, _Before]]:
    before = _Before()
    for launch in launches:
        yield launch, before
        before = before.and_then(launch)


def joined(launches: Sequence[Launch]) -> Iterator[dict[str, Any]]:
    """The events of all launches, each going on where the one before ended."""
    for launch, before in _in_turn(launches):
        for event in launch.events:
            moved = _at_step({**event, "step": event["step"] + before.steps}, before)
            if (at := as_number(event.get("time"))) is not None:
                moved["time"] = round(at + before.seconds, 3)
            if isinstance(event.get("number"), int):
                moved["number"] = event["number"] + before.phases[_kind(event)]
            yield moved


def _at_step(told: Mapping[str, Any], before: _Before) -> dict[str, Any]:
    """What is told of a phase, with the step of the whole at which it began."""
    at = told.get("at_step")
    return {**told, "at_step": at + before.steps} if isinstance(at, int) else dict(told)


def write_joined(launches: Sequence[Launch], target: Path) -> None:
    """Write the record of all launches into the folder ``target``, which has none yet.

    Its description is that of the latest launch with a record, and names all of them. Adapters stay
    where they are.

    :raises DataError: if there is something at ``target`` already, no launch has a record, or two
        have measured different held-out rows, since one's "before" says nothing of the other's
        "after".
    """
    recorded = [launch for launch in launches if launch.description]
    if not recorded:
        raise DataError("none of these folders has a record; one with a RISEN phase has")
    _check_rows(recorded)
    if target.exists():
        raise DataError(f"'{target}' is there already; name a folder that is not")
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    record = temporary / FOLDER
    try:
        described = {
            **recorded[-1].description,
            "format": FORMAT,
            "output_dir": str(target),
            "joined": [
                {"folder": str(one.folder), "steps": one.steps, "seconds": round(one.seconds, 3)}
                for one in launches
            ],
        }
        write_json(record / DESCRIPTION, described)
        lines = (json.dumps(event, default=str) + "\n" for event in joined(launches))
        write_text(record / EVENTS, "".join(lines))
        _copy_phases(launches, record)
        if (rows := recorded[-1].folder / HELD_OUT).is_file():
            shutil.copy2(rows, record / HELD_OUT)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _check_rows(launches: Sequence[Launch]) -> None:
    first, *others = launches
    for other in others:
        if _rows(first) != _rows(other):
            raise DataError(
                f"{other.folder.parent} measured other held-out rows than {first.folder.parent}, "
                "so that adherence does not compare; only launches with the same held-out rows, or "
                "the same generator, reserved families and seed, can be one run"
            )


def _rows(launch: Launch) -> object:
    hashes = launch.description.get("hashes")
    return hashes.get("held_out") if isinstance(hashes, dict) else None


def _copy_phases(launches: Sequence[Launch], record: Path) -> None:
    """The files of each phase, under its number in the whole."""
    for launch, before in _in_turn(launches):
        for kind, name in _FOLDERS.items():
            for number in range(1, launch.phases(kind) + 1):
                source = launch.folder / f"{name}-{number:03d}"
                folder = record / f"{name}-{number + before.phases[kind]:03d}"
                for path in (path for path in source.glob("*") if path.is_file()):
                    folder.mkdir(exist_ok=True)
                    if path.name == PHASE:
                        write_json(folder / PHASE, _at_step(_phase(path), before))
                    else:
                        shutil.copy2(path, folder / path.name)


def _phase(path: Path) -> Mapping[str, Any]:
    """:raises DataError: if it cannot be read."""
    try:
        told: object = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(told, dict):
        raise DataError(f"cannot read {path}: it is no JSON object")
    return told


def _kind(event: Mapping[str, Any]) -> str:
    is_burst = "burst" in (event.get("phase"), event.get("kind"))
    return "burst" if is_burst else "risen"


def _number(event: Mapping[str, Any]) -> int:
    """The number of the phase that an event is of; 0 where it is of none."""
    number: object = event.get("number")
    return number if isinstance(number, int) and event["event"] != "log" else 0


def _trainer_state(path: Path) -> Path | None:
    """What a Trainer logged: in the folder, or in the checkpoint of the latest step in it."""
    here = path / TRAINER_STATE
    if here.is_file():
        return here
    found = {
        int(state.parent.name.rpartition("-")[2]): state
        for state in path.glob(f"checkpoint-*/{TRAINER_STATE}")
        if state.parent.name.rpartition("-")[2].isdigit()
    }
    return found[max(found)] if found else None


def _logged(state: Path) -> Iterator[dict[str, Any]]:
    """The events of a Trainer's log. Its seconds are those of the whole, shared out by steps.

    :raises DataError: if it cannot be read.
    """
    try:
        logs = [log for log in read_json(state)["log_history"] if isinstance(log["step"], int)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {state}: {one_line(error)}") from error
    last = max((log["step"] for log in logs), default=0)
    whole = max((as_number(log.get("train_runtime")) or 0.0 for log in logs), default=0.0)
    for log in logs:
        numbers = {name: value for name, value in log.items() if name not in _COUNTS}
        when = {"step": log["step"], "time": round(whole * log["step"] / max(1, last), 3)}
        measured = {name: value for name, value in numbers.items() if name.startswith("eval_")}
        if measured:
            yield {"event": "evaluation", **when, "metrics": measured}
        elif "loss" in numbers:
            yield {"event": "log", **when, **numbers}
