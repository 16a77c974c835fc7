"""Which constraints suit a task: by the kind of its answer, and by what it settles itself.

An id that stands nowhere in here suits no kind by itself and is asked for where it is named alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from risen_plugin.instructions.fitting.tasks import Kind, Task


def _ids(text: str) -> frozenset[str]:
    return frozenset(text.split())


LENGTHS = _ids(
    "length_constraints:number_words length_constraints:number_sentences letters:letter_counting"
)
_DIVISIONS = _ids(
    "length_constraints:number_paragraphs length_constraints:nth_paragraph_first_word "
    "paragraphs:paragraphs paragraphs:paragraphs2"
)
_SECTIONS = _ids("detectable_format:multiple_sections")
_BULLETS = _ids("detectable_format:number_bullet_lists")
_COUNTED_PARTS = (
    LENGTHS
    | _DIVISIONS
    | _SECTIONS
    | _BULLETS
    | _ids("count:counting_composition combination:two_responses count:count_unique")
    | _ids("detectable_format:square_brackets detectable_format:bigram_wrapping")
    | _ids("count:lowercase_counting")
)
_WORDS = _ids(
    "keywords:existence keywords:frequency keywords:word_once count:count_increment_word "
    "keywords:word_count_different_numbers"
)
_AVOIDED = _ids("keywords:forbidden_words keywords:exclude_word_harder")
_LETTERS = _ids("keywords:letter_frequency letters:letter_counting2")
_MARKS = _ids(
    "punctuation:no_comma punctuation:punctuation_dot punctuation:punctuation_exclamation"
)
_NO_SHOUT = _ids("punctuation:punctuation_exclamation")
_FORBIDDEN = _ids("keywords:forbidden_words")
_CASE = _ids("change_case:english_capital change_case:english_lowercase")
_LOUD = _ids("change_case:capital_word_frequency")
_QUIET = _ids("count:lowercase_counting")
_UNIQUE = _ids("count:count_unique")
_TWO = _ids("combination:two_responses")
_REPEAT = _ids("combination:repeat_prompt")
_TITLE = _ids("detectable_format:title")
_QUOTES = _ids("startend:quotation")
_HIGHLIGHTS = _ids("detectable_format:number_highlighted_sections")
_POSTSCRIPT = _ids("detectable_content:postscript")
_CLOSING = _ids("startend:end_checker")
_PLACEHOLDERS = _ids("detectable_content:number_placeholders")
_JSON = _ids("detectable_format:json_format")
_FIRST = _ids("first_word:first_word_answer")
_LAST = _ids("last_word:last_word_answer")
_FIRST_OF_ALL = _ids("first_word:first_word_sent")
_LAST_OF_ALL = _ids("last_word:last_word_sent")
_SAME_ENDS = _ids("keywords:start_end")
_POSITION = _ids("keywords:keyword_specific_position")
_GAMES = _ids("keywords:palindrome keywords:no_adjacent_consecutive")
_WRAPPED = _ids("detectable_format:square_brackets detectable_format:bigram_wrapping")
_HYPHENS = _ids("detectable_format:sentence_hyphens")
_COMPOSITION = _ids("count:counting_composition")
_ONE_OF_THREE = _ids("detectable_format:constrained_response")
_LANGUAGE = _ids("language:response_language")
COPIES = _ids("copy:copy copy:copying_simple copy:copying_multiple new:copy_span_idx")
"""Ids that replace the answer by a copy of the request, whatever it asks for."""
_NAMED_ALONE = COPIES | _ids("copy:repeat_phrase")
"""Ids that go with every task where somebody names them: they do not depend on its answer."""

_PROSE = _WORDS | _AVOIDED | _LETTERS | _MARKS | _CASE | _LOUD | _TITLE | _HIGHLIGHTS
SUITABLE: Mapping[Kind, frozenset[str]] = {
    "artifact": _POSTSCRIPT | _CLOSING | _REPEAT,
    "fixed": _POSTSCRIPT | _CLOSING | _REPEAT | _TITLE | _QUOTES | _FORBIDDEN | _NO_SHOUT,
    "yes or no": _POSTSCRIPT | _CLOSING | _REPEAT | _QUOTES | _ONE_OF_THREE | _CASE,
    "line": _CASE
    | _QUOTES
    | _WRAPPED
    | _UNIQUE
    | _TWO
    | _LETTERS
    | _AVOIDED
    | _QUIET
    | _ids("keywords:existence keywords:word_once punctuation:punctuation_exclamation")
    | _ids("punctuation:no_comma"),
    "verse": _WORDS
    | _AVOIDED
    | _LETTERS
    | _MARKS
    | _CASE
    | _TITLE
    | _TWO
    | _SAME_ENDS
    | _LAST
    | _LAST_OF_ALL
    | _FIRST_OF_ALL
    | _QUOTES
    | _LANGUAGE,
    "message": _WORDS
    | _AVOIDED
    | _POSTSCRIPT
    | _PLACEHOLDERS
    | _LOUD
    | LENGTHS
    | _ids("punctuation:no_comma punctuation:punctuation_exclamation")
    | _ids("keywords:letter_frequency letters:letter_counting2")
    | _LANGUAGE,
    "script": _WORDS | _AVOIDED | _TITLE | _LETTERS | _LOUD | _LANGUAGE,
    "long": _PROSE
    | LENGTHS
    | _DIVISIONS
    | _SECTIONS
    | _FIRST
    | _LAST
    | _SAME_ENDS
    | _POSITION
    | _COMPOSITION
    | _ids("keywords:palindrome")
    | _LANGUAGE,
    "explanation": _PROSE
    | LENGTHS
    | _DIVISIONS
    | _SECTIONS
    | _BULLETS
    | _POSTSCRIPT
    | _CLOSING
    | _REPEAT
    | _JSON
    | _FIRST
    | _LAST
    | _SAME_ENDS
    | _POSITION
    | _COMPOSITION
    | _GAMES
    | _HYPHENS
    | _QUOTES
    | _LANGUAGE,
    "list": _POSTSCRIPT
    | _CLOSING
    | _REPEAT
    | _JSON
    | _BULLETS
    | _TITLE
    | _HIGHLIGHTS
    | _CASE
    | _AVOIDED
    | _LETTERS
    | _ids("punctuation:punctuation_exclamation length_constraints:number_words")
    | _LANGUAGE,
    "question": _AVOIDED
    | _LETTERS
    | _MARKS
    | _CASE
    | _POSTSCRIPT
    | _CLOSING
    | _REPEAT
    | _TITLE
    | _QUOTES
    | _HIGHLIGHTS
    | _HYPHENS
    | _WRAPPED
    | _UNIQUE
    | _TWO
    | _GAMES
    | _WORDS
    | _FIRST
    | _JSON
    | LENGTHS
    | _LANGUAGE,
}
"""The ids that suit each kind, where the task settles nothing."""

_ENGLISH_ONLY = (
    _WORDS
    | _AVOIDED
    | _LETTERS
    | _CLOSING
    | _FIRST
    | _LAST
    | _FIRST_OF_ALL
    | _LAST_OF_ALL
    | _POSITION
    | _GAMES
    | _CASE
    | _LOUD
    | _QUIET
    | _LANGUAGE
    | _DIVISIONS
    | _SECTIONS
)
_LAYOUT = (
    _DIVISIONS
    | _SECTIONS
    | _BULLETS
    | _JSON
    | _WRAPPED
    | _HYPHENS
    | _COMPOSITION
    | _HIGHLIGHTS
    | _QUOTES
    | _TITLE
    | _TWO
)
_CHARACTERS = (
    _WORDS
    | _AVOIDED
    | _LETTERS
    | _MARKS
    | _CASE
    | _LOUD
    | _QUIET
    | _UNIQUE
    | _FIRST
    | _LAST
    | _FIRST_OF_ALL
    | _LAST_OF_ALL
    | _SAME_ENDS
    | _POSITION
    | _GAMES
)
_LONGEST_REPEATED = 400  # characters of a request that somebody would have repeated


def suitable(task: Task, *, named: bool = False) -> frozenset[str]:
    """The ids that may be asked for beside ``task``.

    :param named: whether somebody named the ids to choose from: then those that go with every
        task are among them.
    """
    fit = SUITABLE[task.kind]
    if task.settles_length:
        fit -= _COUNTED_PARTS
    if task.settles_form:
        fit -= _LAYOUT
    if task.settles_words:
        fit -= _CHARACTERS
    if task.kind == "fixed":
        if task.is_text or task.is_reworked:
            fit -= _POSTSCRIPT | _CLOSING
        if task.is_reworked or not task.is_text:
            fit -= _TITLE | _FORBIDDEN
    if task.settles_all:
        fit = frozenset()
    if not task.is_english:
        fit -= _ENGLISH_ONLY
    if task.gives_text:
        fit -= _CASE | _LETTERS | _GAMES | (_MARKS - _NO_SHOUT) | _AVOIDED
    if task.characters > _LONGEST_REPEATED:
        fit -= _REPEAT
    return fit | _NAMED_ALONE if named else fit
