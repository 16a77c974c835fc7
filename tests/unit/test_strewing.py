"""Marks that are put into a text at random."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.phases.strewing import PAIRS, strewn

WORDS = "one two three four five six seven eight nine ten eleven twelve"


@given(st.text("ab1 .\n\t", max_size=200), st.integers(0, 99))
def test_marks_alone_are_new_but_for_words_that_are_said_twice(text: str, seed: int) -> None:
    """Without the marks every word of the text is there, in its order, and the same blanks."""
    made = strewn(text, random.Random(seed), [("<<", ">>")])
    bare = re.sub(r"<<([^<>]+)>>\1|<<|>>", lambda found: found[1] or "", made)
    assert bare == text


@pytest.mark.parametrize("times", [1, 2, 5])
def test_about_one_word_in_twelve_has_a_mark(times: int) -> None:
    text = " ".join([WORDS] * times)
    for seed in range(20):
        made = strewn(text, random.Random(seed), [("[", "]")])
        assert times <= made.count("[") + made.count("]") <= 2 * times


def test_every_mark_comes_in_every_form() -> None:
    made = {strewn("word", random.Random(seed)) for seed in range(400)}
    assert made == {
        form
        for opens, closes in PAIRS
        for form in (
            f"{opens}word{closes}",
            f"{opens}word{closes}word",
            f"{opens}word",
            f"{closes}word",
        )
    }


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
def test_a_text_without_words_stays_as_it_is(text: str) -> None:
    assert strewn(text, random.Random(0)) == text


def test_the_same_seed_gives_the_same_text() -> None:
    assert strewn(WORDS, random.Random(7)) == strewn(WORDS, random.Random(7))
