"""Draw the next tokens from logits: pure functions of logits, settings and uniform numbers.

A token is drawn by inverting the distribution at one uniform number, so that a row needs one random
number for each token and no sorted vocabulary. Rows that leave nothing out are drawn together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from risen_export.engine.requests import Sampling, TokenLogprob
from risen_export.runtime.logits import divide
from risen_plugin.errors import DataError

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_BLOCK = 256  # weights that are summed before sums are compared
_FEW = 512  # likeliest tokens that are sorted before all of them are


def changed(
    logits: Logits, sampling: Sampling, prompt: Sequence[int], answer: Sequence[int]
) -> Logits:
    """Logits (V,) of one row with penalties and biases; the same array where there are none.

    :raises DataError: if a bias is for a token that the vocabulary does not have.
    """
    if not _changes(sampling):
        return logits
    row = logits.copy()
    if sampling.repetition_penalty != 1:
        divide(row, [*prompt, *answer], sampling.repetition_penalty)
    if answer and (sampling.frequency_penalty or sampling.presence_penalty):
        tokens, counts = np.unique(np.asarray(answer, dtype=np.int64), return_counts=True)
        row[tokens] -= (sampling.frequency_penalty * counts + sampling.presence_penalty).astype(
            np.float32
        )
    for token, bias in sampling.logit_bias.items():
        if not 0 <= token < len(row):
            raise DataError(f"logit_bias names token {token}, and there are {len(row)}")
        row[token] += np.float32(bias)
    return row


def _changes(sampling: Sampling) -> bool:
    return bool(
        sampling.repetition_penalty != 1
        or sampling.frequency_penalty
        or sampling.presence_penalty
        or sampling.logit_bias
    )


@dataclass(frozen=True)
class Drawn:
    """The next token of each row.

    :param tokens: (B,).
    :param totals: the logarithm of the sum of the exponentials of each row's logits divided by its
        temperature, (B,); NaN where drawing did not need it.
    """

    tokens: Ids
    totals: npt.NDArray[np.float64]


class Sampler:
    """Draws tokens, and keeps the memory that it works in from one step to the next."""

    def __init__(self) -> None:
        self._scratch: Logits = np.zeros((0, 0), dtype=np.float32)

    def draw(
        self, logits: Logits, samplings: Sequence[Sampling], uniforms: Sequence[float]
    ) -> Drawn:
        """The next token of each row of logits (B, V), their changes applied.

        :param uniforms: a number from [0, 1) for each row; a greedy row needs none.
        """
        tokens = np.empty(len(samplings), dtype=np.int64)
        totals = np.full(len(samplings), np.nan)
        greedy = [line for line, one in enumerate(samplings) if one.is_greedy]
        drawn = [line for line, one in enumerate(samplings) if not one.is_greedy]
        if greedy:
            tokens[greedy] = some(logits, greedy).argmax(axis=-1)
        if drawn:
            temperatures = np.asarray([samplings[line].temperature for line in drawn], np.float32)
            weights, tops = self._weights(some(logits, drawn), temperatures)
            ends = _sums(weights).cumsum(axis=-1)
            totals[drawn] = tops + np.log(ends[:, -1])
            for place, line in enumerate(drawn):
                one, uniform = samplings[line], uniforms[line]
                if _is_whole(one):
                    tokens[line] = _inverted(weights[place], ends[place], uniform)
                else:
                    row = weights[place, : logits.shape[1]]
                    tokens[line] = _draw_filtered(row, one, uniform)
        return Drawn(tokens, totals)

    def _weights(
        self, logits: Logits, temperatures: npt.NDArray[np.float32]
    ) -> tuple[Logits, npt.NDArray[np.float64]]:
        """Exponentials (B, W) and what was subtracted before, (B,).

        W is the vocabulary, padded with zeros to whole blocks.
        """
        rows, width = logits.shape
        padded = -(-width // _BLOCK) * _BLOCK
        if self._scratch.shape[0] < rows or self._scratch.shape[1] != padded:
            self._scratch = np.zeros((rows, padded), dtype=np.float32)
        inner = self._scratch[:rows, :width]
        scaled = logits
        if (temperatures != 1).any():
            scaled = np.multiply(logits, 1 / temperatures[:, None], out=inner)
        top = scaled.max(axis=-1, keepdims=True)
        np.subtract(scaled, top, out=inner)
        np.exp(inner, out=inner)
        return self._scratch[:rows], top[:, 0].astype(np.float64)


def some(logits: Logits, lines: Sequence[int]) -> Logits:
    """Some rows; no copy where it is all of them."""
    return logits if len(lines) == len(logits) else logits[list(lines)]


def _is_whole(sampling: Sampling) -> bool:
    return sampling.top_k == 0 and sampling.top_p == 1 and sampling.min_p == 0


def _sums(weights: Logits) -> npt.NDArray[np.float64]:
    """Sums of blocks, (B, blocks): exact enough in float32, and added in float64."""
    blocks = weights.reshape(len(weights), -1, _BLOCK)
    sums: npt.NDArray[np.float64] = blocks.sum(axis=-1).astype(np.float64)
    return sums


def _inverted(weights: Logits, ends: npt.NDArray[np.float64], uniform: float) -> int:
    """The token at which the sum of weights (W,) passes the uniform share of their total."""
    target = uniform * ends[-1]
    block = min(int(np.searchsorted(ends, target, side="right")), len(ends) - 1)
    inside = weights[block * _BLOCK : (block + 1) * _BLOCK].astype(np.float64)
    before = ends[block - 1] if block else 0.0
    place = int(np.searchsorted(inside.cumsum(), target - before, side="right"))
    # Rounding may point past the last weight; the last that is not zero is meant.
    last = int(np.flatnonzero(inside)[-1])
    return block * _BLOCK + min(place, last)


def _draw_filtered(weights: Logits, sampling: Sampling, uniform: float) -> int:
    tokens, kept = _likeliest(weights, sampling)
    if sampling.min_p:
        enough = kept >= sampling.min_p * kept[0]
        tokens, kept = tokens[enough], kept[enough]
    ends = kept.cumsum()
    place = int(np.searchsorted(ends, uniform * ends[-1], side="right"))
    return int(tokens[min(place, len(tokens) - 1)])


def _likeliest(weights: Logits, sampling: Sampling) -> tuple[Ids, npt.NDArray[np.float64]]:
    """The tokens that ``top_k`` and ``top_p`` leave, the likeliest first, with their weights."""
    size = len(weights)
    count = min(sampling.top_k or size, size)
    total = float(weights.sum(dtype=np.float64))
    few = _FEW if sampling.top_p < 1 and count == size else size
    while few < size:
        tokens = _ordered(weights, few)
        held = weights[tokens].astype(np.float64)
        if held.sum() >= sampling.top_p * total:
            return _within_p(tokens, held, sampling.top_p * total)
        few *= 8
    tokens = _ordered(weights, count)
    held = weights[tokens].astype(np.float64)
    if sampling.top_p == 1:
        return tokens, held
    return _within_p(tokens, held, sampling.top_p * float(held.sum()))


def _within_p(
    tokens: Ids, held: npt.NDArray[np.float64], wanted: float
) -> tuple[Ids, npt.NDArray[np.float64]]:
    count = min(int(np.searchsorted(held.cumsum(), wanted, side="left")) + 1, len(tokens))
    return tokens[:count], held[:count]


def _ordered(weights: Logits, count: int) -> Ids:
    """The ``count`` largest, the largest first; the lower token among equals."""
    size = len(weights)
    some = (
        np.arange(size)
        if count >= size
        else np.sort(np.argpartition(weights, size - count)[size - count :])
    )
    # Numbers and tokens in one integer sort many times as fast as by a stable argsort.
    bits = (weights[some].astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 is 0
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))
    keys = ((~rising).astype(np.uint64) << np.uint64(32)) | some.astype(np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def totals_of(logits: Logits) -> npt.NDArray[np.float64]:
    """The logarithm of the sum of exponentials of each row of logits (B, V)."""
    top = logits.max(axis=-1, keepdims=True)
    exponents = np.exp(logits - top)
    whole = exponents.shape[1] // _BLOCK * _BLOCK
    sums: npt.NDArray[np.float64] = _sums(exponents[:, :whole]).sum(axis=-1)
    sums += exponents[:, whole:].sum(axis=-1)
    totals: npt.NDArray[np.float64] = top[:, 0].astype(np.float64) + np.log(sums)
    return totals


def logprob_of(
    logits: Logits, temperature: float, total: float, token: int, count: int
) -> TokenLogprob:
    """The log-probability of a token under a softmax of logits (V,), over all of them.

    :param total: the logarithm of the sum of exponentials of the logits by the temperature.
    :param count: how many of the likeliest to add.
    """
    best = _ordered(logits, count).tolist() if count else ()
    likeliest = tuple((one, float(logits[one]) / temperature - total) for one in best)
    return TokenLogprob(token, float(logits[token]) / temperature - total, likeliest)
