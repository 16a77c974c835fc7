"""Write down what a run did, under ``output_dir/risen/``: plain JSON, replaced atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from risen_plugin.errors import RecordError

FOLDER = "risen"


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Tell in one line that ``place`` takes no more files: a full disk, or one taken away.

    :raises RecordError: with the reason, in place of what the operating system raised.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise RecordError(
            f"cannot write to {place}: {reason}; make room there, and resume from the newest "
            "checkpoint"
        ) from error


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(data, indent=1, default=str) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write to a temporary file beside ``path``, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


class Record:
    """The record of one run.

    :param output_dir: the outer Trainer's output folder.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.folder = Path(output_dir) / FOLDER

    def begin(self, description: Mapping[str, Any], *, step: int = 0) -> None:
        """Write ``run.json``.

        A new run in a used folder moves the old record aside. A run resumed at ``step`` goes on
        with the old record, without the events after that step: they will happen again.
        """
        if step:
            self._forget_after(step)
        elif self.folder.exists():
            number = 1
            while (aside := self.folder.with_name(f"{FOLDER}.{number}")).exists():
                number += 1
            self.folder.rename(aside)
        write_json(self.folder / "run.json", description)

    def _forget_after(self, step: int) -> None:
        path = self.folder / "events.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            replace_text(path, "".join(kept))

    def event(self, name: str, /, *, step: int, **values: Any) -> None:
        """Append one line to ``events.jsonl``; ``step`` is the outer run's."""
        line = json.dumps({"event": name, "step": step, **values}, default=str)
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def position(self) -> int:
        """Where ``events.jsonl`` ends now, to be cut there by a run that is resumed from here."""
        path = self.folder / "events.jsonl"
        return path.stat().st_size if path.is_file() else 0

    def cut(self, position: int) -> None:
        """Forget the events after ``position``: they will happen again."""
        if self.position() > position:
            os.truncate(self.folder / "events.jsonl", position)

    @property
    def pool(self) -> Path:
        """Where the curriculum's pool lies, if there is a curriculum."""
        return self.folder / "pool.sqlite"

    def phase_folder(self, number: int) -> Path:
        return self.folder / f"phase-{number:03d}"


def state_path(checkpoint: str | Path) -> Path:
    """Where a checkpoint keeps the callback's state."""
    return Path(checkpoint) / FOLDER / "state.json"


def read_state(checkpoint: str | Path) -> dict[str, Any] | None:
    """The callback's state in a checkpoint; None when it was written without the callback."""
    path = state_path(checkpoint)
    if not path.is_file():
        return None
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
