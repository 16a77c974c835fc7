"""Let one process at a time change a published bundle: its manifest, its adapters, its card.

Two that change it at once would each write the manifest without the other's change. A hidden file
in the bundle is locked meanwhile, and removed afterwards; the lock ends with its process, however
that ends. Reading needs no lock, since files appear whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from risen_plugin.errors import ExportError
from risen_plugin.kit.files import try_lock

_MARK = ".changing.lock"
_PATIENCE_S = 600.0  # adding an adapter takes seconds
_PAUSE_S = 0.1
_ours = threading.Lock()  # a lock of a file does not hold off the threads of its own process
_log = logging.getLogger("risen_plugin")  # whose lines the command line shows


@contextlib.contextmanager
def changing(root: Path, *, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Wait until nobody else changes the bundle at ``root``, and hold others off for a while.

    :raises ExportError: if somebody else has not finished after ``patience_s`` seconds.
    :raises OSError: if nothing can be written there.
    """
    end = time.monotonic() + patience_s
    if not _ours.acquire(timeout=patience_s):
        raise ExportError(_busy(root, patience_s))
    try:
        descriptor = _locked(root / _MARK)
        if descriptor is None:
            _log.warning("another process is changing %s; waiting for it", root)
        while descriptor is None:
            if time.monotonic() > end:
                raise ExportError(_busy(root, patience_s))
            time.sleep(_PAUSE_S)
            descriptor = _locked(root / _MARK)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (root / _MARK).unlink()
            os.close(descriptor)
    finally:
        _ours.release()


def _locked(mark: Path) -> int | None:
    """The descriptor of the file, locked; None while another process has it."""
    while True:
        descriptor = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        is_taken = not try_lock(descriptor)
        if not is_taken and _is_still(mark, descriptor):
            return descriptor
        os.close(descriptor)
        if is_taken:
            return None
        # What was opened is the file of one that has ended, and has removed it since.


def _is_still(mark: Path, descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(mark), os.fstat(descriptor))
    return False


def _busy(root: Path, patience_s: float) -> str:
    return (
        f"another command has been changing {root} for {patience_s:g} s; "
        "wait until it has ended, and try again"
    )
