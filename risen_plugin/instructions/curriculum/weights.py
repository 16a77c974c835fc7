"""Draw in proportion to weights in a time that grows with the logarithm of their number.

A Fenwick tree of whole numbers: a sum of floats would depend on the order of its changes, and a
restored pool must draw exactly as the one that was saved.
"""

from __future__ import annotations

from array import array


class Weights:
    """Whole weights by index; a new one is 0."""

    def __init__(self) -> None:
        self._weights = array("q")
        self._sums = array("q", [0, 0])  # one capacity of sums, from index 1 on
        self.total = 0

    def __len__(self) -> int:
        return len(self._weights)

    def __getitem__(self, index: int) -> int:
        return self._weights[index]

    def bytes_in_memory(self) -> int:
        return 8 * (len(self._weights) + len(self._sums))

    def append(self) -> int:
        """Add a weight of 0, and return its index."""
        self._weights.append(0)
        capacity = len(self._sums) - 1
        if len(self._weights) > capacity:
            self._sums.extend([0] * capacity)
            self._sums[2 * capacity] = self.total
        return len(self._weights) - 1

    def put(self, index: int, weight: int) -> None:
        """Set the weight at an index."""
        change = weight - self._weights[index]
        if not change:
            return
        self._weights[index] = weight
        self.total += change
        at, end = index + 1, len(self._sums)
        while at < end:
            self._sums[at] += change
            at += at & -at

    def find(self, mark: int) -> int:
        """The index where the running sum of weights first exceeds ``mark``.

        :param mark: from 0 to below ``total``.
        """
        at, step = 0, (len(self._sums) - 1).bit_length()
        for bit in range(step - 1, -1, -1):
            further = at + (1 << bit)
            if further < len(self._sums) and self._sums[further] <= mark:
                at = further
                mark -= self._sums[further]
        return at
