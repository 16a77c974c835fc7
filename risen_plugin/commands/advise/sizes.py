"""The memory that training takes, and the batch that fits. Pure arithmetic on a model's shape.

An estimate: weights, gradients and AdamW's two moments are exact; the values that layers hold for
the backward pass are the usual count.
"""

from __future__ import annotations

from dataclasses import dataclass

_FP32 = 4
_HELD_PER_LAYER = 34  # values per token and hidden unit that a layer holds for its gradient
_HELD_OF_LOGITS = 3  # logits, their log-softmax and its gradient
_USABLE = 0.9  # of what is available


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that decide how much memory its training takes.

    :param parameters: weights in all.
    :param adapter: weights that an adapter would have beside them.
    :param hidden: the width of a layer.
    :param base: bytes that the process holds with the model loaded to train every weight.
    :param spared: bytes less where only an adapter is trained and the weights stay as loaded.
    :param value: bytes of a value that is held for the gradient.
    """

    parameters: int
    adapter: int
    hidden: int
    layers: int
    vocabulary: int
    base: int
    spared: int = 0
    value: int = _FP32

    def training(self, rows: int, tokens: int, *, only_adapter: bool) -> int:
        """Bytes at the peak of a step on ``rows`` at once of ``tokens`` each."""
        trained = self.adapter if only_adapter else self.parameters
        extra = self.adapter * _FP32 - self.spared if only_adapter else 0
        return self.base + extra + trained * 3 * _FP32 + rows * self._held_per_row(tokens)

    def _held_per_row(self, tokens: int) -> int:
        per_token = self.layers * self.hidden * _HELD_PER_LAYER + self.vocabulary * _HELD_OF_LOGITS
        return tokens * per_token * self.value


@dataclass(frozen=True)
class Fit:
    """A way to train that fits.

    :param only_adapter: whether an adapter is trained in place of the weights.
    :param rows: rows at once; ``accumulation`` times as many make an optimizer step.
    :param memory: bytes at the peak.
    """

    only_adapter: bool
    rows: int
    accumulation: int
    memory: int


def fit(
    shape: Shape, wanted: int, tokens: int, available: int, *, only_adapter: bool = False
) -> Fit | None:
    """The largest batch that fits, of all weights if they do, else of an adapter.

    :param wanted: rows of an optimizer step, which does not change.
    :returns: None if not even one row with an adapter fits.
    """
    for adapter in (True,) if only_adapter else (False, True):
        for rows in (n for n in range(wanted, 0, -1) if wanted % n == 0):
            memory = shape.training(rows, tokens, only_adapter=adapter)
            if memory <= available * _USABLE:
                return Fit(adapter, rows, wanted // rows, memory)
    return None


def least(shape: Shape, tokens: int) -> int:
    """Bytes of the most modest way: one row, an adapter."""
    return round(shape.training(1, tokens, only_adapter=True) / _USABLE)
