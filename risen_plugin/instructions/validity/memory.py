"""Remember admitted rows, to know duplicates of instructions and near-duplicates of queries.

Two instructions are the same if their normalised queries are, and their ids with their kwargs.
Two queries are near if the sets of their word runs overlap enough (Jaccard). Candidates are found
by MinHash and then compared exactly, so nothing is called near that is not.
"""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from risen_plugin.instructions.validity.words import hash_of, packed, runs_of, unpacked, words_of

_RUN = 2  # words in a run
_BANDS, _ROWS = 16, 3  # two queries with an overlap of 0.7 are candidates in 99.9 % of cases
_MASK = (1 << 64) - 1
_draws = random.Random("bands of queries")
_FACTORS = tuple(
    (_draws.getrandbits(64) | 1, _draws.getrandbits(64)) for _ in range(_BANDS * _ROWS)
)


def instruction_key(query: str, ids: Sequence[str], kwargs: Sequence[Mapping[str, Any]]) -> int:
    """64 bits that are the same for duplicates: of the query's words and the ids with kwargs."""
    asked = sorted(
        json.dumps([id_, values], sort_keys=True, default=repr)
        for id_, values in zip(ids, kwargs, strict=True)
    )
    return hash_of(json.dumps([words_of(query) or [query.strip()], asked]))


class SeenInstructions:
    """The admitted instructions, eight bytes each in a checkpoint."""

    def __init__(self) -> None:
        self._keys: set[int] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: int) -> bool:
        return key in self._keys

    def add(self, key: int) -> None:
        self._keys.add(key)

    def state_dict(self) -> dict[str, Any]:
        return {"keys": packed(sorted(self._keys))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._keys = set(unpacked(state["keys"]))


class SeenQueries:
    """The admitted queries, by their runs of words.

    :param near: the overlap of word pairs, from 0 to 1, from which on two queries are near.
    """

    def __init__(self, near: float) -> None:
        self.near = near
        self._runs: list[array[int]] = []
        self._bands: dict[tuple[int, int], list[int]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def is_near(self, query: str) -> bool:
        """Whether a query that was added is near to ``query``, or the same."""
        runs = _runs(query)
        candidates = {number for band in _bands(runs) for number in self._bands.get(band, ())}
        return any(_overlap(runs, self._runs[number]) >= self.near for number in candidates)

    def add(self, query: str) -> None:
        self._add(array("Q", sorted(_runs(query))))

    def _add(self, runs: array[int]) -> None:
        for band in _bands(set(runs)):
            self._bands.setdefault(band, []).append(len(self._runs))
        self._runs.append(runs)

    def state_dict(self) -> dict[str, Any]:
        return {"queries": [packed(runs) for runs in self._runs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._runs, self._bands = [], {}
        for text in state["queries"]:
            self._add(unpacked(text))


def _runs(query: str) -> set[int]:
    words = words_of(query) or [query.strip()]
    return set(runs_of(words, min(_RUN, len(words))))


def _bands(runs: set[int]) -> list[tuple[int, int]]:
    smallest = [min((factor * run + shift) & _MASK for run in runs) for factor, shift in _FACTORS]
    return [
        (band, hash(tuple(smallest[band * _ROWS : (band + 1) * _ROWS]))) for band in range(_BANDS)
    ]


def _overlap(first: set[int], second: array[int]) -> float:
    shared = sum(run in first for run in second)
    return shared / (len(first) + len(second) - shared)
