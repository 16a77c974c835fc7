"""Count the constraints that answers meet, and the families that pass; for logs and figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from risen_plugin.constraints.judging import asked_of, check_all
from risen_plugin.contracts import Completion, Row, text_of

Count = tuple[int, int]
"""How many of how many."""


def constraints_of(columns: Mapping[str, Any]) -> list[str]:
    """The ids that a row names, as often as it names them."""
    ids = columns.get("instruction_id_list")
    return [str(id_) for id_ in ids] if isinstance(ids, list | tuple) else []


def met_by(completion: Completion, prompt: Any, columns: Mapping[str, Any]) -> list[bool] | None:
    """For each of :func:`constraints_of`, whether the answer meets it.

    None where the row names none, or one that cannot be checked: a log is no place to stop a run.
    """
    ids = constraints_of(columns)
    if not ids:
        return None
    try:
        return check_all(text_of(completion), ids, columns.get("kwargs"), asked_of(prompt))
    except Exception:  # noqa: BLE001  the rows are other people's, and may hold anything
        return None


def counts_by_constraint(
    rows: Sequence[Row], completions: Sequence[Completion]
) -> dict[str, Count]:
    """Per constraint id, how many of how many answers to ``rows`` meet it."""
    met: dict[str, int] = defaultdict(int)
    asked: dict[str, int] = defaultdict(int)
    for row, completion in zip(rows, completions, strict=True):
        verdicts = met_by(completion, row["prompt"], row)
        for id_, is_met in zip(constraints_of(row), verdicts or (), strict=False):
            met[id_] += is_met
            asked[id_] += 1
    return {id_: (met[id_], asked[id_]) for id_ in sorted(asked)}


def counts_by_family(rows: Sequence[Row], passed: Sequence[bool | None]) -> dict[str, Count]:
    """Per family, how many of how many judged answers to its ``rows`` passed.

    :param passed: whether every graded reward passes the answer; None where none judged it.
    """
    good: dict[str, int] = defaultdict(int)
    judged: dict[str, int] = defaultdict(int)
    for row, has_passed in zip(rows, passed, strict=True):
        family = row.get("family")
        if family not in (None, "") and has_passed is not None:
            good[str(family)] += has_passed
            judged[str(family)] += 1
    return {family: (good[family], judged[family]) for family in sorted(judged)}
