"""Store a pool on disk: its rows, and every answer in the order in which it was counted.

One SQLite database in WAL mode, one transaction per batch. Everything that a pool knows follows
from this journal, so a checkpoint needs no more than a position in it: a resumed run cuts off all
later entries and counts the others again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_plugin.contracts import Row
from risen_plugin.errors import DataError, RecordError

IN_MEMORY = ":memory:"
_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS strata (id INTEGER PRIMARY KEY, seq INTEGER, path TEXT);
CREATE TABLE IF NOT EXISTS rows (
    id INTEGER PRIMARY KEY, key BLOB UNIQUE, stratum INTEGER, seq INTEGER, row TEXT, origin TEXT
);
CREATE TABLE IF NOT EXISTS answers (
    seq INTEGER, tick INTEGER, id INTEGER, passed INTEGER, failed INTEGER, zero INTEGER
);
CREATE INDEX IF NOT EXISTS answers_by_seq ON answers (seq);
CREATE TABLE IF NOT EXISTS retired (seq INTEGER, id INTEGER, reason TEXT);
"""


@dataclass(frozen=True)
class Answered:
    """The results of one instruction's answers in a batch.

    :param id: the instruction's number; ``-1 - stratum`` for rows outside the pool.
    :param zero: whether the rewards of its group were all the same.
    """

    id: int
    passed: int
    failed: int
    zero: bool


class Store:
    """The database of one pool.

    :param path: its file; in memory without one.
    :raises RecordError: if the file cannot be used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        with self._as_record_error():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(IN_MEMORY if path is None else path)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = NORMAL")
            self._base.executescript(_SCHEMA)
            [version] = self._base.execute("PRAGMA user_version").fetchone()
            if version not in (0, _FORMAT):
                raise RecordError(
                    f"the pool {path} has format {version}, and this release reads {_FORMAT}; "
                    "resume with the release that began the run"
                )
            self._base.execute(f"PRAGMA user_version = {_FORMAT}")
            self._base.commit()

    def copy_from(self, path: Path) -> None:
        """Take over the whole content of another pool.

        :raises RecordError: if it cannot be read.
        """
        with (
            self._as_record_error(),
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as other,
        ):
            other.backup(self._base)

    def add_stratum(self, number: int, path: Sequence[Any], seq: int) -> None:
        with self._as_record_error():
            self._base.execute("INSERT INTO strata VALUES (?, ?, ?)", (number, seq, _dump(path)))

    def add_row(
        self, number: int, key: str, row: Row, *, stratum: int, seq: int, origin: str
    ) -> bool:
        """Add a row under its number; False if there is one of that key already.

        :param origin: where it came from, if not from the generator, as JSON.
        :raises DataError: if the row cannot be written as JSON.
        """
        try:
            text = json.dumps(dict(row))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"a row cannot be stored in the curriculum's pool: {error}; give columns of texts, "
                "numbers, lists and mappings, or leave the curriculum out"
            ) from error
        with self._as_record_error():
            done = self._base.execute(
                "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?)",
                (number, bytes.fromhex(key), stratum, seq, text, origin or None),
            )
        return done.rowcount == 1

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """The rows under these numbers, in this order."""
        rows: list[Row] = []
        with self._as_record_error():
            for number in numbers:
                [text] = self._base.execute(
                    "SELECT row FROM rows WHERE id = ?", (number,)
                ).fetchone()
                rows.append(json.loads(text))
        return rows

    def number_of(self, key: str) -> int | None:
        with self._as_record_error():
            row = self._base.execute(
                "SELECT id FROM rows WHERE key = ?", (bytes.fromhex(key),)
            ).fetchone()
        return None if row is None else int(row[0])

    def add_answers(self, seq: int, tick: int, answers: Sequence[Answered]) -> None:
        with self._as_record_error():
            self._base.executemany(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                [(seq, tick, a.id, a.passed, a.failed, int(a.zero)) for a in answers],
            )

    def add_retired(self, seq: int, number: int, reason: str) -> None:
        with self._as_record_error():
            self._base.execute("INSERT INTO retired VALUES (?, ?, ?)", (seq, number, reason))

    def commit(self) -> None:
        """End the transaction of a batch."""
        with self._as_record_error():
            self._base.commit()

    def cut(self, seq: int) -> None:
        """Remove all entries after a position in the journal.

        :raises RecordError: if the journal does not reach so far.
        """
        with self._as_record_error():
            self._base.rollback()
            last = max(
                self._base.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()[0]
                for table in ("rows", "answers")
            )
            if last < seq:
                raise RecordError(
                    f"the pool {self.path or IN_MEMORY} ends at {last}, and the checkpoint needs "
                    f"it up to {seq}; put the run's pool.sqlite back, or begin a new run"
                )
            for table in ("rows", "strata", "answers", "retired"):
                self._base.execute(f"DELETE FROM {table} WHERE seq > ?", (seq,))
            self._base.commit()

    def strata(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Numbers and paths of the strata, in the order in which they were made."""
        for number, path in self._base.execute("SELECT id, path FROM strata ORDER BY id"):
            yield number, tuple(json.loads(path))

    def row_strata(self) -> Iterator[tuple[int, int]]:
        """The position in the journal and the stratum of each row, by number."""
        yield from self._base.execute("SELECT seq, stratum FROM rows ORDER BY id")

    def answers(self) -> Iterator[tuple[int, int, Answered]]:
        """Position, batch and outcome of all answers, in the order in which they were counted."""
        for seq, tick, number, passed, failed, zero in self._base.execute(
            "SELECT seq, tick, id, passed, failed, zero FROM answers ORDER BY rowid"
        ):
            yield seq, tick, Answered(number, passed, failed, bool(zero))

    def close(self) -> None:
        self._base.close()

    @contextmanager
    def _as_record_error(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RecordError(
                f"the pool {self.path or IN_MEMORY} cannot be used: {error}; make room there, and "
                "resume from the newest checkpoint"
            ) from error


def _dump(value: object) -> str:
    return json.dumps(value, default=str)
