"""A bar of quality for answers that a verifiable reward passes.

Pure. An answer can meet every constraint and say nothing, which no check of constraints sees. So a
second score, its quality, decides whether it is worth more or less than its first one. Where the
quality comes from is left to others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from risen_plugin.config import GateConfig
from risen_plugin.contracts import Failed
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.rewards.scores import Scores

LIKELIHOOD = "likelihood"
"""The name of the default quality, which the model in training gives itself."""

BONUS = 1.0
PENALTY = 0.5


@dataclass(frozen=True)
class Gate:
    """A configured gate with the reward whose scores it changes, and the one that it goes by.

    :param reward: the verifiable reward.
    :param quality: the reward that scores quality; None for the model's own likelihood.
    """

    config: GateConfig
    reward: NamedReward
    quality: NamedReward | None = None

    @property
    def quality_name(self) -> str:
        return LIKELIHOOD if self.quality is None else self.quality.__name__

    def describe(self) -> dict[str, Any]:
        """The gate as the record has it."""
        return {
            "reward": self.reward.__name__,
            "quality": self.quality_name,
            "threshold": self.config.threshold,
            "quantile": self.config.quantile,
        }


def gated(value: float, quality: float, *, passes_at: float, threshold: float) -> float:
    """The score of an answer behind the gate.

    >>> [gated(v, q, passes_at=1.0, threshold=0.5) for v, q in ((1, 0.9), (1, 0.5), (0.5, 0.9))]
    [2.0, 0.5, 0.5]
    """
    if value < passes_at:
        return float(value)
    return value + BONUS if quality > threshold else value - PENALTY


def gate(values: Scores, qualities: Scores, *, passes_at: float, threshold: float) -> Scores:
    """:func:`gated` for a batch; a value without a quality stays as it is."""
    return [
        value
        if value is None or quality is None
        else gated(value, quality, passes_at=passes_at, threshold=threshold)
        for value, quality in zip(values, qualities, strict=True)
    ]


def bar(qualities: Sequence[float | None], quantile: float) -> float | None:
    """The highest threshold that at most the share ``quantile`` of the qualities fails.

    Equal qualities pass together. None where there is no quality to go by.

    >>> bar([0.3, 0.1, None, 0.2, 0.2], 0.25) < 0.2
    True
    """
    known = sorted(q for q in qualities if q is not None and not isinstance(q, Failed))
    if not known:
        return None
    return math.nextafter(known[math.floor(quantile * len(known))], -math.inf)
