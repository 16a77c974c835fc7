"""Estimate how often an instruction is followed, and how much asking it is worth. Pure.

Answers count less the older they are, since the policy has changed. An estimate from few answers
leans on one from more: that of an instruction on that of its stratum, and so on through wider
strata up to the whole pool.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Path = tuple[Hashable, ...]
MOST_STRATA = 4096  # further ones are counted with the wider stratum around them
_LEAN = 4.0  # answers' worth of trust in the wider stratum
_WHOLE: Path = ()


def decay(ticks: float, half_life: float) -> float:
    """The weight that is left of an answer after so many batches."""
    return float(0.5 ** (ticks / half_life))


def worth(
    passed: NDArray[np.float64] | float,
    failed: NDArray[np.float64] | float,
    mean: NDArray[np.float64] | float,
    *,
    prior: float,
    optimism: float,
    low: float,
    high: float,
    focus: float = 1.0,
) -> NDArray[np.float64]:
    """The worth of asking again, from 0 to 1, for one instruction or for an array of them.

    ``p(1 - p)`` of the pass rate ``p``, in units of its value at the nearer edge of the band, and 1
    inside. Of the rates that the answers leave open (``optimism`` standard deviations to both
    sides), the one nearest to the band counts.

    :param passed: answers that passed, by the weight that is left of each.
    :param failed: the same for those that failed.
    :param mean: the rate of the stratum, which counts as ``prior`` answers.
    :param focus: a power of the worth; the greater, the less is asked outside the band.
    """
    answers = passed + failed + prior
    rate = (passed + prior * mean) / answers
    spread = optimism * np.sqrt(rate * (1 - rate) / (answers + 1))
    nearest = np.clip(rate, low, high)
    nearest = np.clip(nearest, np.maximum(rate - spread, 0.0), np.minimum(rate + spread, 1.0))
    edge = np.where(nearest < 0.5, low * (1 - low), high * (1 - high))
    value: NDArray[np.float64] = np.minimum(1.0, nearest * (1 - nearest) / edge) ** focus
    return value


def skips(streak: int, *, base: float, floor: float) -> float:
    """The probability of passing over an instruction without variance at its last visits."""
    return float(1.0 - max(base**streak, floor))


class Strata:
    """Pass rates of nested groups: the whole, each family, each level in it, and so on.

    :param half_life: batches after which an answer counts half.
    """

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self.paths: list[Path] = [_WHOLE]
        self._numbers: dict[Path, int] = {_WHOLE: 0}
        self._parents = [-1]
        self._counts = np.zeros((3, 8))  # passed, failed, the batch when they were counted
        self._layers: list[tuple[NDArray[np.int64], NDArray[np.int64]]] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def number_of(self, path: Path) -> int:
        """The number of a stratum, new or known; a wider one's if there are too many."""
        known = self._numbers.get(path)
        if known is not None:
            return known
        parent = self.number_of(path[:-1])
        if len(self.paths) >= MOST_STRATA:
            return parent
        self._numbers[path] = len(self.paths)
        self._parents.append(parent)
        self.paths.append(path)
        self._layers = None
        if len(self.paths) > self._counts.shape[1]:
            self._counts = np.pad(self._counts, ((0, 0), (0, self._counts.shape[1])))
        return len(self.paths) - 1

    def count(self, number: int, passed: float, failed: float, tick: int) -> None:
        """Count answers in a stratum and in all those around it."""
        while number >= 0:
            before = decay(tick - self._counts[2, number], self.half_life)
            self._counts[0, number] = self._counts[0, number] * before + passed
            self._counts[1, number] = self._counts[1, number] * before + failed
            self._counts[2, number] = tick
            number = self._parents[number]

    def means(self, tick: int) -> NDArray[np.float64]:
        """The pass rate of every stratum by its number; 0.5 where nothing is known."""
        passed, failed, when = self._counts[:, : len(self.paths)]
        before = 0.5 ** ((tick - when) / self.half_life)
        passed, answers = passed * before, (passed + failed) * before
        means = np.full(len(self.paths), 0.5)
        means[0] = (passed[0] + 0.5 * _LEAN) / (answers[0] + _LEAN)
        for numbers, parents in self._by_depth():
            known = answers[numbers] + _LEAN
            means[numbers] = (passed[numbers] + _LEAN * means[parents]) / known
        return means

    def rates(self, depth: int, tick: int) -> Mapping[str, float]:
        """The pass rates of the strata at a depth that have been answered, by their names."""
        means = self.means(tick)
        return {
            "/".join(map(str, path)): float(means[number])
            for number, path in enumerate(self.paths)
            if len(path) == depth and self._counts[:2, number].any()
        }

    def _by_depth(self) -> Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        if self._layers is None:
            layers: dict[int, list[int]] = {}
            for number, path in enumerate(self.paths[1:], start=1):
                layers.setdefault(len(path), []).append(number)
            parents = np.array(self._parents)
            self._layers = [
                (np.array(layers[depth]), parents[layers[depth]]) for depth in sorted(layers)
            ]
        return self._layers
