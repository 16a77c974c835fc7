"""Every constraint by its id, and how an id and kwargs are parsed into one.

Judging answers by them is left to :mod:`risen_plugin.constraints.judging`, and which of them go
together to :mod:`risen_plugin.constraints.together`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from risen_plugin.constraints.core import Constraint
from risen_plugin.errors import DataError, near_miss

_FAMILIES = "risen_plugin.constraints.families"
_PLACES = {
    "change_case:capital_word_frequency": ".change_case:CapitalWordFrequency",
    "change_case:english_capital": ".change_case:EnglishCapital",
    "change_case:english_lowercase": ".change_case:EnglishLowercase",
    "combination:repeat_prompt": ".combination:RepeatPrompt",
    "combination:two_responses": ".combination:TwoResponses",
    "copy:copy": ".copying:Copy",
    "new:copy_span_idx": ".copying:CopySpanIdx",
    "copy:copying_multiple": ".copying:CopyingMultiple",
    "copy:copying_simple": ".copying:CopyingSimple",
    "copy:repeat_phrase": ".copying:RepeatPhrase",
    "count:count_increment_word": ".count:CountIncrementWord",
    "count:count_unique": ".count:CountUnique",
    "count:counting_composition": ".count:CountingComposition",
    "count:lowercase_counting": ".count:LowercaseCounting",
    "detectable_content:number_placeholders": ".detectable_content:NumberPlaceholders",
    "detectable_content:postscript": ".detectable_content:Postscript",
    "detectable_format:constrained_response": ".detectable_format:ConstrainedResponse",
    "detectable_format:json_format": ".detectable_format:JsonFormat",
    "detectable_format:multiple_sections": ".detectable_format:MultipleSections",
    "detectable_format:number_bullet_lists": ".detectable_format:NumberBulletLists",
    "detectable_format:number_highlighted_sections": ".detectable_format:NumberHighlightedSections",
    "detectable_format:title": ".detectable_format:Title",
    "first_word:first_word_answer": ".first_word:FirstWordAnswer",
    "first_word:first_word_sent": ".first_word:FirstWordSent",
    "keywords:keyword_specific_position": ".keyword_places:KeywordSpecificPosition",
    "keywords:no_adjacent_consecutive": ".keyword_places:NoAdjacentConsecutive",
    "keywords:palindrome": ".keyword_places:Palindrome",
    "keywords:start_end": ".keyword_places:StartEnd",
    "keywords:exclude_word_harder": ".keywords:ExcludeWordHarder",
    "keywords:existence": ".keywords:Existence",
    "keywords:forbidden_words": ".keywords:ForbiddenWords",
    "keywords:frequency": ".keywords:Frequency",
    "keywords:letter_frequency": ".keywords:LetterFrequency",
    "keywords:word_count_different_numbers": ".keywords:WordCountDifferentNumbers",
    "keywords:word_once": ".keywords:WordOnce",
    "language:response_language": "..language:ResponseLanguage",
    "last_word:last_word_answer": ".last_word:LastWordAnswer",
    "last_word:last_word_sent": ".last_word:LastWordSent",
    "length_constraints:nth_paragraph_first_word": ".length_constraints:NthParagraphFirstWord",
    "length_constraints:number_paragraphs": ".length_constraints:NumberParagraphs",
    "length_constraints:number_sentences": ".length_constraints:NumberSentences",
    "length_constraints:number_words": ".length_constraints:NumberWords",
    "letters:letter_counting": ".letters:LetterCounting",
    "letters:letter_counting2": ".letters:LetterCounting2",
    "paragraphs:paragraphs": ".paragraphs:Paragraphs",
    "paragraphs:paragraphs2": ".paragraphs:Paragraphs2",
    "punctuation:no_comma": ".punctuation:NoComma",
    "punctuation:punctuation_dot": ".punctuation:PunctuationDot",
    "punctuation:punctuation_exclamation": ".punctuation:PunctuationExclamation",
    "startend:end_checker": ".startend:EndChecker",
    "startend:quotation": ".startend:Quotation",
    "detectable_format:bigram_wrapping": ".around_words:BigramWrapping",
    "detectable_format:sentence_hyphens": ".around_words:SentenceHyphens",
    "detectable_format:square_brackets": ".around_words:SquareBrackets",
}
"""The place of each constraint by its id; a family is imported when one of its ids is used."""


@functools.cache
def _class_at(place: str) -> type[Constraint]:
    module, _, name = place.partition(":")
    constraint: type[Constraint] = getattr(importlib.import_module(module, _FAMILIES), name)
    return constraint


class _Known(Mapping[str, type[Constraint]]):
    """Every constraint by its id."""

    def __getitem__(self, id_: str) -> type[Constraint]:
        return _class_at(_PLACES[id_])

    def __contains__(self, id_: object) -> bool:
        return id_ in _PLACES

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


KNOWN: Mapping[str, type[Constraint]] = _Known()
"""Every constraint by its id."""
IFEVAL_IDS = frozenset(
    id_
    for id_ in _PLACES
    if id_.partition(":")[0]
    in {
        "change_case",
        "combination",
        "detectable_content",
        "language",
        "length_constraints",
        "startend",
    }
    or id_
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


def parse(
    instruction_id: str, kwargs: Mapping[str, Any] | None, prompt: str | None = None
) -> Constraint:
    """The constraint with this id and these kwargs, null ones being absent.

    ``prompt`` fills the kwarg of a constraint that is about the prompt itself.

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
    arguments = {name: value for name, value in (kwargs or {}).items() if value is not None}
    if known.prompt_kwarg is not None and prompt is not None:
        arguments.setdefault(known.prompt_kwarg, prompt)
    try:
        return known(**_read(known, arguments))
    except ValueError as error:
        raise DataError(f"constraint '{known.id}': {error}") from error


def _read(known: type[Constraint], arguments: Mapping[str, Any]) -> dict[str, Any]:
    schema = known.schema()
    for name in arguments:
        if name not in schema:
            takes = ", ".join(schema) or "none"
            raise ValueError(
                f"no kwarg {_short(name)}{near_miss(str(name), schema)} (it takes: {takes})"
            )
    values = {}
    for name, kind in schema.items():
        if name not in arguments:
            raise ValueError(f"kwarg '{name}' is missing; it must be {kind.what}")
        try:
            values[name] = kind.read(arguments[name])
        except (TypeError, ValueError):
            raise ValueError(
                f"kwarg '{name}' must be {kind.what}, not {_short(arguments[name])}"
            ) from None
    return values


def _short(value: object) -> str:
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
    return [parse(id_, values, prompt) for id_, values in paired(instruction_id_list, kwargs)]


def paired(
    instruction_id_list: Sequence[str], kwargs: Sequence[Mapping[str, Any] | None] | None
) -> list[tuple[str, Mapping[str, Any] | None]]:
    """Each id of a row with its kwargs.

    :raises DataError: when there is not one ``kwargs`` per id.
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
    return list(zip(instruction_id_list, kwargs, strict=True))
