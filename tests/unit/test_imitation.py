"""Learning from whole answers before GRPO: which ones, how often, how fast."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.phases.mending import evenly
from risen_plugin.training.imitation import Imitation

KINDS = st.lists(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True), max_size=40
)


@given(KINDS, st.integers(0, 50), st.integers(0, 9))
def test_as_many_are_chosen_as_are_wanted_each_once(
    kinds: list[list[str]], most: int, seed: int
) -> None:
    chosen = evenly(kinds, most, random.Random(seed))
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(most, len(kinds))
    assert chosen == evenly(kinds, most, random.Random(seed))


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), st.integers(1, 30))
def test_no_kind_comes_twice_more_often_than_one_that_there_is_more_of(
    kinds: list[str], most: int
) -> None:
    chosen = Counter(kinds[at] for at in evenly([[kind] for kind in kinds], most, random.Random(0)))
    there = Counter(kinds)
    for count in chosen.values():
        for other in there:
            assert count <= chosen[other] + 1 or chosen[other] == there[other]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 9))
def test_every_answer_is_learned_from_once(count: int, batch: int, seed: int) -> None:
    rows = [([number], [number]) for number in range(count)]
    steps = -(-count // batch)
    batches = list(Imitation(rows, batch, steps, 1e-3, seed).batches())
    assert sorted(row for rows in batches for row in rows) == rows
    assert len(batches) == steps


def test_answers_of_one_step_are_about_as_long() -> None:
    rows = [([0] * length, [0] * length) for length in range(1, 17)]
    for batch in Imitation(rows, 4, 4, 1e-3, 3).batches():
        lengths = [len(ids) for ids, _ in batch]
        assert max(lengths) - min(lengths) == 3


def test_a_process_with_fewer_answers_takes_as_many_steps_as_the_others() -> None:
    row = ([1], [1])
    batches = list(Imitation([row] * 5, 4, 4, 1e-3, 0).batches())
    assert sorted(len(rows) for rows in batches) == [1, 1, 1, 4]


def test_the_rate_rises_for_three_steps_and_falls_towards_none() -> None:
    made = Imitation([], 8, 10, 1.0, 0)
    rates = [round(made.rate(step), 2) for step in range(10)]
    assert rates == [0.33, 0.6, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
