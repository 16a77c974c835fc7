"""Strict and loose scoring, and what is said to have been seen."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risen_plugin.constraints import (
    KNOWN,
    Judgement,
    Look,
    check_all,
    judge_all,
    parse,
    variants,
)
from risen_plugin.errors import DataError

CAPITAL, BULLETS = "change_case:english_capital", "detectable_format:number_bullet_lists"
SEEN = (
    ("length_constraints:number_words", {"num_words": 5, "relation": "at least"},
     "One two, three.", "3 words"),
    (BULLETS, {"num_bullets": 2}, "* a\n* b", "2 bullets"),
    (BULLETS, {"num_bullets": 2}, "* a", "1 bullet"),
    ("punctuation:no_comma", {}, "one two", "0 commas"),
    (CAPITAL, {}, "LOUd", "1 lower-case letter"),
    (CAPITAL, {}, "12", "no letter in '12'"),
    ("keywords:existence", {"keywords": ["art", "tea"]}, "art", "without tea"),
    ("keywords:forbidden_words", {"forbidden_words": ["art", "tea"]}, "Tea", "tea"),
    ("detectable_format:json_format", {}, "12", "a JSON number"),
    ("detectable_format:title", {}, "<<A day>>", "the title 'A day'"),
    ("combination:two_responses", {}, "a******a", "2 answers, equal ones"),
    ("language:response_language", {"language": "de"}, "12",
     "no language that could be identified"),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "so"}, "a\n\nSo it is",
     "2 paragraphs, number 2 starts 'So it is'"),
    ("count:count_unique", {}, "a b a", "more than once: a"),
    ("keywords:keyword_specific_position", {"keyword": "a", "n": 2, "m": 1}, "x", "no such place"),
    ("copy:repeat_phrase", {"phrase": "a b c", "small_n": 1}, "a x c. a b c.",
     "repetitions with these numbers of words replaced: 1, 0"),
)  # fmt: skip


@pytest.mark.parametrize(("id_", "kwargs", "text", "seen"), SEEN)
def test_what_was_seen_is_said_in_one_line(
    id_: str, kwargs: dict[str, Any], text: str, seen: str
) -> None:
    assert parse(id_, kwargs).look(text).seen == seen


def test_a_blank_answer_is_seen_as_empty() -> None:
    assert parse("punctuation:no_comma", {}).look(" \n") == Look(False, "an empty answer")


@pytest.mark.parametrize("id_", KNOWN)
@settings(max_examples=25)
@given(
    text=st.text(alphabet="aB c.,!*-[]<>\"'\n1\u00e9\u4f60", max_size=50), seed=st.integers(0, 99)
)
def test_a_look_agrees_with_the_check_and_fits_one_line(id_: str, text: str, seed: int) -> None:
    constraint = parse(id_, KNOWN[id_].sample(random.Random(seed), "Describe a river."))
    look = constraint.look(text)
    assert look.met is constraint.check(text)
    assert look.seen
    assert "\n" not in look.seen
    assert len(look.seen) < 200


@pytest.mark.parametrize(
    ("text", "loose"),
    [
        ("ALL LOUD", True),
        ("Sure:\nALL LOUD", True),
        ("ALL LOUD\nthere.", True),
        ("Sure:\nALL LOUD\nthere.", True),
        ("Sure:\nALL LOUD\nthere.\nbye", False),
        ("so", False),
        ("", False),
    ],
)
def test_loosely_the_first_and_the_last_line_may_go(text: str, loose: bool) -> None:
    (judged,) = judge_all(text, [CAPITAL], [{}])
    assert judged.loose is loose
    assert judged.strict is (text == "ALL LOUD")


def test_loosely_asterisks_may_go() -> None:
    (judged,) = judge_all('*"so it is"*', ["startend:quotation"], [{}])
    assert judged == Judgement(
        "startend:quotation", False, True, "starts with '*' and ends with '*'"
    )


def test_there_are_eight_variants_and_equal_ones_are_tried_once() -> None:
    assert variants("*a*\nb*\n*c") == [
        "*a*\nb*\n*c", "b*\n*c", "*a*\nb*", "b*", "a\nb\nc", "b\nc", "a\nb", "b",
    ]  # fmt: skip
    assert variants("one line") == ["one line", ""]


def test_judgements_come_in_the_order_of_the_ids() -> None:
    judged = judge_all("LOUD, so", ["punctuation:no_comma", CAPITAL], [{}, None])
    assert [(one.id, one.strict, one.loose, one.seen) for one in judged] == [
        ("punctuation:no_comma", False, False, "1 comma"),
        (CAPITAL, False, False, "2 lower-case letters"),
    ]


@given(text=st.text(alphabet="aB,*\n ", max_size=40))
def test_strict_is_what_check_all_says_and_implies_loose(text: str) -> None:
    ids = [CAPITAL, "punctuation:no_comma", BULLETS]
    kwargs: list[dict[str, Any]] = [{}, {}, {"num_bullets": 1}]
    judged = judge_all(text, ids, kwargs)
    assert [one.strict for one in judged] == check_all(text, ids, kwargs)
    assert all(one.loose for one in judged if one.strict)


def test_a_bad_row_is_an_error_here_too() -> None:
    with pytest.raises(DataError, match="1 ids but kwargs has 0"):
        judge_all("text", [CAPITAL], [])
