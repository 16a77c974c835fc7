"""A stopwatch that adds up seconds under names."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


class Stopwatch:
    """Adds up seconds under names.

    :param parts: the names that are there from the start, at 0.
    :param earlier: seconds that were counted before, to go on from.
    """

    def __init__(self, parts: Sequence[str] = (), earlier: Mapping[str, float] = {}) -> None:
        self.seconds: dict[str, float] = {**dict.fromkeys(parts, 0.0), **earlier}

    @contextmanager
    def time(self, name: str, *, within: str | None = None) -> Iterator[None]:
        """Count the seconds spent here under ``name``, and not under ``within`` around it."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            if within is not None:
                self.seconds[within] = self.seconds.get(within, 0.0) - spent
