"""The instructions of an audit, with the known right and wrong answers to them.

They come from constraint rows written by hand (``planted``), questions with a reference, and the
user's rows. Where no verdict is known, an answer is judged by its control; see ``acceptance``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from risen_plugin.commands.audit.planted import LONG, PLANTED, Planted
from risen_plugin.constraints import KNOWN
from risen_plugin.contracts import Row, text_of
from risen_plugin.errors import DataError, near_miss

REFERENCES = ("answer", "solution", "target", "reference", "label", "ground_truth")
"""Columns whose value, if it is a text or a number, is taken for the right answer."""
IDS = "instruction_id_list"

_QUESTIONS = (
    ("Which city is the capital of Norway, where the fjord ends?", "Oslo"),
    ("How much is six times seven? Give the number.", "42"),
    ("What is the French word for coffee?", "café"),
    ("Who wrote Hamlet? Give first name and last name.", "William Shakespeare"),
    ("What is the opposite of a beginning?", "end"),
    ("Which metal has the symbol Au?", "gold"),
)
_PROMPTS = (
    "Describe a day at sea, and say what the weather was like.",
    "Name three rivers that flow through Germany.",
    "Explain in a few words why leaves turn brown in October.",
    "Write a short letter to your landlord about the broken heating.",
    "Which instrument would you learn first? Give 2 reasons.",
    "Summarise the plot of a film that you know well.",
)


@dataclass(frozen=True)
class Instruction:
    """One row with known answers to it.

    :param right: answers that are right.
    :param wrong: answers that come near and are wrong.
    :param inside: wrong answers in which the asked word occurs only inside longer words.
    :param stuffed: wrong answers that name every candidate.
    :param is_known: whether answers that say nothing are wrong by construction.
    :param spoil: a text that makes such an answer wrong when added to it.
    :param strict_row: the row for answers made of the prompt's words, where those would be right.
    :param is_certain: whether refusing a right answer is a fault rather than another format.
    """

    row: Row
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    stuffed: tuple[str, ...] = ()
    is_known: bool = False
    spoil: str = ""
    strict_row: Row | None = None
    is_certain: bool = False

    @property
    def prompt(self) -> str:
        """The prompt as text."""
        return text_of(self.row["prompt"])

    @property
    def reads_constraints(self) -> bool:
        """Whether the verdict comes from constraints."""
        return bool(self.row.get(IDS))


def instructions(
    needs: Sequence[str], rows: Sequence[Row], label: str, *, quick: bool = False
) -> list[Instruction]:
    """Instructions with the columns that a reward needs.

    :param rows: the user's rows, or parts of rows; the columns of a single one without a prompt
        go into every instruction.
    :param quick: fewer instructions, but still of every kind.
    :raises DataError: if a needed column is neither in the rows nor known.
    """
    base: dict[str, Any] = {}
    if len(rows) == 1 and "prompt" not in rows[0]:
        base = dict(rows[0])
    wants_constraints = IDS in needs and not any(IDS in row for row in rows)
    has_reference = not wants_constraints and any(n in REFERENCES for row in rows for n in row)
    wants_reference = [name for name in needs if name in REFERENCES and name not in base]
    if rows and (len(rows) > 1 or "prompt" in rows[0] or has_reference):
        made = [_from_row(row) for row in rows]
    elif wants_constraints:
        made = [_planted(case) for case in PLANTED if case.id in KNOWN]
    elif wants_reference:
        made = _questions(wants_reference)
    else:
        made = [Instruction({"prompt": prompt}) for prompt in _PROMPTS]
    right = (text_of(base.pop("completion")),) if "completion" in base else ()
    made = [_with(one, base, right) for one in made]
    _check(needs, made, label)
    return made[:: max(1, len(made) // 6)] if quick else made


def _check(needs: Sequence[str], made: Iterable[Instruction], label: str) -> None:
    for one in made:
        missing = [name for name in needs if name not in one.row]
        if missing:
            hint = near_miss(missing[0], one.row)
            raise DataError(
                f"{label} needs the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
                f"{hint or ';'} give a value as in --column {missing[0]}='\"...\"', or rows with "
                "--columns FILE.json"
            )


def _with(one: Instruction, base: Mapping[str, Any], right: tuple[str, ...]) -> Instruction:
    if right:
        one = replace(one, right=right, is_certain=True)
    if not base:
        return one
    strict = None if one.strict_row is None else {**one.strict_row, **base}
    return replace(one, row={**one.row, **base}, strict_row=strict)


def _planted(case: Planted) -> Instruction:
    row = {"prompt": case.prompt, IDS: [case.id], "kwargs": [dict(case.kwargs)]}
    row["query"] = case.query
    strict = dict(row)
    if case.words_meet:
        strict |= {IDS: [case.id, LONG[0]], "kwargs": [dict(case.kwargs), dict(LONG[1])]}
    return Instruction(
        row,
        right=case.right,
        wrong=case.wrong,
        inside=case.inside,
        is_known=True,
        spoil=case.spoil,
        strict_row=strict,
        is_certain=True,
    )


def _questions(columns: Sequence[str]) -> list[Instruction]:
    return [
        _referenced({"prompt": question, **dict.fromkeys(columns, reference)}, reference)
        for question, reference in _QUESTIONS
    ]


def _from_row(row: Row) -> Instruction:
    row = {"prompt": "Answer as you were asked.", **row}
    completion = row.pop("completion", None)
    reference = next(
        (
            str(row[name])
            for name in REFERENCES
            if isinstance(row.get(name), str | int | float) and str(row[name]).strip()
        ),
        None,
    )
    known = Instruction(row) if reference is None else _referenced(row, reference)
    if completion is not None:
        known = replace(known, right=(text_of(completion),), is_certain=True)
    return known


def _referenced(row: Row, reference: str) -> Instruction:
    others = [other for _, other in _QUESTIONS if other.casefold() != reference.casefold()]
    return Instruction(
        row,
        right=(reference,),
        wrong=(others[0], others[1], f"It is not {reference}.", reference[: len(reference) // 2]),
        inside=(f"pre{reference}ed", f"x{reference}x", f"{reference}9"),
        stuffed=(", ".join([*others, reference]), " or ".join([reference, *others])),
        is_known=True,
    )
