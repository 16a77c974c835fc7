"""Keep two runs out of one folder, by a lock that ends with the process that holds it.

A POSIX record lock on ``OUTPUT_DIR/risen.lock``: the kernel lets go of it when the process ends,
however that comes about, so that a killed run leaves nothing to clean up. The file's content says
who holds it. Where the system or the file system has no such locks, runs are not kept apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from risen_plugin.errors import RecordError
from risen_plugin.kit.files import HAS_LOCKS, try_lock

NAME = "risen.lock"


@dataclass(frozen=True)
class Holder:
    """The process that writes to a folder, as far as its lock says."""

    process: int | None = None
    machine: str | None = None
    since: str | None = None

    def __str__(self) -> str:
        if self.process is None:
            return "another process"
        where = "" if self.machine in (None, platform.node()) else f" on {self.machine}"
        return f"process {self.process}{where}, since {self.since}"


_taken: dict[Path, tuple[int, int]] = {}
"""Per lock file, the process that took it here and its descriptor.

Record locks belong to a process, and closing any descriptor of the file lets go of them: so a
process has one descriptor per file, and a run that failed here leaves it to the next one.
"""
_throughout: set[Path] = set()


def take(output_dir: Path) -> None:
    """Take the lock of ``output_dir``; a lock that this process holds already is taken over.

    :raises RecordError: naming who holds it.
    :raises OSError: if the file cannot be written.
    """
    if not HAS_LOCKS:
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    path = (output_dir / NAME).resolve()
    descriptor = _descriptor_of(path)
    while descriptor is None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not try_lock(descriptor):
            holder = _read(descriptor)
            os.close(descriptor)
            raise RecordError(
                f"another run writes to {output_dir} ({holder}); wait until it has ended, or "
                "choose another output_dir"
            )
        if not _is_at(descriptor, path):  # let go of and removed in between
            os.close(descriptor)
            descriptor = None
    _taken[path] = (os.getpid(), descriptor)
    content = {
        "process": os.getpid(),
        "machine": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (json.dumps(content) + "\n").encode(), 0)


@contextlib.contextmanager
def held(output_dir: Path) -> Iterator[None]:
    """Hold the lock of ``output_dir`` throughout, whoever takes it and lets go of it meanwhile.

    A folder that was made for the lock and is left empty goes with it.

    :raises RecordError: naming who holds it.
    :raises OSError: if the file cannot be written.
    """
    was_there = output_dir.exists()
    take(output_dir)
    path = (output_dir / NAME).resolve()
    _throughout.add(path)
    try:
        yield
    finally:
        _throughout.discard(path)
        release(output_dir)
        if not was_there:
            with contextlib.suppress(OSError):
                output_dir.rmdir()


def release(output_dir: Path) -> None:
    """Let go of the lock if this process holds it, and remove its file."""
    path = (output_dir / NAME).resolve()
    descriptor = _descriptor_of(path)
    if descriptor is None or path in _throughout:
        return
    del _taken[path]
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(descriptor)


def holder_of(output_dir: Path) -> Holder | None:
    """Who holds the lock now; None if nobody does, or nobody can tell."""
    path = (output_dir / NAME).resolve()
    held_here = _descriptor_of(path)
    if held_here is not None:
        return _read(held_here)
    if not HAS_LOCKS or not path.is_file():
        return None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if try_lock(descriptor) else _read(descriptor)
    finally:
        os.close(descriptor)


def _descriptor_of(path: Path) -> int | None:
    process, descriptor = _taken.get(path, (None, None))
    return descriptor if process == os.getpid() else None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _read(descriptor: int) -> Holder:
    """The holder that the open file names; to open it again and close it would end the lock."""
    try:
        content: Mapping[str, Any] = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(int(content["process"]), str(content["machine"]), str(content["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder()
