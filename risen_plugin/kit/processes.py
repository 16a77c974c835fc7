"""Work of several processes that stay together: all of them end with the same result or error.

Work is done in all of them or in the main one, and either every process gets the result or every
process raises the same error: none is left waiting for one that has stopped. Knows no torch; a
subclass makes the values travel.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from risen_plugin.errors import RisenError, typed_line

T = TypeVar("T")


class OtherProcessError(Exception):
    """Another process stopped by an error that no person can mend; it prints the traceback."""


@dataclass(frozen=True)
class _Stopped:
    """An error on its way to the other processes."""

    kind: type[RisenError] | None
    text: str

    @classmethod
    def by(cls, error: Exception, rank: int) -> _Stopped:
        if isinstance(error, RisenError):
            error.args = (f"{error} (in process {rank})",)
            return cls(type(error), str(error))
        return cls(None, f"process {rank} stopped: {typed_line(error)}")

    def as_error(self) -> Exception:
        return OtherProcessError(self.text) if self.kind is None else self.kind(self.text)


class Processes:
    """The processes of a program; alone, as this class is, there is one.

    :param rank: this process's number; 0 is the main one.
    :param count: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count

    @property
    def is_main(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    def exchange(self, value: bytes) -> list[bytes]:
        """The values of all processes, in the order of their ranks. All must call it."""
        return [value]

    def gather(self, work: Callable[[], T]) -> list[T]:
        """Work in every process; the results in the order of their ranks, in each of them.

        :raises Exception: in all processes, the error of the first one that failed.
        """
        if self.count == 1:
            return [work()]
        local: Exception | None = None
        try:
            payload = pickle.dumps((work(), None))
        except Exception as error:  # noqa: BLE001 raised again below, everywhere
            local = error
            payload = pickle.dumps((None, _Stopped.by(error, self.rank)))
        received: list[tuple[Any, _Stopped | None]] = [
            pickle.loads(sent) for sent in self.exchange(payload)
        ]
        for rank, (_, stopped) in enumerate(received):
            if stopped is not None:
                first = local if local is not None and rank == self.rank else stopped.as_error()
                first.__dict__["everywhere"] = True
                raise first
        return [value for value, _ in received]

    def together(self, work: Callable[[], T]) -> T:
        """Work in every process; in each its own result, which does not travel.

        :raises Exception: in all processes, the error of the first one that failed.
        """
        made: list[T] = []
        self.gather(lambda: made.append(work()))
        return made[0]

    def main(self, work: Callable[[], T]) -> T:
        """Work in the main process; its result in all of them.

        :raises Exception: in all processes, the error of the main one.
        """
        return self.gather(lambda: work() if self.is_main else None)[0]  # type: ignore[return-value]

    def agree(self, value: T) -> T:
        """The main process's value, in all of them."""
        return self.main(lambda: value)

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """The part of ``rows`` that is this process's: every ``count``-th, from its rank on."""
        return rows[self.rank :: self.count]

    def joined(self, parts: Sequence[Sequence[T]]) -> list[T]:
        """The parts of all processes, in the order that :meth:`share` took them from."""
        total = sum(map(len, parts))
        return [parts[index % self.count][index // self.count] for index in range(total)]


ALONE = Processes()


def is_everywhere(error: BaseException) -> bool:
    """Whether every process raises this error."""
    return bool(getattr(error, "everywhere", False))
