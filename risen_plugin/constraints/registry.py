"""Every constraint by its id: which go together, and how ids and kwargs become one.

What is then made of an answer is in :mod:`risen_plugin.constraints.judging`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from risen_plugin.constraints import language
from risen_plugin.constraints.core import Constraint
from risen_plugin.constraints.families import (
    around_words,
    change_case,
    combination,
    copying,
    count,
    detectable_content,
    detectable_format,
    first_word,
    keyword_places,
    keywords,
    last_word,
    length_constraints,
    letters,
    paragraphs,
    punctuation,
    startend,
)
from risen_plugin.errors import DataError, near_miss

_OFFERED: tuple[type[Constraint], ...] = (
    change_case.CapitalWordFrequency,
    change_case.EnglishCapital,
    change_case.EnglishLowercase,
    combination.RepeatPrompt,
    combination.TwoResponses,
    copying.Copy,
    copying.CopySpanIdx,
    copying.CopyingMultiple,
    copying.CopyingSimple,
    copying.RepeatPhrase,
    count.CountIncrementWord,
    count.CountUnique,
    count.CountingComposition,
    count.LowercaseCounting,
    detectable_content.NumberPlaceholders,
    detectable_content.Postscript,
    detectable_format.ConstrainedResponse,
    detectable_format.JsonFormat,
    detectable_format.MultipleSections,
    detectable_format.NumberBulletLists,
    detectable_format.NumberHighlightedSections,
    detectable_format.Title,
    first_word.FirstWordAnswer,
    first_word.FirstWordSent,
    keyword_places.KeywordSpecificPosition,
    keyword_places.NoAdjacentConsecutive,
    keyword_places.Palindrome,
    keyword_places.StartEnd,
    keywords.ExcludeWordHarder,
    keywords.Existence,
    keywords.ForbiddenWords,
    keywords.Frequency,
    keywords.LetterFrequency,
    keywords.WordCountDifferentNumbers,
    keywords.WordOnce,
    language.ResponseLanguage,
    last_word.LastWordAnswer,
    last_word.LastWordSent,
    length_constraints.NthParagraphFirstWord,
    length_constraints.NumberParagraphs,
    length_constraints.NumberSentences,
    length_constraints.NumberWords,
    letters.LetterCounting,
    letters.LetterCounting2,
    paragraphs.Paragraphs,
    paragraphs.Paragraphs2,
    punctuation.NoComma,
    punctuation.PunctuationDot,
    punctuation.PunctuationExclamation,
    startend.EndChecker,
    startend.Quotation,
    around_words.BigramWrapping,
    around_words.SentenceHyphens,
    around_words.SquareBrackets,
)
KNOWN: Mapping[str, type[Constraint]] = MappingProxyType({known.id: known for known in _OFFERED})
"""Every constraint by its id."""
IFEVAL_IDS = frozenset(
    known.id
    for known in _OFFERED
    if known.family()
    in {
        "change_case",
        "combination",
        "detectable_content",
        "language",
        "length_constraints",
        "startend",
    }
    or known.id
    in {
        "detectable_format:constrained_response",
        "detectable_format:json_format",
        "detectable_format:multiple_sections",
        "detectable_format:number_bullet_lists",
        "detectable_format:number_highlighted_sections",
        "detectable_format:title",
        "keywords:existence",
        "keywords:forbidden_words",
        "keywords:frequency",
        "keywords:letter_frequency",
        "punctuation:no_comma",
    }
)
"""The 25 ids of IFEval among them; the others are IFTrain's."""


def clash(first: str, second: str) -> bool:
    """Whether no answer should be asked to meet both known ids; an id clashes with itself."""
    one, other = KNOWN[first], KNOWN[second]
    return (
        first == second
        or one.alone
        or other.alone
        or first in other.conflicts
        or second in one.conflicts
    )


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


def parse_all(
    instruction_id_list: Sequence[str],
    kwargs: Sequence[Mapping[str, Any] | None] | None,
    prompt: str | None = None,
) -> list[Constraint]:
    """The constraints of a row, in order.

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
    return [
        parse(id_, values, prompt) for id_, values in zip(instruction_id_list, kwargs, strict=True)
    ]
