"""A gain counts by all that the rows say, and chance is told from it at any number of looks."""

from __future__ import annotations

import itertools
import random
from statistics import NormalDist
from typing import Any

import pytest

from risen_plugin.config import GuardConfig
from risen_plugin.errors import ConfigError
from risen_plugin.guard.changes import RowByRow, compare, is_open
from risen_plugin.guard.looks import (
    RowPlan,
    can_tell,
    checks_of,
    in_looks,
    is_hopeless,
    is_more_than_chance,
    plan_rows,
)
from risen_plugin.guard.verdicts import Measured, judge
from risen_plugin.kit.sign_flips import look_at, rows_for, smallest_gain

SURE = 0.99
PLAN = RowPlan((96, 192, 288, 384))
Met = list[tuple[int, int]]


def by_hand(differences: list[int], confidence: float) -> bool:
    """All signs that the differences could have, written out."""
    sums = [
        sum(sign * size for sign, size in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    total = sum(differences)
    return sum(other >= total for other in sums) <= (1 - confidence) * len(sums) + 1e-9


def test_one_look_is_the_exact_test_of_all_signs() -> None:
    drawn = random.Random(0)
    for _ in range(200):
        differences = [drawn.choice((-1, 0, 1, 1, 2, 3)) for _ in range(8)]
        confidence = drawn.choice((0.9, 0.95, 0.99))
        assert look_at(differences, confidence).is_sure is by_hand(differences, confidence)


@pytest.mark.parametrize(
    ("differences", "looks", "sure"),
    [
        pytest.param([1] * 7, [], True, id="7 rows rise and none falls"),
        pytest.param([1] * 6, [], False, id="1 of 64 by chance"),
        pytest.param([3] * 6, [], False, id="many checks of a row count once for how sure it is"),
        pytest.param([], [], False, id="no row"),
        pytest.param([0] * 64, [], False, id="no row changes"),
        pytest.param([1] * 7, [7], False, id="an early look asks for more"),
        pytest.param([1] * 12, [12], True, id="and gets it"),
        pytest.param([1] * 12 + [-1] * 12, [12, 24], True, id="what was sure stays so"),
    ],
)
def test_a_look_may_spend_what_the_rows_that_it_has_seen_allow(
    differences: list[int], looks: list[int], sure: bool
) -> None:
    assert look_at(differences, SURE, looks=looks, planned=28).is_sure is sure


def test_all_looks_together_are_wrong_no_more_often_than_one_would_be() -> None:
    """Signs drawn by coins, 4 looks; 20 of 2000 expected, at most 33 by 3 standard errors."""
    drawn = random.Random(0)
    wrong = 0
    for _ in range(2000):
        sizes = [drawn.choice((0, 0, 1, 1, 2)) for _ in range(64)]
        differences = [size * drawn.choice((-1, 1)) for size in sizes]
        wrong += look_at(differences, SURE, looks=[16, 32, 48, 64], planned=64).is_sure
    assert wrong <= 33


def test_looks_are_of_about_the_same_size() -> None:
    assert in_looks(64, 64).looks == (64,)
    assert in_looks(64, 256).looks == (64, 128, 192, 256)
    assert in_looks(96, 384) == PLAN
    assert in_looks(64, 80).looks == (64, 80)
    assert in_looks(16, 384).looks == (16, 112, 208, 304, 384)


def test_the_smallest_gain_and_the_rows_for_it_are_the_same_question() -> None:
    for gain in (0.03, 0.07, 0.2):
        rows = rows_for(gain, SURE, scatter=0.2)
        assert smallest_gain(rows, SURE, scatter=0.2) == pytest.approx(gain, rel=0.02)


def test_a_row_that_is_judged_otherwise_at_the_two_ends_counts_by_its_verdict() -> None:
    checks = checks_of(
        ([False, True, None, True], [(1, 3), (2, 2), None, (1, 1)]),
        ([True, True, True, None], [(3, 3), (1, 1), (1, 1), None]),
    )
    assert list(checks.before) == [(1, 3), (1, 1)]
    assert checks.differences == [2, 0]


def test_constraints_that_are_met_make_a_gain_sure_where_whole_rows_do_not() -> None:
    """Of 64 rows with 3 constraints 24 meet one more, and 4 of them all."""
    before, after = [(1, 3)] * 64, [(2, 3)] * 20 + [(3, 3)] * 4 + [(1, 3)] * 40
    ends = [RowByRow([of == met for met, of in end], end, [(1.0, 1)]) for end in (before, after)]
    config = GuardConfig()
    changes = compare(*ends, config, SURE)
    assert changes.gain.low <= 0.0 < changes.by_checks.low
    assert changes.by_checks.value == pytest.approx(28 / 192)
    assert judge(Measured(0.0, 0.3, 1.0), Measured(4 / 64, 0.5, 1.0), config, changes).accepted


def test_a_gain_in_constraints_alone_is_kept_only_if_whole_rows_gain_as_asked() -> None:
    before, after = [(1, 3)] * 64, [(2, 3)] * 24 + [(1, 3)] * 40
    ends = [RowByRow([False] * 64, end, [(1.0, 1)]) for end in (before, after)]
    verdict = judge(
        *[Measured(0.0, 0.3, 1.0)] * 2, GuardConfig(), compare(*ends, GuardConfig(), SURE)
    )
    assert not verdict.accepted
    assert "gain is less than 0.010" in verdict.reason


def test_an_early_look_does_not_make_sure_what_a_single_one_would() -> None:
    """8 rows of the first 32 rise and 1 falls: sure as the only look, not as the first of five."""
    before = [(1, 2)] * 32
    after = [(2, 2)] * 8 + [(0, 2)] + [(1, 2)] * 23
    ends = [RowByRow([of == met for met, of in end], end, [(1.0, 1)]) for end in (before, after)]
    config = GuardConfig(rows=32, most_rows=256, confidence=0.95)
    plan = in_looks(32, 256)
    alone = compare(*ends, config, 0.95)
    early = compare(*ends, config, 0.95, plan=plan)
    assert early.by_checks.low <= 0.0 < alone.by_checks.low
    assert is_open(*ends, early, config, plan)
    measured = Measured(0.0, 0.5, 1.0), Measured(0.25, 0.6, 1.0)
    assert not judge(*measured, config, early).accepted
    assert judge(*measured, config, alone).accepted


# Simulated phases: rows of one to three constraints, whose verdicts go together within a row.


def rows_of_a_phase(drawn: random.Random, gains: float, breaks: float) -> tuple[Met, Met]:
    """Both ends: a constraint that is not met is learned with ``gains``, else lost with ``breaks``.

    About 0.29 of the constraints and 0.2 of the rows are met before.
    """
    met_below = NormalDist().inv_cdf(0.29)
    learned_above, kept_above = (NormalDist().inv_cdf(share) for share in (1 - gains, breaks))
    before: Met = []
    after: Met = []
    for _ in range(PLAN.most):
        of = drawn.choices((1, 2, 3), (5, 3, 2))[0]
        row, change = drawn.gauss(0, 1), drawn.gauss(0, 1)
        had = [(row + drawn.gauss(0, 1)) / 2**0.5 < met_below for _ in range(of)]
        has = [
            (change + drawn.gauss(0, 1)) / 2**0.5 > (kept_above if met else learned_above)
            for met in had
        ]
        before.append((sum(had), of))
        after.append((sum(has), of))
    return before, after


def is_kept(before: Met, after: Met, plan: RowPlan = PLAN) -> bool:
    for rows in plan.looks:
        ends = [([met == of for met, of in end[:rows]], end[:rows]) for end in (before, after)]
        checks = checks_of(*ends)
        if is_more_than_chance(checks, SURE, plan):
            return True
        if is_hopeless(checks, SURE, plan):
            return False
    return False


def test_a_true_gain_of_seven_in_a_hundred_rows_is_kept_in_nine_of_ten_cases() -> None:
    """12 % of the rows change; 150 phases, seeded: at least 135 kept."""
    drawn = random.Random(1)
    kept, gained = 0, 0.0
    for _ in range(150):
        before, after = rows_of_a_phase(drawn, gains=0.175, breaks=0.12)
        gained += sum((a == of) - (b == of) for (b, of), (a, _) in zip(before, after, strict=True))
        kept += is_kept(before, after)
    assert gained / 150 / PLAN.most == pytest.approx(0.07, abs=0.01)
    assert kept >= 135


def test_a_reward_by_lot_is_kept_in_one_of_a_hundred_cases_at_most() -> None:
    """The answers change as often the one way as the other: 600 phases, seeded.

    6 are expected; at most 13 by 3 standard errors.
    """
    drawn = random.Random(2)
    kept = 0
    for _ in range(600):
        ends = rows_of_a_phase(drawn, gains=0.3, breaks=0.3)
        pairs = [drawn.sample(pair, 2) for pair in zip(*ends, strict=True)]
        kept += is_kept([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    assert kept <= 13


# How many rows


@pytest.mark.parametrize(
    ("guard", "there", "answers", "looks"),
    [
        pytest.param({}, 64, 768, (64,), id="as many as were asked for"),
        pytest.param({"rows": 64, "most_rows": 256}, 256, 0, (64, 128, 192, 256), id="a reserve"),
        pytest.param({"rows": "auto"}, 384, 10_000, (96, 192, 288, 384), id="all that are apart"),
        pytest.param({"rows": "auto"}, 384, 768, (48, 96, 144, 192), id="a quarter of the time"),
        pytest.param({"rows": "auto"}, 384, 8, (7,), id="fewer could never be sure"),
        pytest.param({"rows": "auto"}, 40, 768, (32, 40), id="no more than there are"),
        pytest.param({"rows": "auto", "time_share": 0.5}, 384, 400, (50, 100, 150, 200), id="half"),
        pytest.param({"rows": "auto", "min_gain": 0.2}, 384, 10_000, (32, 36), id="a large gain"),
        pytest.param(
            {"rows": 64, "most_rows": 256, "confidence": None}, 256, 0, (64,), id="as measured"
        ),
        pytest.param({"rows": 64, "most_rows": 256, "min_gain": -1}, 256, 0, (64,), id="no gain"),
    ],
)
def test_the_rows_follow_from_the_gain_asked_for_the_time_and_the_supply(
    guard: dict[str, Any], there: int, answers: int, looks: tuple[int, ...]
) -> None:
    assert plan_rows(GuardConfig(**guard), there, answers).looks == looks


def test_the_smallest_gain_is_told_in_one_line() -> None:
    gain, line = can_tell(RowPlan((96, 192, 288, 384)), SURE)
    assert gain == pytest.approx(0.070, abs=5e-4)
    assert line.startswith("the guard's 96 to 384 rows tell a gain of 0.070 in strict adherence")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rows": "many"}, "it is a whole number from 1, or auto"),
        (
            {"rows": 64, "most_rows": 32},
            "guard.most_rows is 32, but guard.rows, which are measured",
        ),
        ({"time_share": 2.0}, "guard.time_share is 2"),
    ],
)
def test_rows_that_cannot_be_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        GuardConfig(**fields)


@pytest.mark.parametrize(
    ("after", "plan", "is_it"),
    [
        pytest.param([1] * 4 + [0] * 28, PLAN, True, id="it may be chance"),
        pytest.param([1] * 4 + [0] * 28, RowPlan((32,)), False, id="no more rows"),
        pytest.param([1] * 24 + [0] * 8, PLAN, False, id="it is sure"),
        pytest.param([0] * 32, PLAN, False, id="nothing changes"),
    ],
)
def test_the_guard_goes_on_while_further_rows_may_change_the_verdict(
    after: list[int], plan: RowPlan, is_it: bool
) -> None:
    probe = [(1.0, 1)]
    ends = RowByRow([False] * 32, probe=probe), RowByRow([*map(bool, after)], probe=probe)
    changes = compare(*ends, GuardConfig(), SURE, plan=plan)
    assert is_open(*ends, changes, GuardConfig(), plan) is is_it


def test_a_harm_that_is_sure_ends_the_measuring() -> None:
    before = RowByRow([False] * 32, probe=[(1.0, 1), (1.1, 1)] * 8)
    after = RowByRow([True] * 4 + [False] * 28, probe=[(9.0, 1), (9.1, 1)] * 8)
    changes = compare(before, after, GuardConfig(), SURE, plan=PLAN)
    assert not is_open(before, after, changes, GuardConfig(), PLAN)
