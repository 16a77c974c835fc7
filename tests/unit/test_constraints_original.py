"""The verdicts of IFEval itself: what it accepts, where it differs from ours, and its time."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import pytest

from risen_plugin.builtin.rewards import Constraints
from risen_plugin.constraints import IFEVAL_IDS, check_all, judge_all
from risen_plugin.constraints.original import checks, needs, sentences
from risen_plugin.errors import ConfigError, DataError

REAL = Path(__file__).parents[3] / "shared/data/ifeval_real/gpt4.jsonl"
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("langdetect", "punkt")),
    reason="the extra 'ifeval' is not installed",
)


def verdict(text: str, id_: str, **kwargs: Any) -> bool:
    (met,) = check_all(text, [id_], [kwargs], rules="ifeval")
    return met


def test_every_id_of_ifeval_has_its_own_check() -> None:
    assert set(checks.CHECKS) == IFEVAL_IDS


KEYWORDS, FREQUENCY = "keywords:existence", "keywords:frequency"
SECTIONS = "detectable_format:multiple_sections"
LETTERS = "keywords:letter_frequency"


@pytest.mark.parametrize(
    ("id_", "kwargs", "text"),
    [
        (KEYWORDS, {"keywords": ["art"]}, "We start."),
        (KEYWORDS, {"keywords": ["a.c"]}, "abc"),
        (FREQUENCY, {"keyword": "war", "frequency": 1, "relation": "at least"}, "afterwards"),
        (SECTIONS, {"section_spliter": "Part", "num_sections": 2}, "see Part 1 and Part 2"),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[] and [a](b)"),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "P.P.S."),
        ("detectable_format:json_format", {}, "12"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "---\n*so* it is"),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "***both***"),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Why?"}, "why?"),
        ("combination:two_responses", {}, "Tea.******TEA."),
        ("startend:quotation", {}, '""'),
        ("punctuation:no_comma", {}, "so\uff0c so"),
    ],
)
def test_ifeval_accepts_what_was_not_asked_for(id_: str, kwargs: Any, text: str) -> None:
    assert verdict(text, id_, **kwargs)
    assert check_all(text, [id_], [kwargs]) == [False]


@pytest.mark.parametrize(
    ("id_", "kwargs", "text"),
    [
        ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "***bold italics*** so"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "summary"},
            "One.\n\nSummary: two.",
        ),
        (LETTERS, {"letter": "#", "let_frequency": 1, "let_relation": "at least"}, "a #"),
        ("startend:end_checker", {"end_phrase": 'so"'}, 'it is so"'),
    ],
)
def test_ifeval_refuses_what_meets_the_words(id_: str, kwargs: Any, text: str) -> None:
    assert not verdict(text, id_, **kwargs)
    assert check_all(text, [id_], [kwargs]) == [True]


def test_a_kwarg_that_ifeval_would_draw_by_lot_is_refused() -> None:
    with pytest.raises(DataError, match="kwarg 'num_words' is missing"):
        verdict("so", "length_constraints:number_words", relation="at least")
    with pytest.raises(DataError, match=r"'keyword' must be a text that is a regular expression"):
        verdict("so", FREQUENCY, keyword="C++)", frequency=1, relation="at least")
    with pytest.raises(DataError, match="IFEval has no constraint 'copy:copy'"):
        verdict("so", "copy:copy", prompt_to_repeat="so")


def test_without_its_packages_the_mode_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"from a clone: pip install '\.\[ifeval\]'"):
        Constraints(rules="ifeval")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Fox met Mr. Hay. They left.", 2),
        ("It is in the U.S. Army. So be it.", 2),
        ("1. One thing.\n2. Another one.", 4),  # its list numbers are sentences
        ('He said "Go." Then he left...', 2),
        ("What?! No!", 2),
        ("no end", 1),
    ],
)
def test_sentences_are_those_of_punkt(text: str, count: int) -> None:
    assert sentences.count_sentences(text) == count


def test_capitals_are_counted_by_the_tokens_of_nltk() -> None:
    assert sentences.count_capitals("DON'T say IT'S A WELL-KNOWN \u201cFACT\u201d, NASA.") == 8


@pytest.mark.skipif(not REAL.is_file(), reason=f"there are no real answers in {REAL}")
def test_real_answers_have_their_official_verdicts() -> None:
    agree = {"strict": 0, "loose": 0}
    count = 0
    for line in REAL.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        judged = judge_all(
            row["completion"],
            row["instruction_id_list"],
            row["kwargs"],
            row["prompt"],
            rules="ifeval",
        )
        count += len(judged)
        agree["strict"] += sum(
            one.strict == it for one, it in zip(judged, row["official_strict"], strict=True)
        )
        agree["loose"] += sum(
            one.loose == it for one, it in zip(judged, row["official_loose"], strict=True)
        )
    assert count == 832
    assert agree == {"strict": 831, "loose": 832}  # one letter is drawn by lot, twice


EVIL = {
    "sentences": "Ab. " * 25_000,
    "numbers": "1. " * 33_333,
    "brackets": "[" * 100_000,
    "angles": "<" * 100_000,
    "lines": "\n" * 100_000 + "a",
    "stars": "*" * 100_000,
    "mail": "a@" * 50_000,
}


@pytest.mark.parametrize("name", EVIL)
def test_the_time_of_a_check_grows_with_the_answer(name: str) -> None:
    import random

    from risen_plugin.constraints import KNOWN

    needs.language_of("so")  # the detector's profiles are read once
    for id_ in sorted(IFEVAL_IDS):
        kwargs = KNOWN[id_].sample(random.Random(0), "Why?")
        began = time.process_time()
        check_all(EVIL[name], [id_], [kwargs], "Why?", rules="ifeval")
        assert time.process_time() - began < 2, id_  # a quadratic one takes minutes
