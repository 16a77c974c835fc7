"""SHA-256 of many files at once, remembered until a file changes.

What is remembered lies in the user's cache folder, one small file for each large file, and never
in a bundle. It is a help and no more: what cannot be read or written there is computed again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from risen_plugin.kit.files import read_bounded, sha256, write_json

_SMALLEST = 1024 * 1024  # bytes; a smaller file is hashed sooner than its memory is found
_SETTLED_NS = 2_000_000_000  # a file younger than this may change within one tick of its clock
_MOST_THREADS = 8


def sha256_of(paths: Iterable[Path], *, remember: bool = True) -> dict[Path, str]:
    """The hexadecimal SHA-256 of each file; those of large files are remembered.

    A file counts as the same while its device, inode, size and times of change are.

    :param remember: False reads every file, whatever is remembered.
    :raises OSError: if a file cannot be read.
    """
    # hashlib lets other threads run while it works; the largest file begins first.
    chosen = sorted(dict.fromkeys(paths), key=lambda path: -path.stat().st_size)
    if not chosen:
        return {}
    with ThreadPoolExecutor(max_workers=min(len(chosen), _threads())) as pool:
        hashes = pool.map(_remembered if remember else sha256, chosen)
        return dict(zip(chosen, hashes, strict=True))


def _threads() -> int:
    with contextlib.suppress(AttributeError):
        return min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    return min(_MOST_THREADS, os.cpu_count() or 1)


def _remembered(path: Path) -> str:
    before = _signature(path)
    if before["size"] < _SMALLEST:
        return sha256(path)
    memory = _memory_of(before)
    found = _recall(memory, before)
    if found is not None:
        return found
    computed = sha256(path)
    settled = max(before["mtime_ns"], before["ctime_ns"]) + _SETTLED_NS < time.time_ns()
    if memory is not None and settled and _signature(path) == before:
        with contextlib.suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(memory, {**before, "sha256": computed})
    return computed


def _signature(path: Path) -> dict[str, int]:
    found = path.stat()
    return {
        "device": found.st_dev,
        "inode": found.st_ino,
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        # A program can set the time of change of the content, but not this one.
        "ctime_ns": found.st_ctime_ns,
    }


def _memory_of(signature: dict[str, int]) -> Path | None:
    """The file that remembers a file's hash; None where there is no cache folder.

    Its name is not the path but the inode: a bundle that is renamed when it is published is known.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home
        return None
    if not cache.is_absolute():
        return None
    return cache / "risen" / "hashes" / f"{signature['device']}-{signature['inode']}.json"


def _recall(memory: Path | None, signature: dict[str, int]) -> str | None:
    if memory is None:
        return None
    try:
        content = json.loads(read_bounded(memory, 4096))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    found = content.pop("sha256", None)
    if content != signature or not isinstance(found, str):
        return None
    return found if re.fullmatch("[0-9a-f]{64}", found) else None
