"""Record a run under ``output_dir/risen/``: plain JSON, replaced atomically.

One run at a time writes to a folder. A full disk loses a line and tears none.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from risen_plugin.errors import DataError, RecordError, one_line
from risen_plugin.kit.files import read_json, write_json, write_text
from risen_plugin.kit.json_lines import read_lines
from risen_plugin.record import lock

FOLDER = "risen"
DESCRIPTION = "run.json"
EVENTS = "events.jsonl"
PHASE = "phase.json"
FORMAT = 1
"""The format of a record; a reader refuses a newer one."""
_log = logging.getLogger("risen_plugin")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line that nothing can be written to ``path``: a full disk, or one taken away.

    :raises RecordError: with the reason, in place of the operating system's error.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise RecordError(
            f"cannot write to {path}: {reason}; make room there, and resume from the newest "
            "checkpoint"
        ) from error


class Tolerant:
    """Lets a file of the record be lost: the run goes on, and says so once.

    For files that a run can do without; those that a resumed run needs are written under
    :func:`writing`.

    ::

        with tolerant(folder):
            write_json(folder / PHASE, data)
    """

    def __init__(self) -> None:
        self.lost = 0

    @contextmanager
    def __call__(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError, RecordError) as error:
            self.lost += 1
            if self.lost == 1:
                reason = getattr(error, "strerror", None) or one_line(error)
                _log.warning(
                    "the record in %s has gaps from here on: %s; the training goes on. Make room "
                    "there to have the rest recorded",
                    path,
                    reason,
                )


class Record:
    """The record of one run.

    :param output_dir: the outer Trainer's output folder.
    :param clock: seconds since the run began, which each event is stamped with.
    """

    def __init__(self, output_dir: str | Path, clock: Callable[[], float] | None = None) -> None:
        self.output_dir = Path(output_dir)
        self.folder = self.output_dir / FOLDER
        began = time.monotonic()
        self.clock = clock or (lambda: time.monotonic() - began)
        self.tolerant = Tolerant()

    def begin(self, description: Mapping[str, Any], *, step: int = 0) -> None:
        """Write ``run.json``.

        A new run in a used folder moves the old record aside. A run resumed at ``step`` goes on
        with the old record, without the events after that step: they will happen again.

        :raises RecordError: if another run writes to the folder.
        """
        lock.take(self.output_dir)
        if step:
            self._forget_after(step)
        elif self.folder.exists():
            number = 1
            while (aside := self.folder.with_name(f"{FOLDER}.{number}")).exists():
                number += 1
            self.folder.rename(aside)
        write_json(self.folder / DESCRIPTION, description)

    def _forget_after(self, step: int) -> None:
        path = self.folder / EVENTS
        if path.is_file():
            earlier = [event for event in read_events(path) if event["step"] <= step]
            write_text(path, "".join(json.dumps(event) + "\n" for event in earlier))

    def event(self, name: str, /, *, step: int, **values: Any) -> None:
        """Append one line to ``events.jsonl``; ``step`` is the outer run's.

        A line that does not fit on the disk is taken back whole.

        :raises OSError: if it cannot be written.
        """
        stamped = {"event": name, "step": step, "time": round(self.clock(), 3), **values}
        line = (json.dumps(stamped, default=str) + "\n").encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        file = os.open(self.folder / EVENTS, flags, 0o644)
        try:
            end = os.fstat(file).st_size
            written = 0
            try:
                while written < len(line):
                    written += os.write(file, line[written:])
            except OSError:
                os.ftruncate(file, end)
                raise
        finally:
            os.close(file)

    def description(self) -> Mapping[str, Any]:
        """The content of ``run.json``; empty where there is none that can be read."""
        try:
            found = read_json(self.folder / DESCRIPTION)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def close(self) -> None:
        """Let another run have the folder."""
        lock.release(self.output_dir)

    def position(self) -> int:
        """The end of ``events.jsonl`` now, where a run that is resumed from here cuts it."""
        path = self.folder / EVENTS
        return path.stat().st_size if path.is_file() else 0

    def cut(self, position: int) -> None:
        """Remove the events after ``position``: they will happen again."""
        if self.position() > position:
            os.truncate(self.folder / EVENTS, position)

    @property
    def pool(self) -> Path:
        """The file of the curriculum's pool, if there is a curriculum."""
        return self.folder / "pool.sqlite"

    @property
    def rollout(self) -> Path:
        """The folder of what samples answers outside of torch, for as long as the run goes on."""
        return self.folder / "rollout"

    @property
    def early_rollout(self) -> Path:
        """The same before the record begins, which finds it there."""
        return self.output_dir / f".{FOLDER}-rollout"

    def phase_folder(self, number: int) -> Path:
        return self.folder / f"phase-{number:03d}"


def read_events(path: Path) -> list[dict[str, Any]]:
    """The lines of a record that are events, oldest first, as JSON objects.

    A line that is torn, as a crash may leave the last one, is no event.
    """
    events: list[dict[str, Any]] = []
    for line in read_lines(path):
        with suppress(DataError):
            data = line.value()
            if isinstance(data, dict) and isinstance(data.get("step"), int) and "event" in data:
                events.append(data)
    return events


def state_path(checkpoint: str | Path) -> Path:
    """The file of the callback's state in a checkpoint."""
    return Path(checkpoint) / FOLDER / "state.json"


def read_state(checkpoint: str | Path) -> dict[str, Any] | None:
    """The callback's state in a checkpoint; None when it was written without the callback."""
    path = state_path(checkpoint)
    if not path.is_file():
        return None
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
