"""Keep rows apart that a model with longrope (Phi-3) reads with different rotary tables.

Such a model rotates all rows of a batch with its long table as soon as the longest has more tokens
than it was first trained on, so that a short prompt would be answered otherwise beside a long one.
Here each row has the table of its own length. A row that grows past the switch is read anew with
the long table, as transformers' ``generate`` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


class Cache(Protocol):
    """The state of a batch of rows between two steps."""

    def prefill(self, ids: Ids, lengths: Ids) -> Logits:
        """Read right-padded rows (B, T) of ``lengths`` (B,); their logits (B, T, V)."""
        ...

    def step(self, tokens: Ids) -> Logits:
        """Append one token to each row, (B,); the logits that follow it, (B, V)."""
        ...

    def select(self, lines: Sequence[int]) -> None:
        """Go on with these lines of the batch only, in this order."""


def switch_of(config: Mapping[str, Any]) -> int | None:
    """The tokens up to which a row has the short table; None if there is one table alone.

    :param config: the model's ``config.json``.
    """
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping) or rope.get("rope_type") != "longrope":
        return None
    switch = rope.get("original_max_position_embeddings")
    switch = config.get("original_max_position_embeddings") if switch is None else switch
    return switch if isinstance(switch, int) else None


class TwoTableCache:
    """A cache for rows on both sides of the switch.

    :param make: a new cache for that many rows.
    """

    def __init__(self, make: Callable[[int], Cache], switch: int) -> None:
        self._make = make
        self._switch = switch
        self._rows: list[list[int]] = []
        self._parts: list[_Part] = []

    def prefill(self, ids: Ids, lengths: Ids) -> Logits:
        """Read right-padded rows (B, T) of ``lengths`` (B,); their logits (B, T, V)."""
        self._rows = [ids[line, :length].tolist() for line, length in enumerate(lengths)]
        logits: Logits | None = None
        for is_long in (False, True):
            lines = np.flatnonzero((lengths > self._switch) == is_long)
            if not len(lines):
                continue
            part, some = self._read(lines.tolist(), is_long=is_long)
            self._parts.append(part)
            if logits is None:
                logits = np.zeros((*ids.shape, some.shape[-1]), dtype=np.float32)
            logits[lines, : some.shape[1]] = some
        assert logits is not None
        return logits

    def step(self, tokens: Ids) -> Logits:
        """Append one token to each row, (B,); the logits that follow it, (B, V)."""
        for row, token in zip(self._rows, tokens.tolist(), strict=True):
            row.append(token)
        stepped: dict[int, Logits] = {}
        for part in self._parts:
            if not part.is_long:
                part.keep([line for line in part.lines if len(self._rows[line]) <= self._switch])
            if part.lines:
                logits = part.cache.step(tokens[part.lines])
                stepped |= dict(zip(part.lines, logits, strict=True))
        crossed = [line for line in range(len(self._rows)) if line not in stepped]
        if crossed:
            part, some = self._read(crossed, is_long=True)
            self._parts.append(part)
            stepped |= {line: some[place, -1] for place, line in enumerate(crossed)}
        self._parts = [part for part in self._parts if part.lines]
        return np.stack([stepped[line] for line in range(len(self._rows))])

    def select(self, lines: Sequence[int]) -> None:
        """Go on with these lines of the batch only, in this order."""
        places = {line: place for place, line in enumerate(lines)}
        self._rows = [self._rows[line] for line in lines]
        for part in self._parts:
            part.keep([line for line in part.lines if line in places])
            part.lines = [places[line] for line in part.lines]
        self._parts = [part for part in self._parts if part.lines]

    def _read(self, lines: list[int], *, is_long: bool) -> tuple[_Part, Logits]:
        """A part for these rows, and the logits (B, T, V) of all their tokens."""
        lengths = np.array([len(self._rows[line]) for line in lines])
        ids = np.zeros((len(lines), int(lengths.max())), dtype=np.int64)
        for place, line in enumerate(lines):
            ids[place, : lengths[place]] = self._rows[line]
        cache = self._make(len(lines))
        return _Part(cache, lines, is_long), cache.prefill(ids, lengths)


class _Part:
    """Rows that are read together, and their lines in the batch."""

    def __init__(self, cache: Cache, lines: list[int], is_long: bool) -> None:
        self.cache = cache
        self.lines = lines
        self.is_long = is_long

    def keep(self, lines: list[int]) -> None:
        """Go on with these lines alone, which are in the order of the part's."""
        if lines and len(lines) < len(self.lines):
            self.cache.select([place for place, line in enumerate(self.lines) if line in lines])
        self.lines = lines
