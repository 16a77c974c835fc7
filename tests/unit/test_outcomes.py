"""Scores, abstentions and errors are kept apart, and only what is comparable is learned from."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin import Failed
from risen_plugin.rewards.gate import bar, gate, gated
from risen_plugin.rewards.scores import (
    ErrorCount,
    Scores,
    errors_in,
    groups_of,
    kind_of,
    learnable,
    outage,
)

F = Failed("down")


def test_a_failed_score_is_nan_to_trl_and_keeps_its_reason() -> None:
    for failed in (F, pickle.loads(pickle.dumps(F)), copy.deepcopy(F)):
        assert isinstance(failed, float)
        assert math.isnan(failed)
        assert failed.reason == "down"
        assert repr(failed) == "Failed('down')"


@pytest.mark.parametrize(
    ("score", "outcome"), [(0.0, "score"), (-1.5, "score"), (None, "abstain"), (F, "error")]
)
def test_an_outcome_is_one_of_three(score: float | None, outcome: str) -> None:
    assert kind_of(score) == outcome


def test_groups_are_consecutive_rows() -> None:
    assert groups_of(6, 3) == [range(3), range(3, 6)]
    assert groups_of(0, 3) == []


# What may be learned; groups of three

TABLE: dict[str, tuple[dict[str, Scores], dict[str, Scores]]] = {
    "scores come through": (
        {"a": [1.0, 0.0, 0.5], "b": [0.0, 0.0, 1.0]},
        {"a": [1.0, 0.0, 0.5], "b": [0.0, 0.0, 1.0]},
    ),
    "an error of one reward takes the completion out of all": (
        {"a": [1.0, 0.0, 0.5], "b": [F, 0.0, 1.0]},
        {"a": [None, 0.0, 0.5], "b": [None, 0.0, 1.0]},
    ),
    "an abstention on part of a group leaves the reward out for the group": (
        {"a": [1.0, 0.0, 0.5], "b": [None, 0.0, 1.0]},
        {"a": [1.0, 0.0, 0.5], "b": [None, None, None]},
    ),
    "an abstention on a whole group stays one": (
        {"a": [1.0, 0.0, 0.5], "b": [None, None, None]},
        {"a": [1.0, 0.0, 0.5], "b": [None, None, None]},
    ),
    "an abstention where another reward failed leaves nobody out": (
        {"a": [F, 0.0, 0.5], "b": [None, 0.0, 1.0]},
        {"a": [None, 0.0, 0.5], "b": [None, 0.0, 1.0]},
    ),
    "rewards that abstain by turns leave nothing to learn from": (
        {"a": [None, 0.0, 0.5], "b": [1.0, None, 1.0]},
        {"a": [None, None, None], "b": [None, None, None]},
    ),
    "a single completion that is left has nothing to be compared with": (
        {"a": [F, F, 0.5], "b": [1.0, 1.0, 1.0]},
        {"a": [None, None, None], "b": [None, None, None]},
    ),
    "one group's outcomes do not touch another's": (
        {"a": [1.0, 0.0, 0.5, 1.0, 0.0, 0.5], "b": [1.0, 0.0, 0.5, F, None, 1.0]},
        {"a": [1.0, 0.0, 0.5, None, 0.0, 0.5], "b": [1.0, 0.0, 0.5, None, None, None]},
    ),
}


@pytest.mark.parametrize(("outcomes", "kept"), TABLE.values(), ids=TABLE)
def test_only_what_is_comparable_is_learned_from(
    outcomes: dict[str, Scores], kept: dict[str, Scores]
) -> None:
    given_before = copy.copy(outcomes)
    rows = len(outcomes["a"])
    assert learnable(outcomes, groups_of(rows, 3)) == kept
    assert outcomes == given_before


any_outcome: Any = st.sampled_from([0.0, 0.5, 1.0, None, F])


@given(st.lists(st.tuples(any_outcome, any_outcome), min_size=4, max_size=16), st.integers(2, 4))
def test_in_a_group_all_completions_that_count_are_scored_by_the_same_rewards(
    rows: list[tuple[Any, Any]], size: int
) -> None:
    outcomes = {"a": [a for a, _ in rows], "b": [b for _, b in rows]}
    groups = groups_of(len(rows), size)
    kept = learnable(outcomes, groups)
    for group in groups:
        shapes = {tuple(kept[name][row] is None for name in kept) for row in group}
        assert len(shapes - {(True, True)}) <= 1
        assert sum(any(kept[n][row] is not None for n in kept) for row in group) != 1
    for name, scores in kept.items():
        assert not errors_in(scores)
        assert all(s is None or s == outcomes[name][row] for row, s in enumerate(scores))


# Counting errors


def test_the_rate_is_taken_over_the_latest_completions_and_a_batch_at_the_least() -> None:
    count = ErrorCount(window=4)
    assert count.rate == 0.0
    count.add([F, F, 1.0, None])
    assert (count.rate, count.errors, count.example) == (0.5, 2, "down")
    count.add([1.0, 1.0])
    assert count.rate == 0.0
    count.add([Failed("late"), 1.0, 1.0, 1.0, 1.0, 1.0])
    assert count.rate == pytest.approx(1 / 6)
    assert (count.errors, count.completions, count.example) == (3, 12, "late")


@pytest.mark.parametrize(
    ("failed", "limit", "said"),
    [
        (0, 0.0, None),
        (2, 0.2, None),
        (3, 0.2, "reward 'judge' failed on 3 of 10 answers (30%, limit 20%), for example: down"),
        (10, 1.0, None),
    ],
)
def test_too_many_errors_are_told_with_name_rate_and_example(
    failed: int, limit: float, said: str | None
) -> None:
    assert outage("reward 'judge'", failed, 10, limit, "down") == said


# The gate


@pytest.mark.parametrize(
    ("value", "quality", "worth"),
    [
        (1.0, 0.6, 2.0),  # met, and good
        (1.0, 0.5, 0.5),  # met, at the bar
        (1.0, 0.1, 0.5),  # met, and bad
        (0.5, 0.6, 0.5),  # not met
        (0.0, 0.1, 0.0),
    ],
)
def test_a_met_constraint_is_worth_more_with_quality_and_less_without(
    value: float, quality: float, worth: float
) -> None:
    assert gated(value, quality, passes_at=1.0, threshold=0.5) == worth


def test_what_has_no_value_or_no_quality_is_left_as_it_is() -> None:
    values: Scores = [None, 1.0, 1.0]
    assert gate(values, [1.0, None, 1.0], passes_at=1.0, threshold=0.0) == [None, 1.0, 2.0]


@pytest.mark.parametrize(
    ("qualities", "quantile", "pass_"),
    [
        ([0.4, 0.1, 0.3, 0.2], 0.25, [0.2, 0.3, 0.4]),
        ([0.4, 0.1, 0.3, 0.2], 0.0, [0.1, 0.2, 0.3, 0.4]),
        ([1.0, 1.0, 1.0], 0.5, [1.0, 1.0, 1.0]),  # equal ones pass together
        ([None, F, 0.2], 0.05, [0.2]),
    ],
)
def test_the_bar_lets_all_but_the_quantile_pass(
    qualities: Scores, quantile: float, pass_: list[float]
) -> None:
    threshold = bar(qualities, quantile)
    assert threshold is not None
    known = [q for q in qualities if kind_of(q) == "score" and q is not None]
    assert sorted(q for q in known if q > threshold) == pass_


@pytest.mark.parametrize("qualities", [[], [None], [F]])
def test_there_is_no_bar_without_qualities(qualities: Scores) -> None:
    assert bar(qualities, 0.05) is None
