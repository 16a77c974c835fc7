"""An answer that misses constraints is edited until it meets them, with no words of its own."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.constraints import KNOWN, parse
from risen_plugin.constraints.core import Constraint
from risen_plugin.constraints.mending import mended
from risen_plugin.constraints.mending.edits import EDITS, parts_of

ANSWER = (
    "Bread rises because yeast eats sugar, and gives off gas! The gas is caught in the dough. "
    "Gluten holds it, as a net would. Salt slows the yeast down. Warmth helps it on, up to "
    "1,000 small bubbles in a spoon. Kneading makes the net strong. Then it rests for an hour. "
    "In the oven the bubbles grow once more. The crust stops them. Now it is bread, and it cools."
)
QUESTION = "Why does bread rise in a warm kitchen?"


def one(id_: str, seed: int = 0) -> Constraint:
    return parse(id_, KNOWN[id_].sample(random.Random(seed), QUESTION), QUESTION)


def mend(text: str, *constraints: Constraint, is_cut: bool = False) -> str | None:
    return mended(text, constraints, random.Random(0), QUESTION, is_cut=is_cut)


@pytest.mark.parametrize("id_", EDITS)
@pytest.mark.parametrize("seed", range(3))
def test_each_edit_makes_an_answer_meet_its_constraint(id_: str, seed: int) -> None:
    asked = one(id_, seed)
    made = mend(ANSWER, asked)
    assert made is not None
    assert asked.check(made)


@given(st.lists(st.sampled_from(sorted(KNOWN)), min_size=1, max_size=3), st.integers(0, 99))
def test_what_comes_back_meets_all_of_them(ids: list[str], seed: int) -> None:
    asked = [one(id_, seed) for id_ in ids]
    made = mend(ANSWER, *asked)
    assert made is None or all(constraint.check(made) for constraint in asked)


@given(st.text(max_size=200), st.sampled_from(sorted(EDITS)), st.booleans())
def test_any_text_is_edited_without_an_error(text: str, id_: str, is_cut: bool) -> None:
    asked = one(id_)
    made = mend(text, asked, is_cut=is_cut)
    assert made is None or asked.check(made)


@pytest.mark.parametrize(
    ("id_", "text", "expected"),
    [
        ("change_case:english_lowercase", "It IS so.", "it is so."),
        ("startend:quotation", "It is so.", '"It is so."'),
        ("punctuation:no_comma", "So, 1,000 of them, at least.", "So 1000 of them at least."),
        ("punctuation:punctuation_dot", "Of 1.5 tons. So it is.", "Of 1 point 5 tons\nSo it is"),
        ("detectable_format:json_format", 'A "b".', '{"answer": "A \\"b\\"."}'),
        (
            "paragraphs:paragraphs2",
            "It is. It was. So be it. Or not.",
            "It is. It was.\n\nSo be it. Or not.",
        ),
        ("combination:repeat_prompt", "So.", f"{QUESTION}\n\nSo."),
        ("detectable_format:sentence_hyphens", "So it is. Or not.", "So it is.-Or not."),
    ],
)
def test_an_edit_changes_as_little_as_it_can(id_: str, text: str, expected: str) -> None:
    assert mend(text, one(id_)) == expected


def test_an_answer_that_meets_them_stays_as_it_is() -> None:
    assert mend(ANSWER, one("punctuation:punctuation_dot")) != ANSWER
    assert mend("it is so", one("change_case:english_lowercase")) == "it is so"


def test_what_asks_for_less_is_met_by_leaving_out_the_end() -> None:
    asked = parse(
        "length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"}
    )
    assert mend("A is so. B is so. C is so. D is so.", asked) == "A is so. B is so."


def test_an_answer_that_was_cut_off_loses_the_sentence_that_has_no_end() -> None:
    assert mend("A is so. B is", is_cut=True) == "A is so."
    assert mend("A is so. B is") == "A is so. B is"
    assert mend("no end at all", is_cut=True) is None


def test_a_word_that_nobody_wrote_is_not_put_in() -> None:
    assert mend(ANSWER, parse("keywords:existence", {"keywords": ["zebra"]})) is None


def test_sentences_with_a_forbidden_word_are_left_out() -> None:
    asked = parse("keywords:forbidden_words", {"forbidden_words": ["salt"]})
    made = mend(ANSWER, asked)
    assert made is not None
    assert len(parts_of(ANSWER)) - len(parts_of(made)) == 1
