"""Checkpoints as files: whole or not at all, verified by hash, set aside where damaged.

A folder is whole if it has a manifest, written last, and every file that the manifest names is as
it was written. The Trainer writes its checkpoints in place, so each is announced before it is
written: the announcement alone marks one that a crash cut off. A checkpoint that nobody announced
and that has no manifest belongs to a run without RISEN and is never touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from risen_plugin.kit.files import MANIFEST, damage, publish, try_lock
from risen_plugin.record.run_record import FOLDER

STATE = "state.json"
_ANNOUNCEMENT = "saving.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_UNCHANGED = ("optimizer", "scheduler", "rng_state", "scaler")  # by a phase
_WEIGHTS = re.compile(r"(model|pytorch_model|adapter_model).*\.(safetensors|bin)(\.index\.json)?")


def is_ours(checkpoint: Path) -> bool:
    """Whether a checkpoint was completed by RISEN."""
    return (checkpoint / FOLDER / MANIFEST).is_file()


def lacks_optimizer(checkpoint: Path) -> bool:
    """Whether a checkpoint holds weights alone, as ``save_only_model`` leaves it.

    A Trainer that resumes from it begins optimizer and learning rate again, without a word.
    """
    return not all(any(checkpoint.glob(f"{part}.*")) for part in ("optimizer", "scheduler"))


def damage_of(checkpoint: Path) -> str | None:
    """The fault of a checkpoint that RISEN completed; None if it is whole."""
    return damage(checkpoint, checkpoint / FOLDER / MANIFEST)


class Checkpoints:
    """The Trainer's checkpoints in an output folder."""

    def __init__(self, output_dir: str | Path) -> None:
        self.folder = Path(output_dir)
        self._announcement = self.folder / FOLDER / _ANNOUNCEMENT
        self._lock: int | None = None
        self._step: int | None = None

    @classmethod
    def of(cls, output_dir: str | Path) -> Checkpoints:
        """The same object for a folder each time, since it holds the announcement's lock."""
        return _known.setdefault(Path(output_dir).absolute(), cls(output_dir))

    def folder_of(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def announce(self, step: int) -> None:
        """Say that a checkpoint is about to be written; an earlier one stays until it is whole."""
        self._announcement.parent.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = os.open(self._announcement, os.O_RDWR | os.O_CREAT, 0o644)
            try_lock(self._lock)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps({"step": step}).encode(), 0)
        os.fsync(self._lock)
        self._step = step
        checkpoint, earlier = self.folder_of(step), self._earlier(step)
        if checkpoint.is_dir() and not earlier.exists():
            checkpoint.rename(earlier)

    def withdraw(self) -> None:
        """Take back the announcement of a checkpoint that was not written, if there is one."""
        if self._step is not None:
            checkpoint, earlier = self.folder_of(self._step), self._earlier(self._step)
            if earlier.is_dir() and not checkpoint.exists():
                earlier.rename(checkpoint)
            self._end_announcement(self._step)

    def complete(self, step: int, state: Mapping[str, Any]) -> None:
        """Put RISEN's state and the manifest into a checkpoint that the Trainer has written."""
        checkpoint = self.folder_of(step)
        temporary = checkpoint / f".{FOLDER}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        files = {
            path.relative_to(checkpoint).as_posix(): path
            for path in checkpoint.rglob("*")
            if path.is_file() and path.relative_to(checkpoint).parts[0] != FOLDER
        }
        temporary.mkdir()
        text = json.dumps(state, indent=1, default=str) + "\n"
        (temporary / STATE).write_text(text, encoding="utf-8")
        publish(temporary, checkpoint / FOLDER, {**files, f"{FOLDER}/{STATE}": temporary / STATE})
        self._end_announcement(step)

    @contextmanager
    def rewriting(self, step: int, state: Mapping[str, Any]) -> Iterator[Path]:
        """A copy of a checkpoint without its weights, to get others and to take its place.

        It is exchanged at the end, so that a crash leaves the old one or the new one.
        """
        checkpoint = self.folder_of(step)
        temporary = self.folder / f".{checkpoint.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for path in checkpoint.rglob("*"):
            name = path.relative_to(checkpoint)
            if not path.is_file() or name.parts[0] == FOLDER or _WEIGHTS.fullmatch(path.name):
                continue
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            if path.name.startswith(_UNCHANGED):
                _link(path, temporary / name)
            else:
                shutil.copy2(path, temporary / name)
        try:
            yield temporary
            self.announce(step)
            temporary.rename(checkpoint)
            self.complete(step, state)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def mend(self) -> list[str]:
        """Set aside checkpoints that cannot be resumed from, so that the Trainer finds a whole one.

        :returns: one line for each checkpoint that was set aside.
        """
        lines: list[str] = []
        step = self._announced()
        if step is not None:
            checkpoint, earlier = self.folder_of(step), self._earlier(step)
            if checkpoint.is_dir() and (
                not is_ours(checkpoint) or damage_of(checkpoint) is not None
            ):
                aside = self.folder / f"incomplete-{checkpoint.name}"
                shutil.rmtree(aside, ignore_errors=True)
                checkpoint.rename(aside)
                lines.append(
                    f"{checkpoint} was not written to its end and is {aside.name} now{self._next()}"
                )
            if earlier.is_dir() and not checkpoint.exists():
                earlier.rename(checkpoint)
            self._end_announcement(step)
        for checkpoint in self.newest():
            reason = damage_of(checkpoint) if is_ours(checkpoint) else None
            if reason is None:
                break
            aside = self._aside(checkpoint, "damaged")
            checkpoint.rename(aside)
            lines.append(
                f"{checkpoint} is damaged ({reason}) and is {aside.name} now{self._next()}"
            )
        return lines

    def leave_after(self, step: int) -> list[str]:
        """Set aside RISEN's checkpoints of later steps; pool and record go back to ``step``.

        :returns: one line for each of them.
        """
        lines: list[str] = []
        for checkpoint in self.newest():
            if int(checkpoint.name.rpartition("-")[2]) > step and is_ours(checkpoint):
                aside = self._aside(checkpoint, "abandoned")
                checkpoint.rename(aside)
                lines.append(
                    f"{checkpoint} is later than what the run goes on from: {aside.name} now"
                )
        return lines

    def newest(self) -> list[Path]:
        """The checkpoints, newest first."""
        found = [
            (int(match.group(1)), path)
            for path in (self.folder.iterdir() if self.folder.is_dir() else ())
            if (match := _CHECKPOINT.fullmatch(path.name)) and path.is_dir()
        ]
        return [path for _, path in sorted(found, reverse=True)]

    # Inside

    def _earlier(self, step: int) -> Path:
        return self.folder / f".checkpoint-{step}.earlier"

    def _aside(self, checkpoint: Path, why: str) -> Path:
        number, aside = 1, self.folder / f"{why}-{checkpoint.name}"
        while aside.exists():
            number += 1
            aside = self.folder / f"{why}-{checkpoint.name}.{number}"
        return aside

    def _next(self) -> str:
        newest = self.newest()
        return f"; {newest[0].name} is the newest before it" if newest else ""

    def _announced(self) -> int | None:
        """The step whose checkpoint was announced and not completed; None if someone is at it."""
        try:
            lock = os.open(self._announcement, os.O_RDWR)
        except OSError:
            return None
        try:
            text = os.pread(lock, 1024, 0)
            return int(json.loads(text)["step"]) if try_lock(lock) else None
        except (ValueError, KeyError, TypeError):
            return None
        finally:
            os.close(lock)

    def _end_announcement(self, step: int) -> None:
        self._step = None
        self._announcement.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        shutil.rmtree(self._earlier(step), ignore_errors=True)


_known: dict[Path, Checkpoints] = {}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
