"""Live with code of others: keep its prints out of standard output, and its exits from ending us.

A plugin may print while it is imported, a reward while it scores, and a library in C past Python.
Who reads the output of a command, as JSON or to ``eval`` it, reads none of that.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO, Any, cast

from risen_plugin.errors import RisenError

_lock = threading.RLock()
_depth = 0
_back: Callable[[], None] = lambda: None  # noqa: E731  what puts standard output back
_own: IO[str] | None = None  # what the command says goes there, while there is noise


class _Aside:
    """Standard error under the name of standard output; to close it closes nothing."""

    def write(self, text: str) -> int:
        return len(text) if sys.stderr is None else sys.stderr.write(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()

    def close(self) -> None:
        """Stay open: it is not the caller's."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


_ASIDE = cast("IO[str]", _Aside())


@contextmanager
def noise_aside() -> Iterator[None]:
    """Send to standard error what is printed, but for :func:`say`; within another, do nothing.

    Afterwards standard output is what it was, whatever became of it meanwhile.
    """
    global _depth, _back  # noqa: PLW0603  there is one standard output
    with _lock:
        _depth += 1
        if _depth == 1:
            _back = _put_aside()
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _back()


def _put_aside() -> Callable[[], None]:
    """Exchange standard output, and its descriptor where it has its own; returns how to go back."""
    global _own  # noqa: PLW0603  as above
    stream = _own = sys.stdout
    kept: IO[str] | None = None
    with suppress(OSError, ValueError, AttributeError):  # no descriptor, or a closed one
        if stream.fileno() == 1:
            stream.flush()
            # What is started here and what is not Python write to descriptor 1.
            kept = _own = open(os.dup(1), "w", encoding=stream.encoding, errors=stream.errors)  # noqa: SIM115
            os.dup2(2, 1)
    sys.stdout = _ASIDE

    def back() -> None:
        global _own
        sys.stdout, _own = stream, None
        if kept is not None:
            os.dup2(kept.fileno(), 1)
            kept.close()

    return back


def say(text: str) -> None:
    """Write a line to standard output, also within :func:`noise_aside`."""
    stream = sys.stdout if _own is None else _own
    stream.write(f"{text}\n")
    stream.flush()


def end_aside() -> None:
    """Send what is printed from now on to standard error: the command has said what it has to.

    Threads and what was registered with ``atexit`` may print until the process ends.
    """
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        os.dup2(2, 1)
    sys.stdout = _ASIDE


@contextmanager
def contained(
    say: Callable[[BaseException], Exception], *, passes: type[Exception] | None = RisenError
) -> Iterator[None]:
    """Make an error of ours of whatever somebody else's code raises, exits and interrupts included.

    A Ctrl-C that somebody pressed passes through.

    :param say: the error for the one that was raised.
    :param passes: errors that pass through too: those that say already what is wrong.
    """
    pressed: list[int] = []
    try:
        with interrupts_noted() as pressed:
            yield
    except BaseException as error:
        if pressed or (passes is not None and isinstance(error, passes)):
            raise
        raise say(error) from error


@contextmanager
def interrupts_noted() -> Iterator[list[int]]:
    """A list that holds something once somebody has pressed Ctrl-C, which a plugin cannot fake.

    Code of a plugin may raise ``KeyboardInterrupt`` by itself, and that ends nothing.
    """
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        if callable(before):
            before(number, frame)

    if not callable(before):
        yield pressed
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        if signal.getsignal(signal.SIGINT) is note:  # a plugin may have set its own
            signal.signal(signal.SIGINT, before)
