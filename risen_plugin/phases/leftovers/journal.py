"""An append-only file of JSON lines that a checkpoint refers to by its position.

Its state follows from the lines alone. A resumed run cuts off the lines after its
checkpoint and writes them again, so that nothing is lost and nothing doubled.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from risen_plugin.errors import DataError, RecordError
from risen_plugin.kit.files import write_bytes
from risen_plugin.kit.json_lines import lines_in, read_lines
from risen_plugin.kit.jsonable import json_text

_SHOWN = 40


@dataclass(frozen=True)
class Position:
    """A point in a journal.

    :param size: bytes up to it.
    :param digest: SHA-256 of them, by which the journal of another run is recognised.
    """

    size: int = 0
    digest: str = hashlib.sha256().hexdigest()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Journal:
    """A journal, read up to a position and appended to.

    :param path: where it lies; None for nowhere.
    :param writes: whether to write there, or only to keep count: of several processes, one writes.
    """

    def __init__(self, path: Path | None = None, *, writes: bool = True) -> None:
        self.path = path
        self._writes = writes and path is not None
        self._size = 0
        self._hash = hashlib.sha256()
        self._pending: list[bytes] = []
        self._committed = Position()

    @property
    def position(self) -> Position:
        """The end of what was committed: a checkpoint needs no line that the disk did not take."""
        return self._committed

    def add(self, kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Add a line, and return it as it will be read back."""
        text = json_text({"kind": kind, **values})
        line = text.encode() + b"\n"
        self._size += len(line)
        self._hash.update(line)
        if self._writes:
            self._pending.append(line)
        read: dict[str, Any] = json.loads(text)
        return read

    def commit(self) -> None:
        """Bring the lines added since the last commit to the disk.

        :raises RecordError: where it takes no more; they are tried again at the next commit.
        """
        if self.path is not None and self._pending:
            self._append(self.path, b"".join(self._pending))
            self._pending.clear()
        self._committed = Position(self._size, self._hash.hexdigest())

    def _append(self, path: Path, data: bytes) -> None:
        start = self._size - len(data)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.seek(start)
                file.truncate()  # half a line of an attempt that failed
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RecordError(
                f"the buffers cannot be written to {path}: {error.strerror}; make room there"
            ) from error

    def take_up(self, position: Position, source: Path | None = None) -> list[dict[str, Any]]:
        """Go on from ``position`` and return the lines up to it.

        :param source: the journal of the run that is resumed, where it is another file.
        :raises RecordError: if there is no such journal, or it is not the one of that position.
        """
        source = source or self.path
        self._pending.clear()
        data = b""
        if position.size:
            if source is None:
                raise RecordError(
                    "the checkpoint needs the buffers of its run, which are kept beside it; resume "
                    "from the run's own folder"
                )
            data = _read(source, position)
        self._size = position.size
        self._hash = hashlib.sha256(data)
        self._committed = position
        if self._writes:
            self._rewrite(data)
        return [line.value() for line in lines_in(io.BytesIO(data), str(source))]

    def _rewrite(self, data: bytes) -> None:
        assert self.path is not None
        try:
            size = self.path.stat().st_size if self.path.exists() else 0
            if size == len(data):
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path, data)
        except OSError as error:
            raise RecordError(
                f"the buffers cannot be written to {self.path}: {error.strerror}; make room there"
            ) from error


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a journal that a run may still be writing to.

    :raises RecordError: if it cannot be read.
    """
    try:
        for line in read_lines(path):
            if line.is_cut_off:
                return
            read: Any = None
            with contextlib.suppress(DataError):
                read = line.value()
            if not isinstance(read, dict) or "kind" not in read:
                shown = line.data[:_SHOWN].decode(errors="replace").rstrip("\n")
                raise RecordError(f"{line.where} is no line of buffers: {shown}")
            yield read
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error


def _read(source: Path, position: Position) -> bytes:
    try:
        with source.open("rb") as file:
            data = file.read(position.size)
    except OSError as error:
        raise RecordError(
            f"the buffers {source} cannot be read: {error.strerror}, and the checkpoint needs "
            "them; put the run's file back, or begin a new run"
        ) from error
    if len(data) < position.size:
        raise RecordError(
            f"the buffers {source} end at {len(data)} bytes, and the checkpoint needs them up to "
            f"{position.size}; put the run's file back, or begin a new run"
        )
    if hashlib.sha256(data).hexdigest() != position.digest:
        raise RecordError(
            f"the buffers {source} are not those of the checkpoint; put the run's file back, or "
            "begin a new run"
        )
    return data
