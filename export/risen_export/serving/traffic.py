"""Write down what is asked and answered, for those who chose to: rows that train the next adapter.

One JSON object a line, with the columns that the generator ``jsonl`` and ``risen score`` read:
``prompt``, ``completion``, and ``instruction_id_list`` and ``kwargs`` where a request named some.
What looks like a secret or an address is left out. The file is bounded: when it is full it becomes
``FILE.1``, in place of the one before.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from risen_plugin.errors import ConfigError

_log = logging.getLogger("risen_export.serving")
_USUAL = (
    r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",  # mail
    r"\b(?:sk|pk|ghp|gho|hf|xox[abp])[-_][A-Za-z0-9_-]{8,}",  # keys of services
    r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{8,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",  # JSON web tokens
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\b(?:\d{4}[ -]?){3}\d{1,7}\b",  # cards
    r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",  # accounts
    r"\+\d[\d ().-]{6,17}\d\b",  # telephones
    r"(?<![\w.])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}\b",
    r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
)
REDACTED = "[redacted]"


class TrafficLog:
    """The log of one server.

    :param path: of the file.
    :param most_bytes: of the file; as much again may lie in ``FILE.1``.
    :param patterns: regular expressions of what is left out, beside the usual ones.
    :raises ConfigError: if a pattern is none, or the file cannot be written.
    """

    def __init__(self, path: Path, most_bytes: int, patterns: Sequence[str] = ()) -> None:
        self._path = path
        self._most = most_bytes
        try:
            self._patterns = [re.compile(one) for one in (*_USUAL, *patterns)]
        except re.error as error:
            raise ConfigError(f"--redact is no regular expression: {error}") from error
        self._lock = threading.Lock()
        self._told = False
        try:
            self._file = self._open()
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from error

    def _open(self) -> int:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            _cut_last_line(file, size)  # of a server that was killed
        return file

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row; where that fails it is said once, and nobody's answer is held up."""
        data = (json.dumps(self.redacted(row), ensure_ascii=False) + "\n").encode()
        if len(data) > self._most:
            return
        with self._lock:
            try:
                if os.fstat(self._file).st_size + len(data) > self._most:
                    self._turn()
                self._append(data)
            except OSError as error:
                if not self._told:
                    _log.warning("%s cannot be written: %s", self._path, error.strerror)
                self._told = True

    def redacted(self, value: Any) -> Any:
        """A value of JSON without what looks like a secret or an address."""
        if isinstance(value, str):
            for pattern in self._patterns:
                value = pattern.sub(REDACTED, value)
            return value
        if isinstance(value, Mapping):
            return {key: self.redacted(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.redacted(one) for one in value]
        return value

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            os.close(self._file)

    def _append(self, data: bytes) -> None:
        """Write a whole line or none: a full disk takes the beginning of one without an error.

        :raises OSError: if the line does not fit.
        """
        before = os.fstat(self._file).st_size
        if os.write(self._file, data) < len(data):
            os.ftruncate(self._file, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _turn(self) -> None:
        os.close(self._file)
        os.replace(self._path, f"{self._path}.1")
        self._file = self._open()


def _cut_last_line(file: int, size: int) -> None:
    """Cut off what follows the last line's end."""
    at = size
    while at > 0:
        begin = max(0, at - 65536)
        found = os.pread(file, at - begin, begin).rfind(b"\n")
        if found >= 0:
            os.ftruncate(file, begin + found + 1)
            return
        at = begin
    os.ftruncate(file, 0)


def rows_of(
    prompt: Any, answers: Sequence[str], about: Mapping[str, Any], columns: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The rows of one request: one for each answer.

    :param about: when, which model, how it ended.
    :param columns: of the instruction.
    """
    chat = not isinstance(prompt, str)
    return [
        {
            **columns,
            "prompt": prompt,
            "completion": [{"role": "assistant", "content": text}] if chat else text,
            **about,
        }
        for text in answers
    ]
