"""Ask a built graph what its model was asked, and measure how far apart they are. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from risen_export.gate.measured import Measured
from risen_export.gate.measures import divergence, token_losses
from risen_export.gate.probe import ANSWER_TOKENS, Probe, Row, long_rows
from risen_export.gate.reference import Reference, taken
from risen_export.runtime.bundle import Bundle
from risen_export.runtime.chat import ChatTokenizer
from risen_plugin.contracts import Prompt
from risen_plugin.errors import DataError, ExportError

_TIE = 1e-3
"""Tokens whose log-probabilities differ by less, in spreads of the logits, are equally likely."""
_CELLS = 32 * 1024 * 1024
"""Logits of one run, so that memory stays bounded."""

Encode = Callable[[Prompt], Sequence[int]]


def rows_of(
    bundle: Bundle,
    probe: Probe,
    encode: Encode,
    config: dict[str, Any],
    *,
    tokens: int = ANSWER_TOKENS,
) -> list[Row]:
    """The probe's rows, answered greedily by ``bundle``, past the end of text.

    :param encode: the source tokenizer's.
    :param config: the model's ``config.json``.
    :param tokens: of each answer.
    :raises ExportError: if no prompt leaves room for an answer.
    """
    golden = [(one.prompt, one.expected, "golden") for one in probe.golden]
    others: list[tuple[Prompt, tuple[str, ...], str]] = [
        (one, (), "prompt") for one in probe.prompts
    ]
    asked = [(prompt, expected, kind, encode(prompt)) for prompt, expected, kind in golden + others]
    room = bundle.context_length
    fit = [one for one in asked if one[3] and len(one[3]) < room]
    if not fit:
        raise ExportError(
            f"no room to compare: the shortest prompt has {min(len(one[3]) for one in asked)} "
            f"tokens, the context {room}; give shorter prompts, or leave the comparison out with "
            "--no-verify"
        )
    answers = bundle.generate_ids(
        [ids for *_, ids in fit],
        max_new_tokens=tokens,
        ignore_eos=True,
        follow_settings=False,
    )
    rows = [
        Row((*ids, *answer), len(ids), prompt, expected, kind)
        for (prompt, expected, kind, ids), answer in zip(fit, answers, strict=True)
    ]
    for text in probe.texts:
        ids = tuple(encode(text))[:room]
        if len(ids) > 1:
            rows.append(Row(ids, len(ids), text, kind="text"))
    for ids in long_rows(config, bundle.vocabulary, room):
        rows.append(Row(ids, len(ids), "", kind="long"))
    return rows


def refer(
    bundle: Bundle, rows: Sequence[Row], *, ends: frozenset[int], context: int | None
) -> Reference:
    """What the exact graph says of the rows, in place of the model that it was held to."""

    def read(ids: Sequence[int]) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = bundle.logits(np.array([ids], dtype=np.int64))[0]
        return logits

    return taken(read, rows, ends=ends, context=context)


@dataclass(frozen=True)
class Heard:
    """What a graph said of its own answers' rows, kept so that its memory can be given back.

    :param said: logits (T, V) of each row.
    """

    tokenizer: ChatTokenizer
    eos_ids: frozenset[int]
    context_length: int
    said: Sequence[npt.NDArray[np.float32]]

    @classmethod
    def of(cls, bundle: Bundle, rows: Sequence[Row]) -> Heard:
        """Have a graph read rows that hold its own answers."""
        said = {index: logits.copy() for index, logits in _read(bundle, rows)}
        in_order = [said[index] for index in range(len(rows))]
        return cls(bundle.tokenizer, bundle.eos_ids, bundle.context_length, in_order)


def measure(asked: Bundle | Heard, reference: Reference) -> Measured:
    """Measure a bundle, or what was heard of it, against its model.

    A bundle that refuses the model's own rows keeps no limit: its measures are NaN.

    :raises ExportError: if its graph does not run.
    """
    try:
        sums = _Sums(reference)
        heard = enumerate(asked.said) if isinstance(asked, Heard) else _read(asked, reference.rows)
        for index, logits in heard:
            sums.add(index, logits)
        return sums.measured(*_greedy(asked, reference), odd_files(asked, reference))
    except DataError as error:
        return Measured.of_nothing([*odd_files(asked, reference), str(error)])


def _read(bundle: Bundle, rows: Sequence[Row]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The logits (T, V) of each row, by its index; rows of unequal length are read together."""
    for group in _groups(rows, bundle.vocabulary):
        lengths = [len(rows[index].ids) for index in group]
        ids = np.zeros((len(group), max(lengths)), dtype=np.int64)
        for line, index in enumerate(group):
            ids[line, : lengths[line]] = rows[index].ids
        logits = bundle.logits(ids, lengths)
        for line, index in enumerate(group):
            yield index, logits[line, : lengths[line]]


def odd_files(bundle: Bundle | Heard, reference: Reference) -> list[str]:
    """What of the bundle's tokenizer, template and settings is not the model's, in words."""
    odd = []
    for row in reference.rows:
        if row.kind == "long":
            continue
        asked = row.ids if row.kind == "text" else row.ids[: row.start]
        try:
            ours = tuple(bundle.tokenizer.encode(row.prompt))
        except DataError as error:
            odd.append(f"its chat template refuses a prompt that the model's takes: {error}")
            break
        if ours[: len(asked)] != asked or (row.kind != "text" and len(ours) != len(asked)):
            odd.append("its tokenizer or chat template makes other tokens than the model's")
            break
    if bundle.eos_ids != reference.ends:
        odd.append(
            f"its answers end at {sorted(bundle.eos_ids)}, the model's at {sorted(reference.ends)}"
        )
    if reference.context is not None and bundle.context_length != reference.context:
        odd.append(
            f"its context is {bundle.context_length} tokens, the model's {reference.context}"
        )
    return odd


class _Sums:
    """Adds up what is measured, row by row."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._divergences: list[npt.NDArray[np.float64]] = []
        self._agreed = self._answered = 0
        self._losses: list[npt.NDArray[np.float32]] = []
        self._differences: list[float] = []
        self._finite = True

    def add(self, index: int, logits: npt.NDArray[np.float32]) -> None:
        reference, row = self._reference, self._reference.rows[index]
        expected, compared = reference.likeliest[index], logits[reference.compared(index)]
        self._finite &= bool(np.isfinite(logits).all())
        self._divergences.append(divergence(expected, compared))
        if row.kind == "text":
            self._losses.append(token_losses(logits, np.array(row.ids)))
        if reference.logits:
            theirs = np.load(reference.logits[index], mmap_mode="r", allow_pickle=False)
            self._differences.append(float(np.abs(compared - theirs).max()))
        if row.answer:
            answered = slice(row.start - 1, -1)
            self._agreed += self._agreeing(index, logits, answered)
            self._answered += len(row.answer)

    def _agreeing(self, index: int, logits: npt.NDArray[np.float32], answered: slice) -> int:
        """Tokens of an answer that the graph finds the likeliest, or the model as likely."""
        expected = self._reference.likeliest[index]
        ours = logits[answered].argmax(axis=-1)
        ids, log_probs = expected.ids[answered], expected.log_probs[answered]
        near = log_probs >= log_probs[:, :1] - _TIE * self._reference.spread
        return int(((ids == ours[:, None]) & near).any(axis=-1).sum())

    def measured(
        self, greedy_equal: int, golden: int, lost: list[tuple[str, str]], odd: list[str]
    ) -> Measured:
        reference = self._reference
        every = np.concatenate(self._divergences)
        theirs = np.concatenate([*reference.losses, np.zeros(0)])
        ours = np.concatenate([*self._losses, np.zeros(0)])
        return Measured(
            positions=len(every),
            answered=self._answered,
            agreement=self._agreed / max(self._answered, 1),
            kl_mean=float(every.mean()),
            kl_p99=float(np.quantile(every, 0.99)),
            perplexity=float(np.exp(ours.mean())) if len(ours) else None,
            perplexity_reference=float(np.exp(theirs.mean())) if len(theirs) else None,
            greedy_equal=greedy_equal,
            logit_diff=max(self._differences) if self._differences else None,
            logit_spread=reference.spread,
            golden=golden,
            golden_lost=lost,
            not_finite=not self._finite,
            odd_files=odd,
        )


def _greedy(bundle: Bundle | Heard, reference: Reference) -> tuple[int, int, list[tuple[str, str]]]:
    """(equal greedy tokens, golden prompts that the model meets, those that the graph loses)."""
    rows = [row for row in reference.rows if row.answer]
    answers: Sequence[Sequence[int]] = [row.answer for row in rows]
    if isinstance(bundle, Bundle):  # what was heard is of rows with the graph's own answers
        answers = bundle.generate_ids(
            [row.ids[: row.start] for row in rows],
            max_new_tokens=max(len(row.answer) for row in rows),
            ignore_eos=True,
            follow_settings=False,
        )
    equal, golden, lost = 0, 0, []
    for row, answer in zip(rows, answers, strict=True):
        equal += sum(a == b for a, b in zip(answer, row.answer, strict=False))
        if row.kind != "golden":
            continue
        theirs, ours = (_text(bundle, one, reference.ends) for one in (row.answer, answer))
        if _holds(theirs, row.expected):
            golden += 1
            if not _holds(ours, row.expected):
                lost.append((_shown(row.prompt), ours))
    return equal, golden, lost


def missed(bundle: Bundle, reference: Reference, prompts: Sequence[Prompt]) -> list[str]:
    """The golden ones of ``prompts`` that the model itself answers wrongly."""
    own = set(map(_shown, prompts))
    golden = [row for row in reference.rows if row.kind == "golden" and _shown(row.prompt) in own]
    answers = [_text(bundle, row.answer, reference.ends) for row in golden]
    return [
        _shown(row.prompt)
        for row, answer in zip(golden, answers, strict=True)
        if not _holds(answer, row.expected)
    ]


def _text(bundle: Bundle | Heard, answer: Sequence[int], ends: frozenset[int]) -> str:
    end = next((i for i, token in enumerate(answer) if token in ends), len(answer))
    return bundle.tokenizer.decode(answer[:end])


def _holds(answer: str, expected: Sequence[str]) -> bool:
    """Whether an answer holds one of the words, as a word and whatever its case."""
    return any(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", answer, re.I) for one in expected)


def _shown(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1].get("content", ""))


def _groups(rows: Sequence[Row], vocabulary: int) -> Iterator[list[int]]:
    """Rows of unequal lengths to read together, the longest first, bounded by their logits."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    while order:
        size = max(1, min(8, _CELLS // (len(rows[order[0]].ids) * vocabulary)))
        yield order[:size]
        order = order[size:]
