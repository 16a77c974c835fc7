"""What each constraint that is not IFEval's accepts and refuses, and its bad kwargs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from risen_plugin.constraints import IFEVAL_IDS, KNOWN, check_all, judge_all, parse
from risen_plugin.constraints.text import ends_with, plain_words, sentences, starts_with
from risen_plugin.errors import DataError

LESS, MORE = "less than", "at least"
PROMPT = "Name a river. "


class Case(NamedTuple):
    id: str
    kwargs: Mapping[str, Any]
    passes: tuple[str, ...]
    fails: tuple[str, ...]


CASES = (
    Case(
        "copy:copy",
        {"prompt_to_repeat": PROMPT},
        ("Name a river.", " NAME A RIVER. \n"),
        ("Name a river. Po.", "Name a river", "Po."),
    ),
    Case(
        "copy:copying_simple",
        {"prompt_to_repeat": "Stra\u00dfe?"},
        ("Stra\u00dfe?", "STRASSE?"),
        ("Strase?", "Stra\u00dfe? Stra\u00dfe?"),
    ),
    Case(
        "copy:copying_multiple",
        {"prompt_to_repeat": PROMPT, "N": 2},
        ("Name a river.\n******\nname a river.", "Name a river.******Name a river."),
        ("Name a river.", "Name a river.\n***\nName a river.", "******Name a river.", "a******a"),
    ),
    Case(
        "new:copy_span_idx",
        {"prompt_to_repeat": PROMPT, "n_start": 5, "n_end": 8},
        ("a r", "A R", "a ri"),
        ("a", "a riv", "Name a river."),
    ),
    Case(
        "copy:repeat_phrase",
        {"phrase": "Time flies when having fun", "small_n": 2},
        (
            "Time crawls when having fun. Time flies while having fun!",
            "TIME FLIES IF HAVING FUN, time runs when having fun",
            "Indeed: time runs when having fun. And time flies when having no time flies when "
            "baking fun",
        ),
        (
            "Time crawls when having fun.",
            "Time flies when having fun. Time runs when having fun.",
            "Time runs while having fun. Time flies while having fun.",
            "Time a when having fun. Time b when having fun. Time c when having fun.",
            "Time crawls when having funny. Time flies while having fun.",
        ),
    ),
    Case(
        "count:count_increment_word",
        {"keyword1": "art", "keyword2": ["tea"]},
        ("Art with tea, and tea.", "tea TEA start art"),
        ("art tea", "art art tea tea", "art tea tea tea", "start tea tea"),
    ),
    Case(
        "count:count_unique",
        {},
        ("One, two, three.", "red... blue...", "caf\u00e9 cafe"),
        ("one One", "It is, it was.", "caf\u00e9 cafe\u0301"),
    ),
    Case(
        "count:counting_composition",
        {"n_sent": 2, "n_words": 3},
        (
            "One two three. Four five six.\n***\nA b cd. E f gh.\n***\nI j kl! M n op?",
            "One two three. Four five six.\n* * *\nA b cd. E f gh.\n* * *\nI j kl! M n op?",
        ),
        (
            "One two three. Four five six.\n***\nA b cd. E f gh.",
            "One two three. Four five six.\n***\nA b cd. E f gh.\n***\nI j kl.",
            "One two three. Four five six.\n***\nA b cd. E f gh.\n***\nI j kl! M n.",
        ),
    ),
    Case(
        "count:lowercase_counting",
        {"N": 2},
        ("LOUD and Clear or", "Only Titles Here", "I AM 12 34 56", "\u00c9t\u00e9 \u00e9t\u00e9"),
        ("so it is", "\u00e9t\u00e9 no\u00ebl o\u00f9", "Well, don't say"),
    ),
    Case(
        "detectable_format:bigram_wrapping",
        {},
        ("<<I am>> <<at home>>", "<<I am>>\n<<at home.>> now", "<<I am>> <<home>>"),
        ("I am", "<<I am>> at home", "<<I am at>> <<home now>>", "<<I>>", "Well <<I am>>"),
    ),
    Case(
        "detectable_format:sentence_hyphens",
        {},
        ("One here.-Two there.", 'Well-known!-"Is it?"-Yes.', "It is.-It was.-So"),
        ("One here. Two there.", "One.- Two.", "One.", "One -Two.", "One.-Two. Three.", "One-two"),
    ),
    Case(
        "detectable_format:square_brackets",
        {},
        ("[One] [two.]", "[\u4f60\u597d]", "[it's]\n[so]"),
        ("[One] two", "[one two]", "[] [one]", "[one].", "one", "[[one]]"),
    ),
    Case(
        "first_word:first_word_answer",
        {"first_word": "Once"},
        ("Once more.", "ONCE", '"Once, so.', "**once** more"),
        ("Oncetime.", "More once.", "one"),
    ),
    Case(
        "first_word:first_word_answer",
        {"first_word": "caf\u00e9"},
        ("Cafe\u0301 open",),
        ("Cafe open",),
    ),
    Case(
        "first_word:first_word_sent",
        {"first_word": ["then"]},
        ("Then a. Then b!", "then", "*Then*, e.g. this. \u201cThen\u201d that."),
        ("Then one. And two.", "Thence.", "...", "Now then."),
    ),
    Case(
        "last_word:last_word_answer",
        {"last_word": "well-known"},
        ("It is well-known.", "(WELL-KNOWN!)", "well-known"),
        ("It is known.", "well-known fact", "so unwell-known"),
    ),
    Case(
        "last_word:last_word_sent",
        {"last_word": "sea"},
        ("By the sea. To the SEA!", "sea", 'They said "sea". Sea?'),
        ("By the sea. To the lake.", "Overseas.", "oversea", "!!!"),
    ),
    Case(
        "keywords:exclude_word_harder",
        {"keyword": "river"},
        ("The riverbank.", "A lake", "rivers"),
        ("A River.", "river", "the (river)"),
    ),
    Case(
        "keywords:keyword_specific_position",
        {"keyword": "tea", "n": 2, "m": 3},
        ("One. I like tea.", "One! We -- like *Tea*", "One\ntwo. It is tea, it is."),
        ("I like tea.", "One. I like the tea.", "One. Tea it is.", "One. I do."),
    ),
    Case(
        "keywords:no_adjacent_consecutive",
        {},
        ("big apple", "a cat", "1 2 3", "z a", "\u00e9t\u00e9 fin", "one"),
        ("a bee", "Apple, (Bee)", "so cold day", "\u0430 \u0431"),
    ),
    Case(
        "keywords:palindrome",
        {},
        ("a level road", "Anna.", "\u00c9t\u00c9 is", "\u0448\u0430\u043b\u0430\u0448"),
        ("I a", "oo", "aaa zzz", "121", "road --"),
    ),
    Case(
        "keywords:start_end",
        {},
        ("Tea is tea", "it was, it IS, It", "\u00e9t\u00e9 - ou - E\u0301t\u00e9"),
        ("Tea is tea.", "tea tea", "tea", '"tea is tea"', "tea is teas"),
    ),
    Case(
        "keywords:word_count_different_numbers",
        {"keyword": "art", "frequency": 2, "relation": MORE},
        ("art, Art",),
        ("art and start",),
    ),
    Case(
        "keywords:word_once",
        {"keyword": "art"},
        ("Art is long.", "smart art"),
        ("smart", "art for art", "Art. ART."),
    ),
    Case(
        "letters:letter_counting",
        {"N": 4, "relation": LESS},
        ("abc 123 !!!", "\u00e9t\u00e9"),
        ("abcd", "\u4f60\u597d\u4f60\u597d", "\u00e9t\u00e9s"),
    ),
    Case(
        "letters:letter_counting",
        {"N": 3, "relation": MORE},
        ("a b c", "\u043e\u043d\u0430"),
        ("ab 12345", "!"),
    ),
    Case(
        "letters:letter_counting2",
        {"letter": "e", "let_frequency": 2, "let_relation": MORE},
        ("eleven", "Ee"),
        ("one", "\u00e9\u00e9"),
    ),
    Case(
        "paragraphs:paragraphs",
        {},
        ("a\n***\nb", "***\na *** b\n***"),
        ("a", "a\n\nb", "a\n***\nb\n***\nc", "a ***b***", "a\n***\n***\nb"),
    ),
    Case(
        "paragraphs:paragraphs2",
        {},
        ("a\n\nb", "a\n \n\n\nb\nc", "\n\na\n\nb\n\n"),
        ("a", "a\nb", "a\n***\nb", "a\n\nb\n\nc"),
    ),
    Case(
        "punctuation:punctuation_dot",
        {},
        ("No dot!", "one; two", "\u0939\u093e\u0901\u0964"),
        ("A dot.", "1.5", "so\u2026", "\u597d\u3002", "\uff0e\u0661"),
    ),
    Case(
        "punctuation:punctuation_exclamation",
        {},
        ("Calm.", "1 | 2"),
        ("Loud!", "\u597d\uff01", "\u00a1Hola.", "What\u203d\u203c"),
    ),
)
TABLE = [
    pytest.param(case.id, case.kwargs, text, met, id=f"{case.id}-{met}-{text[:20]!r}")
    for case in CASES
    for met, texts in ((True, case.passes), (False, case.fails))
    for text in texts
]


@pytest.mark.parametrize(("id_", "kwargs", "text", "met"), TABLE)
def test_an_answer_is_met_or_not(id_: str, kwargs: Mapping[str, Any], text: str, met: bool) -> None:
    assert check_all(text, [id_], [kwargs]) == [met]
    assert judge_all(text, [id_], [kwargs])[0].strict is met


def test_every_id_of_iftrain_has_a_passing_and_a_failing_case() -> None:
    assert {case.id for case in CASES if case.passes and case.fails} == set(KNOWN) - IFEVAL_IDS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_blank_answer_meets_nothing(case: Case) -> None:
    for blank in ("", " ", "\n\t ", "\u00a0"):
        assert check_all(blank, [case.id], [case.kwargs]) == [False]


BAD = (
    ("copy:repeat_phrase", {"phrase": "two words", "small_n": 2}, "'phrase' must have at least th"),
    ("copy:repeat_phrase", {"phrase": "a b c"}, "kwarg 'small_n' is missing"),
    ("new:copy_span_idx", {"prompt_to_repeat": "abc", "n_start": 2, "n_end": 2}, "are 2 and 2"),
    ("new:copy_span_idx", {"prompt_to_repeat": "abc", "n_start": 0, "n_end": 4}, "3 characters"),
    ("new:copy_span_idx", {"prompt_to_repeat": "a  b", "n_start": 1, "n_end": 3}, "white space"),
    ("copy:copy", {}, "'prompt_to_repeat' is missing"),
    ("copy:copying_multiple", {"prompt_to_repeat": "a", "N": 0}, "'N' must be a whole number"),
    ("count:count_increment_word", {"keyword1": "a", "keyword2": "A"}, "are both 'a'"),
    ("count:counting_composition", {"n_sent": 2, "n_words": "3"}, "'n_words' must be a whole"),
    ("count:lowercase_counting", {"n": 2}, "no kwarg 'n'"),
    ("first_word:first_word_sent", {"first_word": ["a", "b"]}, "'first_word' must be a word"),
    ("last_word:last_word_answer", {"last_word": " "}, "'last_word' must be a word"),
    ("keywords:keyword_specific_position", {"keyword": "a", "n": 0, "m": 1}, "'n' must be a whole"),
    ("keywords:word_once", {"keyword": 3}, "'keyword' must be a word"),
    ("letters:letter_counting", {"N": 3, "relation": "at most"}, "'relation' must be 'less than'"),
    ("letters:letter_counting2", {"letter": "ab", "let_frequency": 1, "let_relation": LESS},
     "'letter' must be one character"),
    ("paragraphs:paragraphs", {"num_paragraphs": 2}, "no kwarg 'num_paragraphs'"),
)  # fmt: skip


@pytest.mark.parametrize(("id_", "kwargs", "message"), BAD)
def test_bad_kwargs_are_errors_that_name_the_constraint(
    id_: str, kwargs: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse(id_, kwargs)
    assert str(caught.value).startswith(f"constraint '{id_}': ")
    assert "\n" not in str(caught.value)


def test_a_span_is_counted_in_the_prompt_as_it_is() -> None:
    kwargs = {"prompt_to_repeat": "  Name a river.", "n_start": 2, "n_end": 6}
    assert check_all("Name", ["new:copy_span_idx"], [kwargs]) == [True]


def test_the_prompt_stands_in_for_what_is_to_be_copied() -> None:
    assert check_all("Name a river.", ["copy:copy"], [{}], "Name a river.") == [True]
    assert check_all("Po.", ["copy:copying_simple"], [None], "Name a river.") == [False]


def test_sentences_are_those_that_are_counted() -> None:
    assert sentences("Dr. Fox ran. So?! ... End") == ["Dr. Fox ran.", "So?!", "End"]


def test_words_at_the_ends_are_found_whole() -> None:
    assert starts_with("(Then) so", "then")
    assert not starts_with("Thence", "then")
    assert ends_with('so "then".', "then")
    assert not ends_with("so then so", "then")
    assert not ends_with("then", "the")


def test_plain_words_have_no_marks_around_them() -> None:
    assert plain_words('"Well-known," -- it\'s *so*!') == ["Well-known", "it's", "so"]
