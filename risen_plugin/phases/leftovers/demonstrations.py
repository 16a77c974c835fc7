"""Read what a person wrote: answers to instructions, to fine-tune on.

Rows with ``prompt`` and ``completion``, such as ``risen unsolved`` writes with the completion left
to fill in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from risen_plugin.contracts import Row, is_blank, text_of
from risen_plugin.errors import ConfigError, DataError, near_miss, near_path
from risen_plugin.kit.json_lines import read_lines


def load_demonstrations(given: str | Path | Iterable[Row] | None) -> list[Row]:
    """The demonstrations of a JSON Lines file, or of rows; those still to be written are left out.

    A completion may be text or chat messages; text that answers a chat becomes the assistant's
    message.

    :raises ConfigError: if the file cannot be read.
    :raises DataError: for a row that is no demonstration, naming its line.
    """
    if given is None:
        return []
    rows: list[Row] = []
    for where, row in _numbered(given):
        prompt, completion = _parts(row, where)
        if is_blank(text_of(completion)):
            continue
        if isinstance(completion, str) and not isinstance(prompt, str):
            completion = [{"role": "assistant", "content": completion}]
        elif not isinstance(completion, str) and isinstance(prompt, str):
            completion = text_of(completion)
        rows.append({"prompt": prompt, "completion": completion})
    return rows


def _numbered(given: str | Path | Iterable[Row]) -> Iterable[tuple[str, Any]]:
    if not isinstance(given, str | Path):
        yield from ((f"demonstration {index}", row) for index, row in enumerate(given))
        return
    try:
        yield from ((line.where, line.value()) for line in read_lines(given))
    except OSError as error:
        near = near_path(Path(given))
        raise ConfigError(
            f"cannot read the demonstrations {given}: {error.strerror}{near}"
        ) from error


def _parts(row: Any, where: str) -> tuple[Any, Any]:
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is a {type(row).__name__}, not a row with prompt and completion")
    for name in ("prompt", "completion"):
        if name not in row:
            raise DataError(
                f"{where} has no '{name}'{near_miss(name, map(str, row)) or '.'} It has: "
                f"{', '.join(map(str, row)) or 'nothing'}"
            )
    prompt = row["prompt"]
    completion = "" if row["completion"] is None else row["completion"]
    for name, value in (("prompt", prompt), ("completion", completion)):
        if not _is_text_or_chat(value):
            raise DataError(
                f"{where}: {name} is {value!r:.60}; it is a text, or a list of chat messages with "
                "role and content"
            )
    if is_blank(text_of(prompt)):
        raise DataError(f"{where}: prompt is empty")
    return prompt, completion


def _is_text_or_chat(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list | tuple) and all(
        isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in value
    )
