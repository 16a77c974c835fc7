"""Have chat templates rendered by a process that is ended if it takes too long.

One process serves all templates of this one. It is started when it is first needed, again after it
was ended, and ends by itself when this process does. What it does is in ``rendering``.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from risen_export.runtime import rendering
from risen_plugin.errors import DataError
from risen_plugin.kit.time_limit import limited

SECONDS = 10.0
"""What a template has for one prompt; one of a real model takes milliseconds."""
_STARTING = 120.0  # seconds, on a machine that is busy
_lock = threading.Lock()
_helpers: dict[int, _Helper] = {}  # by process: a fork has none of its parent's


class _StuckError(Exception):
    """The process did not answer in time."""


class _GoneError(Exception):
    """The process ended in place of answering."""


def render(template: str, variables: Mapping[str, Any]) -> str:
    """What a template makes of its variables, which are values of JSON.

    :raises DataError: in one line, if it refuses them, fails, or goes beyond the limits of time,
        memory and output.
    """
    try:
        request = {"template": template, "variables": variables, "seconds": SECONDS}
        message = rendering.written(request)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"the messages hold what is no value of JSON: {error}") from error
    with _lock:
        try:
            answer = _ask(message, request)
        except _StuckError as error:
            raise DataError(
                f"the chat template was stopped after {SECONDS:g} s; "
                "a bundle whose template takes so long is broken, or made to harm"
            ) from error
        except _GoneError as error:
            raise DataError("the chat template used up its memory, or crashed") from error
    if "error" in answer:
        raise DataError(
            f"the chat template refused the messages: {answer['error']} (a prompt that is text "
            "goes past it: --raw)"
        )
    return str(answer["text"])


def _ask(message: bytes, request: Mapping[str, Any]) -> dict[str, Any]:
    if os.getpid() in _helpers:
        # It may have been ended from outside between two prompts; a new one decides.
        with contextlib.suppress(_GoneError):
            return _ask_helper(message)
    try:
        _helpers[os.getpid()] = _Helper()
    except OSError:
        # Where no process can be started a template is still read, with less of a limit.
        try:
            with limited(SECONDS):
                return rendering.answer(request)
        except TimeoutError as error:
            raise _StuckError from error
    return _ask_helper(message)


def _ask_helper(message: bytes) -> dict[str, Any]:
    try:
        return _helpers[os.getpid()].ask(message)
    except BaseException:  # Ctrl-C too: an answer that comes later would be taken for the next one
        _drop()
        raise


@atexit.register
def _drop() -> None:
    helper = _helpers.pop(os.getpid(), None)
    if helper is not None:
        helper.close()


class _Helper:
    """The process, and the pipes to it.

    :raises OSError: if it cannot be started.
    """

    def __init__(self) -> None:
        if "python" not in Path(sys.executable or "").name.lower():
            raise OSError("this program is no interpreter of Python")  # it has one built in
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", rendering.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._started = False

    def ask(self, message: bytes) -> dict[str, Any]:
        """The answer to a message.

        :raises _StuckError: if it does not come in time.
        :raises _GoneError: if the process ended.
        """
        pipe = self._process.stdin
        assert pipe is not None
        try:
            if not self._started:
                # The first answer says that it is there: the limit is for templates alone.
                pipe.write(rendering.written(sys.path))
                hello = {"template": "", "variables": {}, "seconds": _STARTING}
                pipe.write(rendering.written(hello))
                pipe.flush()
                self._read(_STARTING)
                self._started = True
            pipe.write(message)
            pipe.flush()
        except BrokenPipeError as error:
            raise _GoneError from error
        return self._read(SECONDS)

    def _read(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        size = rendering.LENGTH.unpack(self._receive(rendering.LENGTH.size, end))[0]
        answer: dict[str, Any] = json.loads(self._receive(size, end))
        return answer

    def _receive(self, count: int, end: float) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        waiting = select.poll()
        waiting.register(pipe, select.POLLIN)
        pieces: list[bytes] = []
        while count:
            if not waiting.poll(max(0.0, end - time.monotonic()) * 1000):
                raise _StuckError
            piece = os.read(pipe.fileno(), min(count, 1 << 20))
            if not piece:
                raise _GoneError
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._process.wait()
