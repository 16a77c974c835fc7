"""Write the next token of rows from their logits: settings, grammar, drawing, log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from risen_export.engine import sampling as drawing
from risen_export.engine.requests import Piece, TokenLogprob
from risen_export.engine.rows import Answer
from risen_export.engine.sampling import Logits
from risen_export.runtime.bundle import ids_of
from risen_export.runtime.logits import Row, Settings
from risen_plugin.errors import ExportError


class Writer:
    """Draws what comes next in each row.

    :param folder: of the variant, for messages.
    :param generation: the model's generation settings.
    """

    def __init__(self, folder: Path, generation: Mapping[str, Any]) -> None:
        self._folder = folder
        self._settings = Settings(generation, str(folder / "generation_config.json"))
        self._eos_ids = ids_of(generation.get("eos_token_id"))
        self._sampler = drawing.Sampler()

    def write(self, rows: Sequence[Answer], logits: Logits) -> list[Piece]:
        """Draw the next token of each row, whose logits are (B, V); what has come to each.

        :raises ExportError: if the logits are not numbers.
        """
        self._check_numbers(logits)
        wanted = self._changed(rows, logits)
        samplings = [row.request.sampling for row in rows]
        uniforms = [
            0.0 if one.is_greedy else row.random.random()
            for row, one in zip(rows, samplings, strict=True)
        ]
        drawn = self._sampler.draw(wanted, samplings, uniforms)
        logprobs = _logprobs(logits, wanted, rows, drawn)
        return [
            row.take(token, logprob)
            for row, token, logprob in zip(rows, drawn.tokens.tolist(), logprobs, strict=True)
        ]

    def _changed(self, rows: Sequence[Answer], logits: Logits) -> Logits:
        """What is drawn from: with the model's settings, the request's, and the grammar's."""
        changed: dict[int, Logits] = {}
        for line, row in enumerate(rows):
            one = logits[line]
            if row.request.follow_settings and self._settings.followed:
                so_far = Row(row.request.ids, row.written, row.limit, self._eos_ids)
                one = self._settings.adjust(one[None], [so_far])[0]
            one = drawing.changed(one, row.request.sampling, row.request.ids, row.written)
            if row.matcher is not None:
                one = np.array(one)
                row.matcher.forbid(one)
            if one is not logits[line] and not np.shares_memory(one, logits):
                changed[line] = one
        if not changed:
            return logits
        wanted = logits.copy()
        for line, one in changed.items():
            wanted[line] = one
        return wanted

    def _check_numbers(self, logits: Logits) -> None:
        if np.isnan(logits.max(axis=-1)).any():
            raise ExportError(
                f"the graph in {self._folder} gives NaN in place of logits; its weights are "
                "damaged, or their precision is too low for this model"
            )


def _logprobs(
    own: Logits, wanted: Logits, rows: Sequence[Answer], drawn: drawing.Drawn
) -> list[TokenLogprob | None]:
    """The log-probabilities that each row asks for.

    What drawing has summed up is not summed up again.
    """
    given: list[TokenLogprob | None] = [None] * len(rows)
    asked = [line for line, row in enumerate(rows) if row.request.sampling.logprobs is not None]
    totals = drawn.totals.copy()
    for line in asked:
        one = rows[line].request.sampling
        if not one.scaled_logprobs and (one.temperature != 1 or wanted is not own):
            totals[line] = np.nan
    missing = [line for line in asked if np.isnan(totals[line])]
    if missing:
        scales = [1 / _temperature(rows[line]) for line in missing]
        logits = np.stack([_logits_for(own, wanted, rows, line) for line in missing])
        totals[missing] = drawing.totals_of(logits * np.asarray(scales, np.float32)[:, None])
    for line in asked:
        row = rows[line]
        given[line] = drawing.logprob_of(
            _logits_for(own, wanted, rows, line),
            _temperature(row),
            float(totals[line]),
            int(drawn.tokens[line]),
            row.request.sampling.logprobs or 0,
        )
    return given


def _logits_for(own: Logits, wanted: Logits, rows: Sequence[Answer], line: int) -> Logits:
    """The logits (V,) whose log-probabilities a row asks for."""
    logits: Logits = (wanted if rows[line].request.sampling.scaled_logprobs else own)[line]
    return logits


def _temperature(row: Answer) -> float:
    """What the logits are divided by in the log-probabilities that a row asks for."""
    one = row.request.sampling
    return (one.temperature or 1.0) if one.scaled_logprobs else 1.0
