"""The files of a run that is new: a commented RUN.yaml, and rows to try it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from risen_plugin.commands.new.filling import filled

_ROWS = 120
_OF_DATA = ("prompt", "completion")
_OF_INSTRUCTIONS = ("prompt", "instruction_id_list", "kwargs")


def run_files(
    file: Path, *, model: str, data: str | None, instructions: str | None
) -> dict[Path, str]:
    """The text of RUN.yaml and of each file of rows that is not given.

    :param data: a file of rows to fine-tune on; None for rows of the embedded model's order desk.
    :param instructions: likewise a file of instructions with constraints.
    """
    files: dict[Path, str] = {}
    if data is None:
        data = str(file.with_name("train.jsonl"))
        files[Path(data)] = _lines(1, _OF_DATA)
    if instructions is None:
        instructions = str(file.with_name("instructions.jsonl"))
        files[Path(instructions)] = _lines(2, _OF_INSTRUCTIONS)
    words = {
        "model": json.dumps(model, ensure_ascii=False),  # as YAML reads any text
        "data": json.dumps(data, ensure_ascii=False),
        "instructions": json.dumps(instructions, ensure_ascii=False),
        "file": file,
        "output": json.dumps(f"out/{file.stem}", ensure_ascii=False),
    }
    return {file: filled("run.yaml", words), **files}


def _lines(seed: int, columns: tuple[str, ...]) -> str:
    """JSON Lines of the order desk, those with constraints alone where they are asked for."""
    from risen_plugin.embedded import orders

    drawn: list[dict[str, Any]] = orders.draw(_ROWS, seed)
    rows = [{name: row[name] for name in columns} for row in drawn]
    return "".join(
        f"{json.dumps(row, ensure_ascii=False)}\n"
        for row in rows
        if row.get("instruction_id_list", True)
    )
