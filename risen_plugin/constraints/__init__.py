"""Constraints that code can check, under the ids and kwargs of IFEval.

Rows with ``instruction_id_list`` and ``kwargs`` work unchanged; a null kwarg is an absent one.
Everything is deterministic and offline. An unknown id or a wrong kwarg is an error: never a pass,
never a silent fail. ``docs/reference/constraints.md`` lists where a check differs from IFEval's.

>>> check_all("TWO WORDS", ["change_case:english_capital"], [{}])
[True]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from risen_plugin.constraints import (
    change_case,
    combination,
    detectable_content,
    detectable_format,
    keywords,
    length_constraints,
    punctuation,
    startend,
)
from risen_plugin.constraints.core import Constraint, Kind
from risen_plugin.errors import DataError, near_miss

__all__ = ["KNOWN", "Constraint", "Kind", "check_all", "clash", "parse"]

_OFFERED: tuple[type[Constraint], ...] = (
    change_case.CapitalWordFrequency,
    change_case.EnglishCapital,
    change_case.EnglishLowercase,
    combination.RepeatPrompt,
    combination.TwoResponses,
    detectable_content.NumberPlaceholders,
    detectable_content.Postscript,
    detectable_format.ConstrainedResponse,
    detectable_format.JsonFormat,
    detectable_format.MultipleSections,
    detectable_format.NumberBulletLists,
    detectable_format.NumberHighlightedSections,
    detectable_format.Title,
    keywords.Existence,
    keywords.ForbiddenWords,
    keywords.Frequency,
    keywords.LetterFrequency,
    length_constraints.NthParagraphFirstWord,
    length_constraints.NumberParagraphs,
    length_constraints.NumberSentences,
    length_constraints.NumberWords,
    punctuation.NoComma,
    startend.EndChecker,
    startend.Quotation,
)
KNOWN: Mapping[str, type[Constraint]] = MappingProxyType({known.id: known for known in _OFFERED})
"""Every constraint by its id."""


def clash(first: str, second: str) -> bool:
    """Whether no answer should be asked to meet both known ids; an id clashes with itself."""
    return first == second or first in KNOWN[second].conflicts or second in KNOWN[first].conflicts


def parse(
    instruction_id: str, kwargs: Mapping[str, Any] | None, prompt: str | None = None
) -> Constraint:
    """The constraint with this id and these kwargs, null ones being absent.

    ``prompt`` stands in for the kwarg of a constraint that is about the prompt itself.

    :raises DataError: for an unknown id, and for a kwarg that is unknown, missing or wrong.
    """
    known = KNOWN.get(instruction_id) if isinstance(instruction_id, str) else None
    if known is None:
        raise DataError(
            f"unknown constraint {_short(instruction_id)}{near_miss(str(instruction_id), KNOWN)}"
        )
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise DataError(
            f"constraint '{known.id}': kwargs must be a mapping of names to values, "
            f"not {_short(kwargs)}"
        )
    given = {name: value for name, value in (kwargs or {}).items() if value is not None}
    if known.prompt_kwarg is not None and prompt is not None:
        given.setdefault(known.prompt_kwarg, prompt)
    try:
        return known(**_read(known, given))
    except ValueError as error:
        raise DataError(f"constraint '{known.id}': {error}") from error


def _read(known: type[Constraint], given: Mapping[str, Any]) -> dict[str, Any]:
    schema = known.schema()
    for name in given:
        if name not in schema:
            takes = ", ".join(schema) or "none"
            raise ValueError(
                f"no kwarg {_short(name)}{near_miss(str(name), schema)} (it takes: {takes})"
            )
    values = {}
    for name, kind in schema.items():
        if name not in given:
            raise ValueError(f"kwarg '{name}' is missing; it must be {kind.what}")
        try:
            values[name] = kind.read(given[name])
        except (TypeError, ValueError):
            raise ValueError(
                f"kwarg '{name}' must be {kind.what}, not {_short(given[name])}"
            ) from None
    return values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_all(
    text: str,
    instruction_id_list: Sequence[str],
    kwargs: Sequence[Mapping[str, Any] | None] | None,
    prompt: str | None = None,
) -> list[bool]:
    """For each constraint in turn, whether the answer ``text`` meets it; a blank answer never does.

    :param kwargs: one mapping per id; None where no id takes any.
    :param prompt: what was asked, for constraints that are about the prompt itself.
    :raises DataError: as :func:`parse`, and when there is not one ``kwargs`` per id.
    """
    if isinstance(instruction_id_list, str) or not isinstance(instruction_id_list, Sequence):
        raise DataError(
            f"instruction_id_list must be a list of ids, not {_short(instruction_id_list)}"
        )
    if kwargs is None:
        kwargs = [None] * len(instruction_id_list)
    if isinstance(kwargs, str | Mapping) or not isinstance(kwargs, Sequence):
        raise DataError(f"kwargs must be a list with one mapping per id, not {_short(kwargs)}")
    if len(kwargs) != len(instruction_id_list):
        raise DataError(
            f"instruction_id_list has {len(instruction_id_list)} ids but kwargs has {len(kwargs)}"
        )
    wanted = [
        parse(id_, values, prompt) for id_, values in zip(instruction_id_list, kwargs, strict=True)
    ]
    return [constraint.check(text) for constraint in wanted]
