"""Files and folders that appear whole or not at all, their SHA-256, and locks on files.

Each is written under a hidden name beside its path, and then renamed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
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
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSALS = (
    *_FULL,
    *(errno.ENAMETOOLONG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP),
    *(errno.EMFILE, errno.ENFILE, errno.ENOTDIR, errno.EISDIR),
)
_CUT_OFF = re.compile(  # how torch and numpy tell that a disk is full
    r"inline_container\.cc.* unexpected pos \d+ vs \d+|: iostream error"
    r"|^\d+ requested and \d+ written$"
)
_LONGEST_PATH = 300  # characters that a message shows


def check_ordinary(path: Path) -> None:
    """Refuse what has no end or would wait for ever: a device, or a pipe that nobody writes to.

    A pipe of the shell, such as ``<(command)`` and ``/dev/stdin``, is fine.

    :raises OSError: with the reason, also if there is nothing there.
    """
    mode = os.stat(path).st_mode
    is_of_the_shell = path.parts[:2] in (("/", "dev"), ("/", "proc"))
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode):
        raise OSError(errno.EINVAL, "it is a device and no file", str(path))
    if stat.S_ISFIFO(mode) and not is_of_the_shell:
        raise OSError(errno.EINVAL, "it is a pipe and no file", str(path))


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a file of at most so many bytes.

    :raises OSError: with the reason, if it is larger, no ordinary file or cannot be read.
    """
    check_ordinary(path)
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most} bytes", str(path))
    return data


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    :raises OSError: if it is no ordinary file or cannot be read.
    :raises ValueError: if it holds no JSON in UTF-8, or lists in lists without end.
    """
    check_ordinary(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def reason_of_the_machine(error: BaseException) -> str | None:
    """A line about a file that the machine refuses to read or write; None for any other error.

    A full disk, a path that is too long, a right that is missing: nobody's bug, wherever it shows.
    """
    if isinstance(error, ValueError) and one_line(error).startswith("embedded null"):
        return "a path holds the character NUL, which no path can"
    number = number_of(error)
    if number not in _REFUSALS:
        return None
    named = getattr(error, "filename", None)
    place = "" if named is None else f" '{str(named)[:_LONGEST_PATH]}'"
    what = os.strerror(number)
    if number in _FULL:
        return f"cannot write{place}: {what}; make room there, or choose another place"
    return f"cannot read or write{place}: {what}"


def number_of(error: BaseException) -> int | None:
    """The system's number of an error (``errno``); None where there is none.

    safetensors and torch raise errors of their own for a full disk, with the system's text in them;
    ``torch.save`` and numpy's ``tofile`` one without it.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if not isinstance(error, OSError | RuntimeError | _safetensors_error()):
        return None
    text = one_line(error)
    if isinstance(error, OSError | RuntimeError) and _CUT_OFF.search(text):
        return errno.ENOSPC
    return next((code for code in _REFUSALS if os.strerror(code) in text), None)


def _safetensors_error() -> type[BaseException]:
    """The error of safetensors where that is loaded."""
    return getattr(sys.modules.get("safetensors"), "SafetensorError", OSError)


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
    """Rename a file that is written to its end to ``path``, in place of one that is there.

    :raises OSError: if what is there is no ordinary file: a device, a pipe, a folder, a link.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, "what is there is no ordinary file", str(path))
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
        files = read_json(manifest)["files"]
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
