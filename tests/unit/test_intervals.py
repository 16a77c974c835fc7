"""What of a difference is more than chance, against tables and by exact enumeration."""

from __future__ import annotations

import math
import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.kit.intervals import (
    NOTHING,
    Interval,
    least_changed,
    of_gap,
    of_means,
    of_ratio,
    of_shares,
    t_quantile,
)

SURE = 0.99


@cache
def shares(risen: int, changed: int) -> Interval:
    return of_shares(risen, changed - risen, changed, SURE)


def chance_of(risen: int, changed: int, share: float) -> float:
    return math.comb(changed, risen) * share**risen * (1 - share) ** (changed - risen)


# Against tables (scipy 1.17's t.ppf and beta.ppf)


@pytest.mark.parametrize(
    ("confidence", "freedom", "quantile"),
    [
        (0.95, 1, 6.3138),
        (0.95, 2, 2.9200),
        (0.95, 5, 2.0150),
        (0.95, 30, 1.6973),
        (0.99, 1, 31.8205),
        (0.99, 2, 6.9646),
        (0.99, 5, 3.3649),
        (0.99, 30, 2.4573),
        (0.99, 255, 2.3411),
    ],
)
def test_quantiles_of_t_are_those_of_the_tables(
    confidence: float, freedom: int, quantile: float
) -> None:
    assert t_quantile(confidence, freedom) == pytest.approx(quantile, abs=5e-5)


@pytest.mark.parametrize(
    ("risen", "fallen", "is_more_than_chance"),
    [
        (0, 0, False),
        (6, 0, False),  # 1/64
        (7, 0, True),  # 1/128
        (9, 1, False),  # 11/1024
        (10, 1, True),  # 12/2048
        (18, 7, False),
        (19, 6, True),
        (0, 7, False),
        (20, 20, False),
    ],
)
def test_rows_that_changed_are_tested_as_mcnemar_does(
    risen: int, fallen: int, is_more_than_chance: bool
) -> None:
    found = of_shares(risen, fallen, 64, SURE)
    assert (found.low > 0) is is_more_than_chance
    assert found.value == pytest.approx((risen - fallen) / 64)
    assert found.low <= found.value <= found.high


def test_the_least_number_of_rows_is_the_one_that_can_pass() -> None:
    for confidence in (0.6, 0.9, 0.95, 0.99, 0.999):
        least = least_changed(confidence)
        assert of_shares(least, 0, least, confidence).low > 0
        assert not of_shares(least - 1, 0, max(1, least - 1), confidence).low > 0


# Coverage


@pytest.mark.parametrize("changed", [*range(1, 30), 60])
def test_without_a_change_at_most_one_phase_in_a_hundred_passes(changed: int) -> None:
    """Exact: every outcome of the rows that changed, each as likely as coins make it."""
    passing = [risen for risen in range(changed + 1) if shares(risen, changed).low > 0]
    assert sum(chance_of(risen, changed, 0.5) for risen in passing) <= 1 - SURE


@pytest.mark.parametrize("rows", [16, 40, 64])
@pytest.mark.parametrize(
    ("rises", "falls"),
    [(0.0, 0.1), (0.0, 0.3), (0.01, 0.1), (0.05, 0.1), (0.1, 0.1), (0.1, 0.3), (0.2, 0.5)],
)
def test_the_ends_hold_whatever_the_true_difference_is(
    rows: int, rises: float, falls: float
) -> None:
    """Exact: every outcome of the rows. The score test is asymptotic, hence 1.5 % and not 1 %."""
    beyond = [0.0, 0.0]
    for risen in range(rows + 1):
        for fallen in range(rows + 1 - risen):
            chance = (
                math.comb(rows, risen)
                * math.comb(rows - risen, fallen)
                * rises**risen
                * falls**fallen
                * (1 - rises - falls) ** (rows - risen - fallen)
            )
            if chance > 1e-9:
                found = outcome(risen, fallen, rows)
                beyond[0] += chance * (found.low > rises - falls + 1e-9)
                beyond[1] += chance * (found.high < rises - falls - 1e-9)
    assert max(beyond) <= 0.015


@cache
def outcome(risen: int, fallen: int, rows: int) -> Interval:
    return of_shares(risen, fallen, rows, SURE)


@pytest.mark.parametrize("rows", [16, 32, 256])
@pytest.mark.parametrize("tail", ["normal", "even", "long on both sides"])
def test_a_loss_that_did_not_change_is_seldom_called_a_rise(rows: int, tail: str) -> None:
    drawn = random.Random(f"{rows} {tail}")
    draw = {
        "normal": lambda: drawn.gauss(0, 1),
        "even": lambda: drawn.uniform(-1, 1),
        "long on both sides": lambda: drawn.gauss(0, 1) ** 3,
    }[tail]
    times = 2000
    rises = 0
    for _ in range(times):
        tokens = [float(drawn.randint(5, 30)) for _ in range(rows)]
        found = of_ratio([draw() * weight for weight in tokens], tokens, SURE)
        rises += found.low > 0
    assert rises <= times * (1 - SURE) + 3 * math.sqrt(times * SURE * (1 - SURE))


def test_a_gain_of_many_rows_is_seldom_missed() -> None:
    """128 rows, 0.69 to 0.99: 38 rise."""
    assert of_shares(39, 1, 128, SURE).low > 0.2


# Rows


def test_rows_count_by_their_tokens_and_are_as_sure_as_they_agree() -> None:
    agreeing = of_ratio([1.0, 2.0, 3.0], [10.0, 20.0, 30.0], SURE)
    assert (agreeing.low, agreeing.value, agreeing.high) == pytest.approx((0.1, 0.1, 0.1))
    scattered = of_ratio([3.0, 0.0, 3.0], [10.0, 20.0, 30.0], SURE)
    assert scattered.value == pytest.approx(0.1)
    assert scattered.low < 0 < scattered.high


def test_without_a_confidence_both_ends_are_what_was_measured() -> None:
    assert of_means([0.0, 1.0, 0.0], [1.0, 1.0, 0.0], None) == Interval(1 / 3, 1 / 3, 1 / 3)
    assert of_ratio([1.0], [4.0], None) == Interval(0.25, 0.25, 0.25)
    assert of_gap(([0.0], [1.0]), ([0.0], [0.5]), None) == Interval(0.5, 0.5, 0.5)


def test_rows_without_a_value_at_one_end_are_left_out() -> None:
    assert of_means([0.5, None, 0.25], [1.0, 1.0, None], None).value == 0.5
    assert of_means([None], [1.0], SURE) is NOTHING
    assert of_gap(([None], [1.0]), ([0.0], [0.5]), SURE) is NOTHING


def test_a_single_row_says_nothing_of_others() -> None:
    assert of_ratio([2.0], [4.0], SURE) == Interval(0.5, -math.inf, math.inf)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_no_number_gives_no_interval(broken: float) -> None:
    assert math.isnan(of_ratio([1.0, broken], [1.0, 1.0], SURE).value)


def test_a_gap_is_as_sure_as_both_of_its_sides() -> None:
    gained = ([0.0] * 40, [1.0] * 36 + [0.0] * 4)
    level = ([0.0] * 40, [1.0] * 4 + [0.0] * 36)
    found = of_gap(gained, level, SURE)
    assert found.value == pytest.approx(0.8)
    assert 0.6 < found.low < 0.8 < found.high < 1.0
    still = of_gap((gained[0], gained[0]), (level[0], level[0]), SURE)
    assert still.value == 0.0
    assert still.low == pytest.approx(-still.high)


def test_two_rows_that_all_do_the_same_make_no_gap_certain() -> None:
    assert of_gap(([0.0] * 2, [1.0] * 2), ([0.0] * 2, [0.0] * 2), SURE).low < 0.0


values = st.lists(st.booleans(), min_size=1, max_size=30)


@given(before=values, after=values)
def test_yes_or_no_is_compared_the_same_whatever_it_is_written_as(
    before: list[bool], after: list[bool]
) -> None:
    count = min(len(before), len(after))
    before, after = before[:count], after[:count]
    numbers = of_means([float(v) for v in before], [float(v) for v in after], SURE)
    assert of_means(before, after, SURE) == numbers
    assert numbers.low <= numbers.value + 1e-12 <= numbers.high + 1e-9
