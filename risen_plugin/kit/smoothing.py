"""Smooth a series that scatters: the mean of its latest values, and how sure it is. Pure.

The reward of a GRPO step depends on how hard its few prompts are, so that one step says little. The
steps' prompts are drawn anew, and their means scatter as the prompts do: by that scatter the mean
over some steps is sure to so much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WINDOW = 8
"""Steps that a mean goes over."""


def running_mean(values: Sequence[float], window: int = WINDOW) -> list[tuple[float, float | None]]:
    """Of each value the mean with those before it, ``window`` at the most, and its standard error.

    None for the error of a single value.

    >>> running_mean([0.2, 0.4])
    [(0.2, None), (0.30000000000000004, 0.1)]
    """
    return [_mean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return mean, None
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (count - 1) / count)


def in_words(mean: float, error: float | None) -> str:
    """``0.31 \u00b10.06``.

    >>> print(in_words(0.312, 0.06), in_words(0.3, None))
    0.31 \u00b10.06 0.30
    """
    return f"{mean:.2f}" if error is None else f"{mean:.2f} \u00b1{error:.2f}"
