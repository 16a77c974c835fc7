"""What the folder of a run says: whether it can be had, what run it is of, and how that ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from risen_plugin.commands.train.run_config import read_run
from risen_plugin.errors import ConfigError, near_miss
from risen_plugin.kit.files import try_writing, write_json
from risen_plugin.record.lock import NAME as LOCK
from risen_plugin.record.lock import holder_of
from risen_plugin.record.made_of import differences
from risen_plugin.record.run_record import FOLDER, writing

_FILE = "finished.json"
_RUN = "run.yaml"
_OF_ONE_START = ("output",)


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that another run has, that takes no files, or that does not fit resume.

    :raises ConfigError: with what to do instead.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder with --output")
    holder = holder_of(folder)
    if holder is not None and holder.process != os.getpid():  # its own it takes over
        raise ConfigError(
            f"another run writes to {folder} ({holder}); wait until it has ended, or name another "
            "folder with --output"
        )
    has_run = any((folder / name).exists() for name in (_RUN, FOLDER))
    if has_run and not resume:
        raise ConfigError(
            f"{folder} holds a run; --resume goes on with it, --output names another folder"
        )
    if content_of(folder) and not has_run:
        raise ConfigError(f"{folder} holds other files and no run; name another with --output")
    if resume and not has_run:
        raise ConfigError(f"there is no run to resume in {folder}{_runs_beside(folder)}")
    try:
        try_writing(folder)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {folder}: {error.strerror}; name another folder with --output"
        ) from error


def content_of(folder: Path) -> list[Path]:
    """What a folder holds beside the lock of a run that is about to begin."""
    return [path for path in folder.glob("*") if path.name != LOCK] if folder.is_dir() else []


def empty(folder: Path) -> None:
    """Remove what a run has made that did not come to begin; the folder too, if that is all."""
    for path in content_of(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _runs_beside(folder: Path) -> str:
    """The near miss among the folders that hold runs."""
    beside = folder.parent.glob(f"*/{_RUN}") if folder.parent.is_dir() else ()
    return near_miss(folder.name, [place.parent.name for place in beside])


def check_unchanged(folder: Path, data: Mapping[str, Any], where: str, *, force: bool) -> list[str]:
    """Refuse to go on with a run that was begun with something else; with ``force``, give what.

    A run that has not ended compares its own risen section, where its parts are known.

    :raises ConfigError: naming each difference.
    """
    if not (folder / _RUN).is_file():
        return []
    before, now = _compared(read_run(folder / _RUN)), _compared(data)
    risen = [part.pop("risen", None) for part in (before, now)]
    changed = differences(before, {name: now.get(name) for name in before})
    if changed or ending_of(folder) is not None:
        changed += differences({"risen": risen[0]}, {"risen": risen[1]})
    if changed and not force:
        raise ConfigError(
            f"{where} is another run than the one in {folder}: {'; '.join(changed)}; resume with "
            f"{folder / _RUN}, name another folder with --output, or accept the change with --force"
        )
    return changed


def seed_of(folder: Path) -> int | None:
    """The seed of the run in ``folder``; None if it tells none."""
    if not (folder / _RUN).is_file():
        return None
    seed = read_run(folder / _RUN).get("seed")
    return seed if isinstance(seed, int) else None


def _compared(data: Mapping[str, Any]) -> dict[str, Any]:
    compared = {name: value for name, value in data.items() if name not in _OF_ONE_START}
    if isinstance(compared.get("risen"), Mapping):
        compared["risen"] = {k: v for k, v in compared["risen"].items() if k != "force"}
    return compared


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
