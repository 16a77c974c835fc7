"""Files and folders that appear whole or not at all, their SHA-256, and locks on files.

Each is written under a hidden name beside its path, and then renamed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from risen_plugin.errors import one_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MANIFEST = "manifest.json"
HAS_LOCKS = fcntl is not None
_FORMAT = 1  # of a manifest
_TAKEN = (errno.EACCES, errno.EAGAIN)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The hidden path of a file to write, which takes the place of ``path`` at the end.

    If anything fails, ``path`` is as it was and nothing lies beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        put(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def put(written: Path, path: Path) -> None:
    """Rename a file that is written to its end to ``path``, in place of one that is there."""
    os.replace(written, path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """As :func:`write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: object, *, ascii_only: bool = True) -> None:
    """As :func:`write_text`, for ``data`` as JSON; missing folders are made.

    :param ascii_only: escape every other letter, as half a surrogate pair in a text needs.
    """
    text = json.dumps(data, indent=1, ensure_ascii=ascii_only, default=str) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def sync(paths: Iterable[Path]) -> None:
    """Have the operating system put files on the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def try_writing(folder: Path) -> None:
    """Make the folder and a file in it, and leave nothing behind.

    :raises OSError: if that cannot be done; permissions alone do not show it.
    """
    missing = [ancestor for ancestor in (folder, *folder.parents) if not ancestor.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    finally:
        for ancestor in missing:
            ancestor.rmdir()


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """The hexadecimal SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def try_lock(descriptor: int) -> bool:
    """Take the POSIX record lock of an open file; False if another process has it.

    True also where the system or the file system has no such locks. The lock belongs to the
    process: it ends with it, and when the process closes any descriptor of the file.
    """
    if fcntl is None:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


# Folders


def manifest_of(files: Mapping[str, Path]) -> dict[str, Any]:
    """The manifest of ``files``, by their names in the folder that it is for."""
    entries = {
        name: {"size": path.stat().st_size, "sha256": sha256(path)}
        for name, path in sorted(files.items())
    }
    return {"format": _FORMAT, "files": entries}


def damage(folder: Path, manifest: Path | None = None) -> str | None:
    """Why a folder is not as its manifest says, in a few words; None if it is whole.

    :param manifest: its file, if that is not in the folder itself.
    """
    manifest = folder / MANIFEST if manifest is None else manifest
    try:
        files = json.loads(manifest.read_bytes())["files"]
        for name, entry in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["size"] or sha256(path) != entry["sha256"]:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return "it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{manifest.name} cannot be read: {one_line(error)}"
    return None


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """A folder to fill, which appears at ``target`` with a manifest, on the disk or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        publish(temporary, target, {path.name: path for path in temporary.iterdir()})
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def publish(folder: Path, target: Path, files: Mapping[str, Path]) -> None:
    """Write a manifest of ``files`` into ``folder``, and put that on the disk at ``target``."""
    (folder / MANIFEST).write_text(
        json.dumps(manifest_of(files), indent=1) + "\n", encoding="utf-8"
    )
    sync(path for path in folder.iterdir() if path.is_file())
    replace_folder(folder, target)


def replace_folder(folder: Path, target: Path, aside: Path | None = None) -> None:
    """Rename ``folder`` to ``target``; a folder there is moved aside first, and removed last.

    :param aside: the name that the old one has meanwhile; a hidden one beside it if None.
    :raises OSError: if it cannot be renamed; the old folder is back then.
    """
    aside = target.with_name(f".{target.name}.old") if aside is None else aside
    shutil.rmtree(aside, ignore_errors=True)
    is_there = target.exists()
    if is_there:
        os.rename(target, aside)
    try:
        os.rename(folder, target)
    except OSError:
        if is_there:
            os.rename(aside, target)
        raise
    if os.name == "posix":
        sync([target.parent])
    shutil.rmtree(aside, ignore_errors=True)
