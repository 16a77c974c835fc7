"""Draw the next tokens from logits: pure functions of logits, settings and uniform numbers.

A token is drawn by inverting the distribution at one uniform number, so that a row needs one random
number for each token and no sorted vocabulary. Rows that leave nothing out are drawn together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from risen_export.engine.requests import Sampling, TokenLogprob
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
        seen = np.unique(np.asarray([*prompt, *answer], dtype=np.int64))
        seen = seen[seen < len(row)]
        own, factor = row[seen], np.float32(sampling.repetition_penalty)
        row[seen] = np.where(own < 0, own * factor, own / factor)
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


def draw(logits: Logits, samplings: Sequence[Sampling], uniforms: Sequence[float]) -> Ids:
    """The next token of each row of logits (B, V), their changes applied.

    :param uniforms: a number from [0, 1) for each row; a greedy row needs none.
    """
    tokens = np.empty(len(samplings), dtype=np.int64)
    greedy = [line for line, one in enumerate(samplings) if one.is_greedy]
    whole = [line for line, one in enumerate(samplings) if not one.is_greedy and _is_whole(one)]
    if greedy:
        tokens[greedy] = _some(logits, greedy).argmax(axis=-1)
    if whole:
        temperatures = np.asarray([samplings[line].temperature for line in whole], np.float32)
        weights = _weights(_some(logits, whole), temperatures)
        tokens[whole] = _inverted(weights, np.asarray([uniforms[line] for line in whole]))
    for line in set(range(len(samplings))) - {*greedy, *whole}:
        tokens[line] = _draw_filtered(logits[line], samplings[line], uniforms[line])
    return tokens


def _some(logits: Logits, lines: list[int]) -> Logits:
    """Some rows; no copy where it is all of them."""
    return logits if len(lines) == len(logits) else logits[lines]


def _is_whole(sampling: Sampling) -> bool:
    return sampling.top_k == 0 and sampling.top_p == 1 and sampling.min_p == 0


def _weights(logits: Logits, temperatures: npt.NDArray[np.float32]) -> Logits:
    """Probabilities up to a factor, (B, W): W is the vocabulary, padded with zeros to blocks."""
    rows, width = logits.shape
    padded = np.zeros((rows, -(-width // _BLOCK) * _BLOCK), dtype=np.float32)
    inner = padded[:, :width]
    np.subtract(logits, logits.max(axis=-1, keepdims=True), out=inner)
    inner /= temperatures[:, None]
    np.exp(inner, out=inner)
    return padded


def _inverted(weights: Logits, uniforms: npt.NDArray[np.float64]) -> Ids:
    """The token of each row at which the sum of weights passes the uniform share of their total."""
    rows = len(weights)
    blocks = weights.reshape(rows, -1, _BLOCK)
    sums = blocks.sum(axis=-1).astype(np.float64)
    ends = sums.cumsum(axis=-1)
    targets = uniforms * ends[:, -1]
    tokens = np.empty(rows, dtype=np.int64)
    for line in range(rows):
        block = min(
            int(np.searchsorted(ends[line], targets[line], side="right")), len(ends[line]) - 1
        )
        inside = blocks[line, block].astype(np.float64).cumsum()
        before = ends[line, block - 1] if block else 0.0
        place = int(np.searchsorted(inside, targets[line] - before, side="right"))
        # Rounding may point past the last weight; the last that is not zero is meant.
        last = int(np.flatnonzero(blocks[line, block])[-1])
        tokens[line] = block * _BLOCK + min(place, last)
    return tokens


def _draw_filtered(logits: Logits, sampling: Sampling, uniform: float) -> int:
    scaled = (logits - logits.max()) / np.float32(sampling.temperature)
    weights = np.exp(scaled)
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
    if sampling.top_p < 1 and count > _FEW:
        tokens = _ordered(weights, _FEW)
        held = weights[tokens].astype(np.float64)
        if count == size and held.sum() >= sampling.top_p * total:
            return _within_p(tokens, held, sampling.top_p * total)
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
    return some[np.argsort(-weights[some], kind="stable")].astype(np.int64)


def logprobs(logits: Logits, tokens: Sequence[int], counts: Sequence[int]) -> list[TokenLogprob]:
    """The log-probabilities of the tokens under a softmax of logits (B, V), over all of them.

    :param counts: how many of the likeliest to add for each row.
    """
    top = logits.max(axis=-1, keepdims=True)
    exponents = np.exp(logits - top)
    # Sums of blocks are exact enough in float32, and their sum is taken in float64.
    whole = top[:, 0].astype(np.float64) + np.log(_sums(exponents))
    given = []
    for line, (token, count) in enumerate(zip(tokens, counts, strict=True)):
        row = logits[line]
        best = _ordered(row, count) if count else ()
        likeliest = tuple((int(one), float(row[one] - whole[line])) for one in best)
        given.append(TokenLogprob(int(token), float(row[token] - whole[line]), likeliest))
    return given


def _sums(values: Logits) -> npt.NDArray[np.float64]:
    rows, width = values.shape
    whole = width // _BLOCK * _BLOCK
    blocks = values[:, :whole].reshape(rows, -1, _BLOCK).sum(axis=-1)
    rest = values[:, whole:].sum(axis=-1)
    total: npt.NDArray[np.float64] = blocks.sum(axis=-1, dtype=np.float64) + rest
    return total
