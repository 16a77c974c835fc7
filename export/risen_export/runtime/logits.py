"""Change next-token logits as a model's generation settings ask, in plain numpy.

Each setting of ``generation_config.json`` that is a function of the tokens so far is followed, in
the order in which transformers applies them; the tests hold them equal to its own. Settings that
need another search (beams) or another pass of the model are only named: :data:`NOT_FOLLOWED`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from risen_plugin.errors import ExportError

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One prompt with the answer so far.

    :param limit: most tokens of prompt and answer together.
    :param eos_ids: tokens that end an answer.
    """

    prompt: Sequence[int]
    answer: Sequence[int]
    limit: int
    eos_ids: frozenset[int]

    @property
    def ids(self) -> list[int]:
        """All tokens so far."""
        return [*self.prompt, *self.answer]


# Changes the scores (V,) of one row in place.
Processor = Callable[[Scores, Row], None]


class Settings:
    """The settings of a ``generation_config.json`` that change the likeliest token.

    ``followed`` has their names. :meth:`adjust` applies them.

    :raises ExportError: if a value is not of the kind that its name asks for.
    """

    def __init__(self, generation: Mapping[str, Any], whose: str = "generation_config.json"):
        self._processors: list[Processor] = []
        names = []
        for name, (make, neutral) in _MAKERS.items():
            value = generation.get(name)
            if value is None or value == neutral:
                continue
            try:
                self._processors.append(make(value))
            except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
                raise ExportError(f"{whose}: {name} cannot be {value!r}") from error
            names.append(name)
        self.followed = tuple(names)

    def adjust(self, logits: Scores, rows: Sequence[Row]) -> Scores:
        """The logits (B, V) of the next token of each row, changed; ``logits`` stay as they are.

        :raises ExportError: if a setting names a token that the vocabulary does not have.
        """
        if not self._processors:
            return logits
        changed = logits.copy()
        for scores, row in zip(changed, rows, strict=True):
            for process in self._processors:
                try:
                    process(scores, row)
                except IndexError as error:
                    raise ExportError(
                        "the model's generation settings name a token that is not among its "
                        f"{len(scores)}"
                    ) from error
        return changed


def not_followed(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with their values, that would change an answer and are not followed here."""
    return {
        name: generation[name]
        for name, neutral in NOT_FOLLOWED.items()
        if generation.get(name) not in (None, neutral)
    }


def _sequence_bias(value: Any) -> Processor:
    pairs = [(tuple(map(int, ids)), float(bias)) for ids, bias in value]
    return lambda scores, row: _add_bias(scores, row.ids, pairs)


def _bad_words(value: Any) -> Processor:
    words = [tuple(map(int, ids)) for ids in value]

    def process(scores: Scores, row: Row) -> None:
        ends = {(token,) for token in row.eos_ids}
        pairs = [(ids, -np.inf) for ids in words if ids not in ends]
        _add_bias(scores, row.ids, pairs)

    return process


def _add_bias(
    scores: Scores, ids: Sequence[int], pairs: Sequence[tuple[tuple[int, ...], float]]
) -> None:
    """Add a bias to the last token of each sequence whose beginning was just written."""
    for sequence, bias in pairs:
        *before, last = sequence
        if len(before) <= len(ids) and list(ids[len(ids) - len(before) :]) == before:
            scores[last] += bias


def _repetition_penalty(value: Any) -> Processor:
    penalty = _positive(value)
    return lambda scores, row: divide(scores, row.ids, penalty)


def _encoder_repetition_penalty(value: Any) -> Processor:
    reward = 1 / _positive(value)
    return lambda scores, row: divide(scores, row.prompt, reward)


def divide(scores: Scores, ids: Sequence[int], penalty: float) -> None:
    """Make tokens less likely in place: scores (V,) above 0 are divided, those below multiplied."""
    tokens = np.unique(np.asarray(ids, dtype=np.int64))
    tokens = tokens[tokens < len(scores)]
    own = scores[tokens]
    factor = np.float32(penalty)
    scores[tokens] = np.where(own < 0, own * factor, own / factor)


def _no_repeat_ngram(value: Any) -> Processor:
    size = _count(value)
    return lambda scores, row: _ban_ngrams(scores, row.ids, row.ids, size)


def _encoder_no_repeat_ngram(value: Any) -> Processor:
    size = _count(value)
    return lambda scores, row: _ban_ngrams(scores, row.prompt, row.ids, size)


def _ban_ngrams(scores: Scores, seen: Sequence[int], ids: Sequence[int], size: int) -> None:
    """Ban what would complete a sequence of ``size`` tokens that is in ``seen``."""
    if len(ids) + 1 < size:
        return
    before = list(ids[len(ids) + 1 - size :])
    for start in range(len(seen) - size + 1):
        if list(seen[start : start + size - 1]) == before:
            scores[seen[start + size - 1]] = -np.inf


def _min_length(value: Any) -> Processor:
    least = _count(value)

    def process(scores: Scores, row: Row) -> None:
        if len(row.ids) < least:
            scores[list(row.eos_ids)] = -np.inf

    return process


def _min_new_tokens(value: Any) -> Processor:
    least = _count(value)

    def process(scores: Scores, row: Row) -> None:
        if len(row.answer) < least:
            scores[list(row.eos_ids)] = -np.inf

    return process


def _forced_bos(value: Any) -> Processor:
    token = _count(value)

    def process(scores: Scores, row: Row) -> None:
        if len(row.ids) == 1:
            _force(scores, [token])

    return process


def _forced_eos(value: Any) -> Processor:
    tokens = _tokens(value)

    def process(scores: Scores, row: Row) -> None:
        if len(row.ids) == row.limit - 1:
            _force(scores, tokens)

    return process


def _force(scores: Scores, tokens: list[int]) -> None:
    scores[:] = -np.inf
    scores[tokens] = 0


def _remove_invalid(_: Any) -> Processor:
    largest = float(np.finfo(np.float32).max)

    def process(scores: Scores, row: Row) -> None:
        np.nan_to_num(scores, copy=False, nan=0.0, posinf=largest, neginf=-largest)

    return process


def _exponential_decay(value: Any) -> Processor:
    start, factor = int(value[0]), float(value[1])

    def process(scores: Scores, row: Row) -> None:
        past = len(row.answer) - start
        if past > 0:
            ends = list(row.eos_ids)
            finite = np.where(np.isfinite(scores[ends]), scores[ends], np.float32(0))
            with np.errstate(over="ignore"):
                scores[ends] += np.abs(finite) * np.float32(factor**past - 1)

    return process


def _suppress(value: Any) -> Processor:
    tokens = _tokens(value)

    def process(scores: Scores, row: Row) -> None:
        scores[tokens] = -np.inf

    return process


def _begin_suppress(value: Any) -> Processor:
    tokens = _tokens(value)

    def process(scores: Scores, row: Row) -> None:
        if len(row.answer) == 0:
            scores[tokens] = -np.inf

    return process


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError(value)
    return number


def _count(value: Any) -> int:
    number = int(value)
    if number < 0:
        raise ValueError(value)
    return number


def _tokens(value: Any) -> list[int]:
    return [_count(token) for token in (value if isinstance(value, list) else [value])]


# In the order of transformers' generation; with the value that changes nothing.
_MAKERS: dict[str, tuple[Callable[[Any], Processor], Any]] = {
    "sequence_bias": (_sequence_bias, []),
    "encoder_repetition_penalty": (_encoder_repetition_penalty, 1.0),
    "repetition_penalty": (_repetition_penalty, 1.0),
    "no_repeat_ngram_size": (_no_repeat_ngram, 0),
    "encoder_no_repeat_ngram_size": (_encoder_no_repeat_ngram, 0),
    "bad_words_ids": (_bad_words, []),
    "min_length": (_min_length, 0),
    "min_new_tokens": (_min_new_tokens, 0),
    "forced_bos_token_id": (_forced_bos, None),
    "forced_eos_token_id": (_forced_eos, None),
    "remove_invalid_values": (_remove_invalid, False),
    "exponential_decay_length_penalty": (_exponential_decay, None),
    "suppress_tokens": (_suppress, []),
    "begin_suppress_tokens": (_begin_suppress, []),
}

NOT_FOLLOWED: dict[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "constraints": None,
    "force_words_ids": None,
    "penalty_alpha": 0,
    "dola_layers": None,
    "guidance_scale": 1,
    "watermarking_config": None,
    "stop_strings": None,
    "token_healing": False,
    "max_time": None,
    "num_return_sequences": 1,
}
"""Settings that change an answer and are not followed; with the value that changes nothing."""
