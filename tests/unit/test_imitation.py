"""Learning from whole answers before GRPO: which ones, how often, how fast."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from risen_plugin.phases.mending import evenly
from risen_plugin.training.anchoring import Anchors, anchored
from risen_plugin.training.imitation import Example, Imitation, example, imitate

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
    rows = [Example([number], [1.0]) for number in range(count)]
    steps = -(-count // batch)
    batches = list(Imitation(rows, batch, steps, 1e-3, seed).batches())
    assert sorted(row.ids for rows in batches for row in rows) == [row.ids for row in rows]
    assert len(batches) == steps


def test_answers_of_one_step_are_about_as_long() -> None:
    rows = [Example([0] * length, [1.0] * length) for length in range(1, 17)]
    for batch in Imitation(rows, 4, 4, 1e-3, 3).batches():
        lengths = [len(row.ids) for row in batch]
        assert max(lengths) - min(lengths) == 3


def test_a_process_with_fewer_answers_takes_as_many_steps_as_the_others() -> None:
    row = Example([1], [1.0])
    batches = list(Imitation([row] * 5, 4, 4, 1e-3, 0).batches())
    assert sorted(len(rows) for rows in batches) == [1, 1, 1, 4]


def test_the_rate_rises_for_three_steps_and_falls_towards_none() -> None:
    made = Imitation([], 8, 10, 1.0, 0)
    rates = [round(made.rate(step), 2) for step in range(10)]
    assert rates == [0.33, 0.6, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("draft", "answer", "counted"),
    [
        ([5, 6, 2], [5, 6, 2], "5 2"),  # how it begins and ends
        ([5, 6, 2], [9, 5, 6, 9, 2], "9 5 9 2"),  # put around it, and what follows each
        ([5, 8, 6, 4, 2], [5, 6, 4, 2], "5 6 2"),  # what stands where one was left out
        ([5, 6, 4, 2], [5, 7, 4, 2], "5 7 2"),
        ([5, 6, 7], [5, 2], "5 2"),
    ],
)
def test_the_edits_count_and_little_else(draft: list[int], answer: list[int], counted: str) -> None:
    made = example([1, 3], draft, answer, 0.0)
    assert made.ids == [1, 3, *answer]
    told = [str(id_) for id_, weight in zip(made.ids, made.weights, strict=True) if weight]
    assert " ".join(told) == counted


@given(st.lists(st.integers(0, 5), max_size=9), st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_the_weights_of_an_answer_are_of_its_tokens_alone_and_sum_to_one(
    draft: list[int], answer: list[int]
) -> None:
    made = example([7, 7], draft, answer, 0.02)
    assert len(made.weights) == len(made.ids)
    assert made.weights[:2] == [0.0, 0.0]
    assert sum(made.weights) == pytest.approx(1.0)


def learned(
    make_model: Callable[..., Any], precision: torch.dtype | None, *, is_held: bool = True
) -> tuple[list[float], float]:
    """The losses of twelve steps on one answer, and how far the model went from its anchor."""
    torch.manual_seed(0)  # for the adapter
    model: Any = get_peft_model(make_model(), LoraConfig(r=4, target_modules="all-linear"))
    anchor = anchored(model, [([9, 8], [7, 6, 5])], likeliest=8, batch_size=1, precision=precision)
    anchors = Anchors([anchor], 1, 1.0)
    row = Example([1, 2, 3, 4, 5, 6], [0.0, 0.0, 0.25, 0.25, 0.25, 0.25])
    losses = imitate(
        SimpleNamespace(trained=model, accelerator=SimpleNamespace(num_processes=1)),  # type: ignore[arg-type]
        Imitation([row] * 24, 2, 12, 1e-2, 0),
        anchors if is_held else None,
        precision=precision,
        label="",
        quiet=True,
    )
    with torch.no_grad():
        return losses, float(anchors.divergence(model.eval(), anchor))


def test_each_step_sees_what_the_ones_before_it_learned_in_bf16_too(
    make_model: Callable[..., Any],
) -> None:
    """Autocast keeps rounded weights until it ends, and would compute with the first ones."""
    losses, _ = learned(make_model, None)
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.3
    rounded, _ = learned(make_model, torch.bfloat16)
    assert rounded == pytest.approx(losses, abs=0.05)


def test_anchors_hold_the_model_where_nothing_is_to_be_learned(
    make_model: Callable[..., Any],
) -> None:
    _, held = learned(make_model, None)
    _, free = learned(make_model, None, is_held=False)
    assert held < free
