"""Which constraints are asked for together: what excludes what, and what nobody should choose.

Two ids *contradict* each other where no answer can be expected to meet both; a set that states them
is refused. They *clash* also where some answer could, but IFEval's or IFTrain's own table keeps
them apart, or a reader would take one for a contradiction of the other; a set that states them
stands, and nothing that chooses constraints puts them into one. Kwargs are not looked at here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from risen_plugin.constraints.registry import KNOWN


def _ids(family: str, names: str) -> frozenset[str]:
    return frozenset(f"{family}:{name}" for name in names.split())


JSON = "detectable_format:json_format"
TWO_RESPONSES = "combination:two_responses"
REPEAT_PROMPT = "combination:repeat_prompt"
CONSTRAINED_RESPONSE = "detectable_format:constrained_response"
LANGUAGE = "language:response_language"

_CASE = _ids("change_case", "english_capital english_lowercase capital_word_frequency") | {
    "count:lowercase_counting"
}
_LENGTH = _ids("length_constraints", "number_words number_sentences") | {"letters:letter_counting"}
_DIVISIONS = (
    _ids("length_constraints", "number_paragraphs nth_paragraph_first_word")
    | _ids("paragraphs", "paragraphs paragraphs2")
    | {"count:counting_composition", TWO_RESPONSES}
)
_WRAPPED = _ids("detectable_format", "square_brackets bigram_wrapping sentence_hyphens")
_PARTS = (
    _DIVISIONS
    | _WRAPPED
    | _ids("detectable_format", "json_format multiple_sections number_bullet_lists")
)
_STARTS = _ids("first_word", "first_word_answer first_word_sent") | _ids(
    "detectable_format", "title"
)
_ENDS = _ids("last_word", "last_word_answer last_word_sent") | {
    "startend:end_checker",
    "detectable_content:postscript",
}
_BY_SENTENCE = (
    _ids("first_word", "first_word_sent")
    | _ids("last_word", "last_word_sent")
    | _ids("detectable_format", "sentence_hyphens")
    | {
        "count:counting_composition",
        "keywords:keyword_specific_position",
        "length_constraints:number_sentences",
    }
)
_WORDS = _ids(
    "keywords",
    "existence frequency word_once word_count_different_numbers keyword_specific_position",
) | {"count:count_increment_word"}
_FORBIDDEN = _ids("keywords", "forbidden_words exclude_word_harder")
_LETTERS = {"keywords:letter_frequency", "letters:letter_counting2"}

_WITH_ALL_BUT: Mapping[str, frozenset[str]] = {
    CONSTRAINED_RESPONSE: frozenset(),
    JSON: _ids("keywords", "forbidden_words existence"),
    TWO_RESPONSES: _ids("keywords", "forbidden_words existence")
    | {LANGUAGE, "detectable_format:title", "punctuation:no_comma"},
    REPEAT_PROMPT: _ids("keywords", "existence")
    | {"detectable_format:title", "punctuation:no_comma"},
}
"""Ids that the original's table keeps apart from all others but these."""

_ORIGINAL: Mapping[str, frozenset[str]] = {
    LANGUAGE: _ids("keywords", "existence frequency forbidden_words")
    | _ids("change_case", "english_capital english_lowercase")
    | {"detectable_format:multiple_sections", "startend:end_checker"},
    "length_constraints:number_paragraphs": _ids(
        "length_constraints", "number_sentences nth_paragraph_first_word"
    ),
    "detectable_format:multiple_sections": _ids("detectable_format", "number_highlighted_sections"),
    "change_case:capital_word_frequency": _ids("change_case", "english_capital english_lowercase"),
    "change_case:english_lowercase": _ids("change_case", "english_capital"),
    "startend:quotation": _ids("detectable_format", "title"),
    "count:counting_composition": _ids("count", "count_unique count_increment_word")
    | _ids("paragraphs", "paragraphs paragraphs2")
    | _ids("keywords", "letter_frequency frequency"),
    "paragraphs:paragraphs": _ids("paragraphs", "paragraphs2"),
    "first_word:first_word_sent": _ids("first_word", "first_word_answer"),
}
"""The pairs of the original's table beside those, as IFEval and IFTrain have them."""

_READERS: tuple[tuple[Iterable[str], Iterable[str]], ...] = (
    # One of a kind is enough: two lengths, two ways to divide, two cases, two ends.
    (_LENGTH, _LENGTH),
    (_PARTS - {"detectable_format:number_bullet_lists"}, _PARTS),
    (_CASE, _CASE),
    (_STARTS, _STARTS),
    (_ENDS, _ENDS),
    (_WORDS, _WORDS),
    (_LETTERS, _LETTERS),
    (_FORBIDDEN, _WORDS | _FORBIDDEN),
    (_LETTERS, _WORDS),
    # Marks around every word leave no room for marks around something else.
    (_WRAPPED, _STARTS | _ENDS | _DIVISIONS | {"startend:quotation", "copy:repeat_phrase"}),
    (_WRAPPED, _ids("detectable_content", "number_placeholders postscript")),
    (_WRAPPED, _ids("detectable_format", "number_highlighted_sections")),
    # Without full stops there are no sentences to count, and no abbreviation.
    ({"punctuation:punctuation_dot"}, _BY_SENTENCE | _ENDS),
    (_CASE, _ids("first_word", "first_word_answer first_word_sent")),
    (_CASE, _ids("length_constraints", "nth_paragraph_first_word")),
    (_CASE, _WRAPPED),
    # Words in capitals only, or hardly any others, leave nothing to be said of a word's case.
    (_CASE, _ids("detectable_format", "multiple_sections") | _ENDS | _WORDS),
    (
        {"count:count_unique"},
        _LENGTH | _PARTS | _WORDS | _ENDS | _ids("detectable_format", "bigram_wrapping"),
    ),
    # The first and last words are spoken for.
    ({"keywords:start_end"}, _STARTS | _ENDS | _PARTS | {"startend:quotation"}),
    ({"startend:quotation"}, _PARTS | _STARTS | _ENDS),
    (_BY_SENTENCE, _BY_SENTENCE),
    (_BY_SENTENCE, _ids("detectable_format", "number_bullet_lists multiple_sections title")),
    # What changes every neighbouring word goes badly with words that have to be there.
    ({"keywords:no_adjacent_consecutive"}, _WORDS | _ENDS | _STARTS | _PARTS | _BY_SENTENCE),
    ({"first_word:first_word_answer", "first_word:first_word_sent"}, _PARTS),
    ({"last_word:last_word_answer", "last_word:last_word_sent"}, _PARTS),
    ({"keywords:keyword_specific_position"}, _STARTS | _PARTS),
    ({"copy:repeat_phrase"}, _LENGTH | _PARTS | _BY_SENTENCE | _CASE),
    ({"count:counting_composition"}, _STARTS | _ENDS | _LENGTH | _WORDS),
)
"""Pairs that some answer meets, and that a reader finds at odds with each other."""


def contradict(first: str, second: str) -> bool:
    """Whether no answer is expected to meet both known ids, whatever their kwargs are."""
    one, other = KNOWN[first], KNOWN[second]
    return one.alone or other.alone or first in other.conflicts or second in one.conflicts


def clash(first: str, second: str) -> bool:
    """Whether no answer should be asked to meet both known ids; an id clashes with itself."""
    return first == second or contradict(first, second) or second in _kept_apart().get(first, set())


@functools.cache
def _kept_apart() -> Mapping[str, set[str]]:
    """The ids that each id is kept apart from by the tables, in both directions."""
    apart: dict[str, set[str]] = {id_: set() for id_ in KNOWN}
    pairs = [(id_, KNOWN.keys() - others) for id_, others in _WITH_ALL_BUT.items()]
    pairs += [(id_, set(others)) for id_, others in _ORIGINAL.items()]
    pairs += [(id_, set(others)) for ids, others in _READERS for id_ in ids]
    for id_, others in pairs:
        for other in others - {id_}:
            apart[id_].add(other)
            apart[other].add(id_)
    return apart
