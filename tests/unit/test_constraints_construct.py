"""Answers made to order: for each constraint, and for many at once."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risen_plugin.constraints import KNOWN, Constraint, clash, parse
from risen_plugin.constraints.made_to_order.construct import satisfying, violating
from risen_plugin.constraints.text import plain_words

PROMPT = "Describe a river and what grows along its banks, please."


def sampled(id_: str, rng: random.Random) -> Constraint:
    return parse(id_, KNOWN[id_].sample(rng, PROMPT))


@pytest.mark.parametrize("id_", KNOWN)
@settings(max_examples=30)
@given(seed=st.integers(0, 10**9))
def test_what_is_sampled_can_be_met_and_missed(id_: str, seed: int) -> None:
    rng = random.Random(seed)
    constraint = sampled(id_, rng)
    right = satisfying([constraint], rng, about=PROMPT)
    assert right is not None
    assert constraint.check(right)
    wrong = violating(constraint, rng)
    assert wrong.strip()
    assert not constraint.check(wrong)


def test_nearly_every_compatible_pair_can_be_met_at_once() -> None:
    """Of 641 all but a few are met in every draw; those clash for some kwargs only."""
    rng = random.Random(7)
    pairs = [pair for pair in itertools.combinations(KNOWN, 2) if not clash(*pair)]
    missed = [
        pair for pair in pairs if satisfying([sampled(id_, rng) for id_ in pair], rng) is None
    ]
    assert len(pairs) > 600
    assert len(missed) <= len(pairs) // 200, missed


@pytest.mark.parametrize(("count", "share"), [(3, 0.98), (4, 0.97)])
def test_most_compatible_sets_can_be_met_at_once(count: int, share: float) -> None:
    rng = random.Random(count)
    drawn = met = 0
    while drawn < 300:
        ids = rng.sample(list(KNOWN), count)
        if any(clash(*pair) for pair in itertools.combinations(ids, 2)):
            continue
        constraints = [sampled(id_, rng) for id_ in ids]
        text = satisfying(constraints, rng, about=PROMPT)
        drawn += 1
        met += text is not None
        assert text is None or all(constraint.check(text) for constraint in constraints)
    assert met / drawn >= share


def made(*pairs: tuple[str, dict[str, Any]]) -> list[Constraint]:
    return [parse(id_, kwargs) for id_, kwargs in pairs]


def test_what_contradicts_itself_is_not_met() -> None:
    contradiction = made(
        ("keywords:existence", {"keywords": ["river"]}),
        ("keywords:forbidden_words", {"forbidden_words": ["river"]}),
    )
    assert satisfying(contradiction, random.Random(0)) is None
    none_at_all = made(
        ("length_constraints:number_words", {"num_words": 0, "relation": "less than"})
    )
    assert satisfying(none_at_all, random.Random(0)) is None


def test_no_constraint_at_all_is_met_by_any_text() -> None:
    assert satisfying([], random.Random(0))


def test_the_same_seed_gives_the_same_texts() -> None:
    constraints = made(("detectable_format:title", {}), ("punctuation:no_comma", {}))
    texts = {satisfying(constraints, random.Random(3), PROMPT) for _ in range(3)}
    assert len(texts) == 1
    assert satisfying(constraints, random.Random(4), PROMPT) not in texts
    assert violating(constraints[0], random.Random(3)) == violating(
        constraints[0], random.Random(3)
    )


def test_words_of_the_question_are_used() -> None:
    long = made(("length_constraints:number_words", {"num_words": 300, "relation": "at least"}))
    text = satisfying(long, random.Random(0), about="Compare zeppelins with dirigibles.")
    assert text is not None
    assert {"zeppelins", "dirigibles"} <= {word.lower() for word in plain_words(text)}


def test_a_constraint_that_every_text_meets_has_no_violation() -> None:
    (always,) = made(("length_constraints:number_words", {"num_words": 0, "relation": "at least"}))
    with pytest.raises(ValueError, match="number_words"):
        violating(always, random.Random(0))
