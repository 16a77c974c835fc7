"""Who runs next, and where: which row gets which slot, what is read, who takes a step.

Pure: rows and slots as they are, in; decisions, out. The engine carries them out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

_WORTH_WAITING = 16  # tokens that another row is reading and that need not be read twice


class Row(Protocol):
    """What deciding needs to know of a row.

    ``ids``: all its tokens so far. ``computed``: how many of them have been read. ``key``: what
    their keys and values depend on beside the tokens, the adapter and its version. ``slot``: its
    place in the cache.
    """

    ids: list[int]
    computed: int
    slot: int

    @property
    def key(self) -> Hashable: ...


@dataclass
class Slot:
    """One place of the cache.

    :param ids: the tokens whose keys and values lie in it.
    :param key: with what they were computed.
    :param row: who is writing to it; None if it is free, and then what it holds may be reused.
    :param used: when it was last written to.
    """

    ids: list[int] = field(default_factory=list)
    key: Hashable = None
    row: Row | None = None
    used: int = 0


@dataclass(frozen=True)
class Place:
    """Where a row begins.

    :param source: the slot whose first ``shared`` tokens it begins with; itself if they are there.
    """

    slot: int
    source: int
    shared: int


def place(slots: Sequence[Slot], row: Row, *, share: bool) -> Place | None:
    """The slot that a waiting row gets; None if it has to wait.

    It waits if no slot is free, or if another row is reading the same beginning at the moment.

    :param share: reuse what was read of equal beginnings.
    """
    free = [number for number, slot in enumerate(slots) if slot.row is None]
    if not free:
        return None
    if not share:
        return Place(_oldest(slots, free), 0, 0)
    # The last token is always read, since its logits are wanted.
    most = len(row.ids) - 1
    begins = {
        number: common(slot.ids, row.ids, most)
        for number, slot in enumerate(slots)
        if slot.key == row.key and slot.ids
    }
    shared = max(begins.values(), default=0)
    for slot in slots:
        other = slot.row
        if other is not None and other.key == row.key and pending(other) > 1:
            coming = common(other.ids, row.ids, most)
            if coming - shared >= max(1, min(_WORTH_WAITING, most)):
                return None
    best = [number for number, length in begins.items() if length == shared and shared]
    ours = [number for number in best if slots[number].row is None]
    if ours:
        return Place(ours[0], ours[0], shared)
    # What a slot holds and others may want goes last.
    chosen = _oldest(slots, free)
    return Place(chosen, best[0] if best else chosen, shared)


def _oldest(slots: Sequence[Slot], free: Iterable[int]) -> int:
    return min(free, key=lambda number: (bool(slots[number].ids), slots[number].used, number))


def common(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """How many first tokens are equal, at most ``most``."""
    length = min(len(one), len(other), most)
    if length <= 0 or one[0] != other[0]:
        return 0
    first: npt.NDArray[np.int64] = np.asarray(one[:length])
    differing = np.flatnonzero(first != np.asarray(other[:length]))
    return int(differing[0]) if len(differing) else length


def pending(row: Row) -> int:
    """Tokens of a row that have not been read; 1 between two steps."""
    return len(row.ids) - row.computed


@dataclass(frozen=True)
class Chunk:
    """Tokens of one prompt to be read now.

    :param stop: the first token that is not read.
    """

    row: Row
    stop: int


def chunks(rows: Iterable[Row], budget: int) -> list[Chunk]:
    """What to read of the prompts before the next step: at most ``budget`` tokens together.

    The rows that came first are read first, so that each prompt is done as soon as it can be.
    """
    chosen = []
    for row in rows:
        if budget <= 0:
            break
        unread = pending(row)
        if unread > 1:
            count = min(unread, budget)
            # One token is never left over: reading it with the others costs nothing.
            count = unread if unread - count == 1 else count
            chosen.append(Chunk(row, row.computed + count))
            budget -= count
    return chosen


def swaps(taking: Iterable[int]) -> list[tuple[int, int]]:
    """The exchanges of slots after which those that take a step are the first ones."""
    slots = sorted(taking)
    count = len(slots)
    holes = sorted(set(range(count)) - set(slots))
    return list(zip(holes, [slot for slot in slots if slot >= count], strict=True))
