"""The folder of a run: whether a run may use it, which run it holds, and how that run ended."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from risen_plugin.commands.train.run_config import read_run
from risen_plugin.errors import ConfigError, near_beside
from risen_plugin.kit.files import read_json, try_writing, write_json
from risen_plugin.record.description import differences
from risen_plugin.record.lock import NAME as LOCK
from risen_plugin.record.lock import holder_of
from risen_plugin.record.run_record import FOLDER, writing

_FILE = "finished.json"
_RUN = "run.yaml"
_OF_ONE_START = ("output",)


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that another run uses, that takes no files, or that does not fit ``resume``.

    :raises ConfigError: with what to do instead.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder with --output")
    holder = holder_of(folder)
    if holder is not None and holder.process != os.getpid():  # this process may go on
        raise ConfigError(
            f"another run writes to {folder} ({holder}); wait until it has ended, or name another "
            "folder with --output"
        )
    has_run = any((folder / name).exists() for name in (_RUN, FOLDER))
    if has_run and not resume:
        if ending_of(folder) is not None:
            raise ConfigError(
                f"{folder} holds a run that has ended; name another folder with --output"
            )
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
    """The entries of a folder, except the lock of a run that is about to begin."""
    return [path for path in folder.glob("*") if path.name != LOCK] if folder.is_dir() else []


def empty(folder: Path) -> None:
    """Remove all that a run wrote before it failed to begin, and the folder if it is then empty."""
    for path in content_of(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _runs_beside(folder: Path) -> str:
    """A hint that names the folder beside this one whose run was probably meant."""
    beside = folder.parent.glob(f"*/{_RUN}") if folder.parent.is_dir() else ()
    return near_beside(folder, [path.parent.name for path in beside])


def check_unchanged(folder: Path, data: Mapping[str, Any], where: str, *, force: bool) -> list[str]:
    """The differences between ``data`` and the run in the folder, which only ``force`` allows.

    The risen section of a run that has not ended is compared by the callback, which knows plugins.

    :raises ConfigError: naming each difference, unless forced.
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
    """The seed of the run in ``folder``; None if no seed is written there."""
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
    """The closing lines of a run, to be printed again.

    :param kept: whether a phase was kept.
    :param data: what the lines say, as ``--json`` prints it.
    """

    lines: Sequence[str]
    kept: bool
    data: Mapping[str, Any] = field(default_factory=dict)


def ending_of(folder: Path) -> Ending | None:
    """The ending of the run in ``folder``; None if it has not ended."""
    try:
        ending = read_json(folder / _FILE)
        lines = [str(line) for line in ending["lines"]]
        return Ending(lines, bool(ending["kept"]), dict(ending.get("data", {})))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_ending(folder: Path, ending: Ending) -> None:
    """Write ``finished.json``, which marks the run as ended.

    :raises RecordError: if that cannot be written.
    """
    with writing(folder):
        write_json(folder / _FILE, asdict(ending))


def remove_ending(folder: Path) -> None:
    """Delete ``finished.json``, since the run goes on."""
    (folder / _FILE).unlink(missing_ok=True)
