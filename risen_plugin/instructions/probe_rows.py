"""Read the rows whose loss is watched, and refuse those that no loss can be taken of.

Without a tokenizer: their tokens are ``measure``'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from risen_plugin.errors import ConfigError, DataError, near_path
from risen_plugin.kit.json_lines import read_lines


def load_probe(probe: Any, label: str = "the probe") -> list[Mapping[str, Any]]:
    """Rows from a JSON Lines path or from any sequence of mappings; ``label`` says what they are.

    :raises ConfigError: if the file cannot be read; ``DataError`` for a line that is not JSON.
    """
    if not isinstance(probe, str | Path):
        return list(probe)
    try:
        return [line.value() for line in read_lines(probe)]
    except OSError as error:
        near = near_path(Path(probe))
        raise ConfigError(f"cannot read {label} {probe}: {error.strerror}{near}") from error


def check_probe(probe: Any, most: int) -> None:
    """Check the first ``most`` rows of a file or of a sequence; an iterator is left unread.

    :raises ConfigError: if there is no row or the file cannot be read; ``DataError`` for a row.
    """
    if probe is None or not isinstance(probe, str | Path | Sequence):
        return
    rows = load_probe(probe)[:most]
    if not rows:
        raise ConfigError(
            "the probe has no rows; give it some, or leave it out to take the ones "
            "of the Trainer's eval_dataset"
        )
    for index, row in enumerate(rows):
        check_probe_row(row, index)


def check_probe_row(row: Any, index: int) -> None:
    """Refuse a row that has none of the known forms.

    :raises DataError: naming its columns.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"probe row {index} is a {type(row).__name__}, not a mapping of columns")
    if (
        "input_ids" in row
        or "messages" in row
        or {"prompt", "completion"} <= row.keys()
        or isinstance(row.get("text"), str)
    ):
        return
    raise DataError(
        f"probe row {index} has the columns {', '.join(map(str, row))}; a probe row has text, "
        "messages, prompt and completion, or input_ids"
    )
