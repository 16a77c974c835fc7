"""Read the unsolved instructions of a run's folder, and write them for a person to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from risen_plugin.config import BuffersConfig
from risen_plugin.errors import RecordError
from risen_plugin.instructions.rows import key_of
from risen_plugin.kit.files import write_text
from risen_plugin.kit.jsonable import json_text
from risen_plugin.phases.leftovers.buffers import FILE, unsolved_in
from risen_plugin.phases.leftovers.findings import Attempted
from risen_plugin.phases.leftovers.journal import read_journal
from risen_plugin.phases.leftovers.mixing import load_demonstrations
from risen_plugin.record.reading import read_description, record_folder


def unsolved_of(run: Path, after: int | None, demonstrations: str | None) -> list[Attempted]:
    """The unsolved instructions of a run, those most often tried first.

    :param run: its output folder, or the ``risen`` folder in it.
    :param after: visits from which an instruction counts as unsolved; None takes the run's setting.
    :param demonstrations: a file of demonstrations; instructions that it answers are left out.
    :raises DataError: if there is no such run.
    """
    folder = record_folder(run)
    known = {key_of(row["prompt"]) for row in load_demonstrations(demonstrations)}
    path = folder / FILE
    lines = list(read_journal(path)) if path.exists() else []  # no phase has left anything yet
    least = after or _unsolved_after(folder)
    unsolved = [tried for tried in unsolved_in(lines, least) if tried.best.key not in known]
    return sorted(unsolved, key=lambda tried: -tried.visits)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON Lines, whole or not at all.

    :raises RecordError: if the file cannot be written, or exists and may hold demonstrations.
    """
    if path.exists():
        raise RecordError(
            f"{path} is there already, and somebody may have written into it; choose another file"
        )
    try:
        write_text(path, "".join(f"{json_text(row)}\n" for row in rows))
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error


def _unsolved_after(folder: Path) -> int:
    try:
        return int(read_description(folder)["buffers"]["unsolved_after"])
    except (ValueError, KeyError, TypeError):
        return BuffersConfig().unsolved_after
