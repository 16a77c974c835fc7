"""A time limit for one call of a stranger's code: by an alarm, or on a thread of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_Result = TypeVar("_Result")


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raise ``TimeoutError`` after so many seconds, where an alarm can be set: on a main thread.

    A regular expression of Python's that backtracks without end is interrupted too.

    :param seconds: None for no limit.
    """
    if (
        seconds is None
        or not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def ring(*_: object) -> None:
        raise TimeoutError(f"one call took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def awaited(call: Callable[[], _Result], seconds: float) -> _Result:
    """What a call gives back, for native code that an alarm does not interrupt.

    It runs on a thread of its own, and has to let other threads run meanwhile. One that takes too
    long goes on until the process ends, which it does not hold off.

    :raises TimeoutError: after so many seconds. What the call raises is raised here.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  raised again, where it is waited for
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"one call took more than {seconds:g} s")
    return results[0]
