"""Remember verdicts, in memory or in an SQLite file that outlives the process.

If the file cannot be read or written, one warning says so, and judging goes on without it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from risen_judge.verdicts import Verdict

_LOG = logging.getLogger("risen_plugin.judge")
_PATIENCE_S = 5.0  # for another process that is writing
_TABLE = (
    "CREATE TABLE IF NOT EXISTS verdicts "
    "(key TEXT PRIMARY KEY, met INTEGER NOT NULL, reason TEXT NOT NULL, model TEXT NOT NULL)"
)


def key_of(body: Mapping[str, Any]) -> str:
    """A fingerprint of the request, without its address: a verdict depends on nothing else."""
    text = json.dumps(body, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Cache:
    """Verdicts by key.

    :param path: the SQLite file; None holds them in memory alone.
    :raises ValueError: if the file cannot be opened as one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known: dict[str, Verdict] = {}
        self._is_broken = False
        if path is not None:
            try:
                with closing(self._open()) as connection:
                    connection.execute(_TABLE)
                    connection.execute("SELECT key, met, reason, model FROM verdicts LIMIT 1")
            except sqlite3.Error as error:
                raise ValueError(f"cache: cannot use '{path}': {error}") from error

    def find(self, keys: Sequence[str]) -> dict[str, Verdict]:
        """The remembered verdicts, by those of ``keys`` that have one."""
        verdicts = {key: self._known[key] for key in keys if key in self._known}
        if self.path is None or self._is_broken:
            return verdicts
        try:
            with closing(self._open()) as connection:
                for key in keys:
                    if key in verdicts:
                        continue
                    row = connection.execute(
                        "SELECT met, reason FROM verdicts WHERE key = ?", (key,)
                    ).fetchone()
                    if row is not None:
                        verdicts[key] = Verdict(bool(row[0]), str(row[1]))
        except sqlite3.Error as error:
            self._give_up(error)
        return verdicts

    def save(self, key: str, verdict: Verdict, model: str) -> None:
        """Write a verdict at once, since the process may crash at any time."""
        if self.path is None or self._is_broken:
            self._known[key] = verdict
            return
        try:
            with closing(self._open()) as connection, connection:
                connection.execute(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)",
                    (key, verdict.met, verdict.reason, model),
                )
        except sqlite3.Error as error:
            self._give_up(error)
            self._known[key] = verdict

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(str(self.path), timeout=_PATIENCE_S)

    def _give_up(self, error: sqlite3.Error) -> None:
        self._is_broken = True
        _LOG.warning("the judge goes on without its cache '%s': %s", self.path, error)
