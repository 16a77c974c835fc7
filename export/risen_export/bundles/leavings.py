"""Scratch folders of killed exports: remove them, and put back a bundle that one moved aside.

While a bundle is made, a hidden folder beside it, ``.OUT.xxxxxxxx``, holds what is being written. A
file in it is locked by the export; the lock ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from risen_export.bundles import manifest
from risen_plugin.errors import ExportError
from risen_plugin.kit.files import read_bounded, try_lock

NEW = "bundle"
OLD = "old"
_MARK = "export.lock"
_DAY_S = 86_400.0
_log = logging.getLogger("risen_plugin")  # whose lines the command line shows
_own: set[Path] = set()  # scratch folders of this process, whose locks do not hold it off itself


@contextlib.contextmanager
def scratch_beside(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out`` that is this process's, and is removed at the end."""
    parent = out.absolute().parent
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=parent))
    _own.add(scratch)
    descriptor = os.open(scratch / _MARK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try_lock(descriptor)
        mark = {"host": socket.gethostname(), "pid": os.getpid(), "begun": _begun(os.getpid())}
        os.write(descriptor, json.dumps(mark).encode())
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(descriptor)
        _own.discard(scratch)


def tidy(out: Path) -> None:
    """Remove what killed exports to ``out`` left, and put back a bundle that one had moved aside.

    Folders of exports that go on, here or elsewhere, are left alone.
    """
    for scratch in _left(out):
        with contextlib.suppress(OSError):
            old = scratch / OLD
            if not os.path.lexists(out) and _is_whole(old):
                os.rename(old, out)
                _log.warning(
                    "an export to %s was killed while it replaced the bundle there; "
                    "the bundle is put back as it was",
                    out,
                )
            if os.path.lexists(out) or not old.exists():
                shutil.rmtree(scratch, ignore_errors=True)


def moved_aside(out: Path) -> Path | None:
    """The bundle that a killed export to ``out`` had moved aside; None if there is none."""
    if os.path.lexists(out):
        return None
    return next((scratch / OLD for scratch in _left(out) if _is_whole(scratch / OLD)), None)


def _left(out: Path) -> list[Path]:
    """Scratch folders of exports to ``out`` whose process is gone; the newest first."""
    parent, name = out.absolute().parent, out.name
    try:
        beside = [path for path in parent.iterdir() if path.name.startswith(f".{name}.")]
    except OSError:
        return []
    found = [path for path in beside if path not in _own and _is_abandoned(path)]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _is_abandoned(scratch: Path) -> bool:
    """Whether a folder is an export's and its process has ended."""
    mark = scratch / _MARK
    if scratch.is_symlink() or not mark.is_file() or mark.is_symlink():
        return False
    try:
        descriptor = os.open(mark, os.O_RDWR)
    except OSError:
        return False
    try:
        if not try_lock(descriptor):
            return False
        written = _written(mark)
        age = time.time() - os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
    # Some file systems take every lock and hold none: there the process itself is looked for.
    if written.get("host") != socket.gethostname():
        return age > _DAY_S
    pid = written.get("pid")
    if not isinstance(pid, int) or pid <= 0 or not _is_running(pid):
        return True
    return written.get("begun") not in (None, _begun(pid))


def _written(mark: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bounded(mark, 4096))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # somebody else's
    return True


def _begun(pid: int) -> str | None:
    """When a process began, in the system's own units; None where that cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]


def _is_whole(folder: Path) -> bool:
    """Whether a bundle that was moved aside is one still; nobody has written in it since."""
    try:
        return not folder.is_symlink() and manifest.is_ours(folder)
    except ExportError:
        return False
