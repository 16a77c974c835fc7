"""Remember that a run has come to its end, and what it said then: ``finished.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from risen_plugin.record import write_json, writing

_FILE = "finished.json"


@dataclass(frozen=True)
class Ending:
    """What a run said when it ended, to be said again.

    :param kept: whether there is something to show for it; what decides over the exit code.
    """

    lines: Sequence[str]
    kept: bool


def ending_of(folder: Path) -> Ending | None:
    """How the run in ``folder`` ended; None if it has not."""
    try:
        told = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return Ending([str(line) for line in told["lines"]], bool(told["kept"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_ending(folder: Path, ending: Ending) -> None:
    """Write down that the run has ended.

    :raises RecordError: if that cannot be written.
    """
    with writing(folder):
        write_json(folder / _FILE, asdict(ending))


def forget_ending(folder: Path) -> None:
    """The run goes on after all."""
    (folder / _FILE).unlink(missing_ok=True)
