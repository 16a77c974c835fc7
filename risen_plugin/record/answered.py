"""The greedy answers to held-out rows before a phase and after it, as ``phase.json`` has them.

A person who decides about a model reads them beside each other. They are private as all logged
answers are: the record is not uploaded unless that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from risen_plugin.constraints.judging import asked_of, constraints_of, met_by
from risen_plugin.contracts import Completion, Row, text_of

ANSWERS = "answers"
"""The key of ``phase.json``."""
SETS = ("report", "unseen", "guard")
"""What the rows were set apart for: those that decided nothing first."""
MOST = 256  # rows with their texts; of further ones only the verdicts are kept
LONGEST = 4000  # characters of a text


@dataclass(frozen=True)
class Answer:
    """The answer to a row at one moment.

    :param passed: whether every graded reward passes it; None where none judged it.
    :param met: for each of the row's constraints, whether it is met; None where not checked.
    """

    text: str
    passed: bool | None
    met: Sequence[bool] | None = None


@dataclass(frozen=True)
class Asked:
    """A held-out row with its answer.

    :param set: one of :data:`SETS`.
    :param row: the row's place in its set, from 0.
    :param has_text: whether the prompt and the answer are kept.
    """

    set: str
    row: int
    prompt: str
    constraints: Sequence[str]
    answer: Answer
    has_text: bool = True


@dataclass(frozen=True)
class Pair:
    """A held-out row with its answers before and after; fields as those of :class:`Asked`."""

    set: str
    row: int
    prompt: str
    constraints: Sequence[str]
    before: Answer
    after: Answer
    has_text: bool = True


def asked(
    name: str,
    rows: Sequence[Row],
    completions: Sequence[Completion],
    passed: Sequence[bool | None],
    *,
    first: int = 0,
) -> list[Asked]:
    """Rows of a set with their answers; texts are cut to :data:`LONGEST` characters.

    :param first: the place in the set of the first of them.
    """
    return [
        Asked(
            name,
            place,
            _cut(asked_of(row["prompt"])),
            constraints_of(row),
            Answer(_cut(text_of(completion)), has_passed, met_by(completion, row["prompt"], row)),
        )
        for place, (row, completion, has_passed) in enumerate(
            zip(rows, completions, passed, strict=True), first
        )
    ]


def bounded(rows: Sequence[Asked], most: int = MOST) -> list[Asked]:
    """The rows by the order of :data:`SETS`; after the first ``most`` without their texts."""
    ordered = sorted(rows, key=lambda row: (SETS.index(row.set), row.row))
    bare = [
        replace(row, prompt="", answer=replace(row.answer, text=""), has_text=False)
        for row in ordered[most:]
    ]
    return ordered[:most] + bare


def pairs_as_json(before: Sequence[Asked], after: Sequence[Asked]) -> list[dict[str, Any]]:
    """The rows that were answered at both moments, as ``phase.json`` has them."""
    later = {(row.set, row.row): row for row in after}
    made = []
    for row in before:
        then = later.get((row.set, row.row))
        if then is None:
            continue
        pair: dict[str, Any] = {"set": row.set, "row": row.row}
        if row.has_text and then.has_text:
            pair |= {"prompt": row.prompt}
        pair["constraints"] = list(row.constraints)
        for when, at in (("before", row), ("after", then)):
            text = {"text": at.answer.text} if "prompt" in pair else {}
            met = at.answer.met
            pair[when] = {
                **text,
                "passed": at.answer.passed,
                "met": None if met is None else list(met),
            }
        made.append(pair)
    return made


def pairs_in(data: object) -> list[Pair]:
    """The pairs in the value of ``phase.json``; what is none is left out."""
    found = [_pair(entry) for entry in data] if isinstance(data, list) else []
    return [pair for pair in found if pair is not None]


def _pair(data: object) -> Pair | None:
    if not isinstance(data, Mapping) or data.get("set") not in SETS:
        return None
    row, ids = data.get("row"), data.get("constraints")
    before, after = _answer(data.get("before")), _answer(data.get("after"))
    if not isinstance(row, int) or before is None or after is None:
        return None
    constraints = [str(id_) for id_ in ids] if isinstance(ids, list) else []
    prompt = data.get("prompt")
    return Pair(
        data["set"], row, str(prompt or ""), constraints, before, after, isinstance(prompt, str)
    )


def _answer(data: object) -> Answer | None:
    if not isinstance(data, Mapping):
        return None
    passed, met = data.get("passed"), data.get("met")
    return Answer(
        str(data.get("text") or ""),
        passed if isinstance(passed, bool) else None,
        [bool(one) for one in met] if isinstance(met, list) else None,
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
