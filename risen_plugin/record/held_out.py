"""The held-out rows of a run, in its record: ``risen/held_out.jsonl``.

So that a finished model can be measured on them again, by whoever has the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_plugin.contracts import Row
from risen_plugin.errors import DataError
from risen_plugin.kit.files import write_text
from risen_plugin.kit.json_lines import read_lines
from risen_plugin.kit.jsonable import plain

HELD_OUT = "held_out.jsonl"
SETS = ("guard", "report", "unseen")
"""What the rows were set apart for, in the order of the file."""


@dataclass(frozen=True)
class HeldOutRows:
    """The rows that a record holds.

    :param rows: by the name of their set, of :data:`SETS`.
    :param left_out: how many rows more there were, which are no JSON.
    """

    rows: Mapping[str, Sequence[Row]]
    left_out: int = 0


def write_held_out(folder: Path, sets: Mapping[str, Sequence[Row]]) -> None:
    """Write the rows, one line each; in place of a row that is no JSON a line says why."""
    lines = [_line(name, row) for name, rows in sets.items() for row in rows]
    write_text(folder / HELD_OUT, "".join(json.dumps(line) + "\n" for line in lines))


def _line(name: str, row: Row) -> dict[str, Any]:
    try:
        return {"set": name, "row": plain(row, "the row")}
    except TypeError as error:
        return {"set": name, "left_out": str(error)}


def read_held_out(folder: Path) -> HeldOutRows | None:
    """The held-out rows in the folder of a record; None if an earlier release wrote it.

    :raises DataError: if the file cannot be read, naming the line.
    """
    path = folder / HELD_OUT
    if not path.is_file():
        return None
    rows: dict[str, list[Row]] = {name: [] for name in SETS}
    left_out = 0
    try:
        for line in read_lines(path):
            value = line.value()
            if isinstance(value, dict) and "left_out" in value:
                left_out += 1
                continue
            row = value.get("row") if isinstance(value, dict) else None
            if not isinstance(row, dict) or value.get("set") not in SETS:
                raise DataError(f"{line.where} is no held-out row of a run")
            rows[value["set"]].append(row)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return HeldOutRows(rows, left_out)
