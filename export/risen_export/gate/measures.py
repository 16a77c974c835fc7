"""How far one distribution of the next token is from another; pure, on numpy arrays.

A reference keeps, for each position, the model's :data:`KEPT` likeliest tokens with their
log-probabilities. The divergence is taken over these tokens and all others as one outcome, which is
never more than that over the whole vocabulary (merging outcomes cannot add information), and can be
repeated anywhere from a small file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]

KEPT = 64
"""Tokens of a position that a reference keeps."""
_LEAST = 1e-12


@dataclass(frozen=True)
class Likeliest:
    """The likeliest tokens of P positions, (P, K) each, from the likeliest down."""

    ids: Ids
    log_probs: Floats

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def first(self) -> Ids:
        """The likeliest token of each position, (P,)."""
        return self.ids[:, 0]


def log_softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Log-probabilities (P, V) of logits (P, V)."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    total: npt.NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    log_probs: npt.NDArray[np.float64] = shifted - total
    return log_probs


def likeliest(logits: npt.NDArray[np.floating], kept: int = KEPT) -> Likeliest:
    """What a reference keeps of logits (P, V)."""
    count = min(kept, logits.shape[-1])
    some = np.argpartition(-logits, count - 1, axis=-1)[:, :count]
    values = np.take_along_axis(logits, some, axis=-1)
    # Equal logits come in the order of their ids, as argmax takes them.
    order = np.lexsort((some, -values), axis=-1)
    ids = np.take_along_axis(some, order, axis=-1)
    log_probs = np.take_along_axis(log_softmax(logits), ids, axis=-1)
    return Likeliest(ids.astype(np.int32), log_probs.astype(np.float32))


def divergence(expected: Likeliest, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """KL(expected || logits) of each position in nats, (P,); NaN where logits are not finite."""
    ours = np.take_along_axis(log_softmax(logits), expected.ids.astype(np.int64), axis=-1)
    theirs = expected.log_probs.astype(np.float64)
    kept = (np.exp(theirs) * (theirs - ours)).sum(axis=-1)
    rest = np.maximum(1 - np.exp(theirs).sum(axis=-1), 0)
    their_rest = np.maximum(1 - np.exp(ours).sum(axis=-1), _LEAST)
    tail = np.where(rest > _LEAST, rest * np.log(np.maximum(rest, _LEAST) / their_rest), 0)
    result: npt.NDArray[np.float64] = np.where(
        np.isfinite(logits).all(axis=-1), np.maximum(kept + tail, 0), np.nan
    )
    return result


def token_losses(logits: npt.NDArray[np.floating], ids: npt.NDArray[np.integer]) -> Floats:
    """The loss of each next token in nats, (T - 1,), of one row's logits (T, V) and ids (T,)."""
    rows = log_softmax(logits[:-1])
    losses = -np.take_along_axis(rows, ids[1:, None].astype(np.int64), axis=-1)[:, 0]
    return losses.astype(np.float32)


def spread(logits: npt.NDArray[np.floating]) -> float:
    """How far apart the logits of a position lie: their mean standard deviation.

    Rounding errors of a graph grow with it, so a difference of logits says something beside it
    alone: 1e-3 is nothing to logits of 280, and everything to logits of 1e-4.
    """
    return float(logits.astype(np.float64).std(axis=-1).mean())
