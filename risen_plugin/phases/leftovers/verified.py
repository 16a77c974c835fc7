"""Hold verified answers: one per instruction, none twice, and no more than fit. Pure.

Which answers get here is decided by ``selection``, and when by the buffers as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from risen_plugin.contracts import text_of
from risen_plugin.phases.leftovers.selection import Verified


class VerifiedAnswers:
    """Verified answers in the order in which they came.

    :param largest: the most that are held. Over it, one answer of the family that has most of them
        goes: one whose text another answer has too, if there is any, else the oldest.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.evicted = 0
        self._held: dict[str, Verified] = {}
        self._families: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Verified]:
        return iter(self._held.values())

    def add(self, answer: Verified) -> bool:
        """Take an answer in; False if a better one to its instruction is held.

        An equally good one takes the place of the older, which the model has moved away from.
        """
        held = self._held.get(answer.key)
        if held is not None and held.total > answer.total:
            return False
        if held is not None:
            self._drop(answer.key)
        self._held[answer.key] = answer
        self._families[answer.family] += 1
        while len(self._held) > self.largest:
            self._drop(self._most_redundant())
            self.evicted += 1
        return answer.key in self._held

    def _drop(self, key: str) -> None:
        gone = self._held.pop(key)
        self._families[gone.family] -= 1

    def _most_redundant(self) -> str:
        # The earlier of equally large families, whatever order a counter has them in.
        most = max(self._families.values())
        family = min(name for name, count in self._families.items() if count == most)
        members = [answer for answer in self._held.values() if answer.family == family]
        texts = Counter(plainly(answer) for answer in members)
        return next(
            (answer.key for answer in members if texts[plainly(answer)] > 1), members[0].key
        )


def plainly(answer: Verified) -> str:
    """The text of an answer by which repetitions are known: without case and spacing."""
    return " ".join(text_of(answer.completion).casefold().split())
