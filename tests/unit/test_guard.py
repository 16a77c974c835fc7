"""The guard compares row by row, and acts by rules that can be read off a table."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from risen_plugin.config import GuardConfig, TaskProbe
from risen_plugin.guard.changes import Changes, Harm, RowByRow, compare
from risen_plugin.guard.verdicts import (
    Look,
    Measured,
    Verdict,
    act,
    confidence_of_looks,
    judge,
    judge_burst,
)
from risen_plugin.kit.intervals import Interval

GUARD = GuardConfig()
ROWS, SURE = 64, 0.99


def measured(rows: RowByRow) -> Measured:
    strict = sum(map(bool, rows.passed)) / len(rows.passed)
    loss = sum(nats for nats, _ in rows.probe) / sum(tokens for _, tokens in rows.probe)
    return Measured(strict, strict, loss)


def verdict(before: RowByRow, after: RowByRow, guard: GuardConfig = GUARD) -> Verdict:
    changes = compare(before, after, guard, guard.confidence)
    return judge(measured(before), measured(after), guard, changes)


def rows(passed: int, *, rise: float = 0.0, **more: Any) -> RowByRow:
    """``passed`` of the rows pass; the probe's rows lose 1 nat per token, and ``rise`` more."""
    noise = [0.01 * (place % 3 - 1) for place in range(30)]
    probe = [(10 * (1 + rise + (wobble if rise else 0)), 10) for wobble in noise]
    return RowByRow(passed=[place < passed for place in range(ROWS)], probe=probe, **more)


# More than chance


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param(30, 37, None, id="7 rows rise and none falls"),
        pytest.param(30, 36, "gain may be chance", id="6 rows: 1 of 64 by chance"),
        pytest.param(30, 30, "gain is less than 0.010", id="no row changes"),
        pytest.param(30, 20, "gain is less than 0.010", id="rows fall"),
    ],
)
def test_a_gain_counts_if_it_is_more_than_chance(before: int, after: int, said: str | None) -> None:
    found = verdict(rows(before), rows(after))
    assert found.accepted is (said is None)
    assert said is None or said in found.reason


def test_the_same_gain_is_kept_where_measured_numbers_alone_decide() -> None:
    assert verdict(rows(30), rows(32), GuardConfig(confidence=None)).accepted
    assert not verdict(rows(30), rows(32)).accepted


def test_a_least_gain_below_zero_asks_that_the_loss_is_no_greater_for_sure() -> None:
    lenient = GuardConfig(min_gain=-0.2)
    assert verdict(rows(30), rows(28), lenient).accepted
    assert not verdict(rows(30), rows(10), lenient).accepted
    assert verdict(rows(30), rows(0), GuardConfig(min_gain=-1.0)).accepted


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        pytest.param([0.2] * 30, False, id="every row loses 0.2 nats"),
        pytest.param([0.0] * 29 + [6.0], True, id="0.2 on average, all of it in one row"),
        pytest.param([0.05] * 30, True, id="exactly the threshold"),
        pytest.param([0.0] * 29 + [math.nan], False, id="one row is no number"),
    ],
)
def test_a_harm_counts_if_it_is_beyond_its_threshold_for_sure(
    losses: list[float], kept: bool
) -> None:
    before = rows(30)
    after = RowByRow(
        passed=rows(50).passed,
        probe=[
            (nats + 10 * more, 10) for (nats, _), more in zip(before.probe, losses, strict=True)
        ],
    )
    assert verdict(before, after).accepted is kept


@pytest.mark.parametrize(
    ("guard", "before", "after", "said"),
    [
        (
            GuardConfig(max_forward_kl=0.1),
            {"entry_answers": [(5.0, 5)] * 20},
            {"entry_answers": [(6.0, 5)] * 20},
            "the forward KL from the model at phase entry is 0.2000, more than 0.1000",
        ),
        (
            GuardConfig(domain="right", max_domain_drop=0.1),
            {"domain": [1.0] * ROWS},
            {"domain": [0.5] * ROWS},
            "the drop of the domain's score is 0.5000, more than 0.1000",
        ),
        (
            GuardConfig(domain="metric:accuracy", max_domain_drop=0.1),
            {"domain_metric": 0.9},
            {"domain_metric": 0.7},
            "the drop of accuracy is 0.2000, more than 0.1000",
        ),
        (
            GuardConfig(tasks={"sums": TaskProbe([{"prompt": "1"}], "length", max_drop=0.1)}),
            {"tasks": {"sums": [1.0] * 20}},
            {"tasks": {"sums": [0.25] * 20}},
            "the drop of task 'sums' is 0.7500, more than 0.1000",
        ),
        (
            GuardConfig(max_trip_wire_rise=0.1),
            {"tripped": [False] * 40},
            {"tripped": [True] * 20 + [False] * 20},
            "the rise of the trip-wire rate is 0.5000, for sure 0.3212, more than 0.1000",
        ),
        (
            GuardConfig(max_gap=0.1),
            {"reported": [False] * 20, "unseen": [False] * 20},
            {"reported": [True] * 20, "unseen": [False] * 20},
            "the gap to reserved families is 1.0000, for sure 0.7725, more than 0.1000",
        ),
    ],
)
def test_each_harm_drops_a_phase_that_gained(
    guard: GuardConfig, before: dict[str, Any], after: dict[str, Any], said: str
) -> None:
    found = verdict(rows(20, **before), rows(60, **after), guard)
    assert not found.accepted
    assert found.reason.endswith(said)
    assert "\n" not in found.reason
    assert verdict(rows(20, **before), rows(60, **before), guard).accepted


def test_what_was_not_measured_is_not_held_against_a_phase() -> None:
    guard = GuardConfig(
        max_gap=0.0,
        max_forward_kl=0.0,
        max_trip_wire_rise=0.0,
        tasks={"sums": TaskProbe([{"prompt": "1"}], "length", max_drop=0.0)},
    )
    nothing = {"tasks": {"sums": [None, None]}}
    assert verdict(rows(20, **nothing), rows(60, **nothing), guard).accepted


@pytest.mark.parametrize(
    ("guard", "before", "after"),
    [
        pytest.param(
            GuardConfig(domain="right", max_domain_drop=0.1),
            {"domain": [1.0] * ROWS},
            {"domain": [None] * ROWS},
            id="a reward that has no opinion any more",
        ),
        pytest.param(
            GuardConfig(domain="metric:f1", max_domain_drop=0.1),
            {"domain_metric": 0.9},
            {"domain_metric": math.nan},
            id="a metric that is no number any more",
        ),
        pytest.param(
            GuardConfig(tasks={"sums": TaskProbe([{"prompt": "1"}], "length", max_drop=0.1)}),
            {"tasks": {"sums": [1.0] * 20}},
            {"tasks": {"sums": [None] * 20}},
            id="a task whose answers nobody can score any more",
        ),
    ],
)
def test_what_can_be_measured_no_more_drops_a_phase_at_its_end_only(
    guard: GuardConfig, before: dict[str, Any], after: dict[str, Any]
) -> None:
    ends = rows(20, **before), rows(60, **after)
    found = verdict(*ends, guard)
    assert not found.accepted
    assert found.reason.endswith("is no number any more")
    assert act(Look("during", compare(*ends, guard, SURE), [0.1]), guard).kind == "go_on"


# Bursts


@pytest.mark.parametrize(
    ("before", "after", "min_gain", "said"),
    [
        pytest.param(rows(30), rows(30), 0.0, None, id="nothing changes"),
        pytest.param(rows(30), rows(28), 0.0, None, id="two rows fall, maybe by chance"),
        pytest.param(rows(30), rows(15), 0.0, "for sure -0.1", id="fifteen rows fall"),
        pytest.param(rows(30), rows(15), -0.5, None, id="as much is allowed"),
        pytest.param(rows(30), rows(32), 2.0, "gain is +0.031", id="more is asked for than can be"),
        pytest.param(rows(30), rows(60, rise=0.2), 0.0, "rises by more", id="the probe loses"),
        pytest.param(
            rows(30, tasks={"sums": [1.0] * 20}),
            rows(60, tasks={"sums": [0.0] * 20}),
            0.0,
            "the drop of task 'sums'",
            id="a task is lost",
        ),
    ],
)
def test_a_burst_need_not_gain_but_must_not_lose_for_sure(
    before: RowByRow, after: RowByRow, min_gain: float, said: str | None
) -> None:
    guard = GuardConfig(tasks={"sums": TaskProbe([{"prompt": "1"}], "length", max_drop=0.1)})
    found = judge_burst(
        *map(measured, (before, after)), min_gain, compare(before, after, guard, SURE)
    )
    assert found.accepted is (said is None)
    assert said is None or said in found.reason


def test_of_a_thousand_phases_that_change_nothing_at_most_one_in_a_hundred_is_kept() -> None:
    """Rows flip as often up as down, at every level of adherence; seeded."""
    drawn = random.Random(0)
    kept = 0
    for _ in range(1000):
        level, flips = drawn.uniform(0.2, 0.8), drawn.uniform(0.0, 0.5)
        before = [drawn.random() < level for _ in range(ROWS)]
        after = [drawn.random() < level if drawn.random() < flips else b for b in before]
        state = rows(0)
        kept += verdict(
            RowByRow(passed=before, probe=state.probe), RowByRow(passed=after, probe=state.probe)
        ).accepted
    assert kept <= 10


def test_a_phase_that_pays_is_kept_nearly_always() -> None:
    """0.5 to 0.8 on 64 rows, with some rows falling back by accident; seeded."""
    drawn = random.Random(0)
    kept = 0
    for _ in range(200):
        before = [drawn.random() < 0.5 for _ in range(ROWS)]
        after = [drawn.random() < (0.95 if b else 0.65) for b in before]
        state = rows(0)
        kept += verdict(
            RowByRow(passed=before, probe=state.probe), RowByRow(passed=after, probe=state.probe)
        ).accepted
    assert kept >= 180


# Actions


def exactly(value: float) -> Interval:
    return Interval(value, value, value)


def changed(gain: float = 0.1, **harms: tuple[float, float, float | None]) -> Changes:
    """Harms as (measured, for sure, threshold)."""
    return Changes(
        exactly(gain),
        {
            name: Harm(name, Interval(value, low, value), most)
            for name, (value, low, most) in harms.items()
        },
    )


QUIET = changed(kl=(0.0, 0.0, 0.1))
SHOWS = changed(kl=(0.15, 0.05, 0.1))
BEYOND = changed(kl=(0.15, 0.12, 0.1))
KEPT, DROPPED = Verdict(True, "it paid"), Verdict(False, "it did not pay")


@pytest.mark.parametrize(
    ("look", "kind", "said"),
    [
        (Look("before"), "go_on", "measured at entry"),
        (Look("during", QUIET, [0.1]), "go_on", "gain +0.100"),
        (Look("during", SHOWS, [0.1], beta=0.04), "raise_beta", "kl is 0.1500, for sure 0.0500"),
        (Look("during", SHOWS, [0.1], beta=0.0), "stop", "there is no beta to raise"),
        (Look("during", SHOWS, [0.1], beta=1.0, max_beta=1.0), "stop", "no beta to raise"),
        (
            Look("during", BEYOND, [0.1], beta=0.04),
            "roll_back",
            "for sure 0.1200, more than 0.1000",
        ),
        (
            Look("during", changed(kl=(math.nan,) * 2 + (0.1,)), [0.1]),
            "roll_back",
            "kl is no number any more",
        ),  # type: ignore[arg-type]
        (Look("during", changed(kl=(9.0, 9.0, None)), [0.1]), "go_on", "gain"),
        (Look("during", QUIET, [0.0, 0.0]), "go_on", "gain"),
        (Look("during", QUIET, [0.0, 0.0, 0.0]), "stop", "adherence is flat: no further gain in 3"),
        (Look("during", QUIET, [0.2, 0.2, 0.1, 0.2]), "stop", "adherence is flat"),
        (Look("during", QUIET, [0.0, 0.0, 0.05]), "go_on", "gain"),
        (Look("after", QUIET, verdict=KEPT), "go_on", "it paid"),
        (Look("after", QUIET, verdict=DROPPED), "roll_back", "it did not pay"),
        (
            Look("after", changed(kl=(0.06, 0.01, 0.1)), verdict=KEPT),
            "burst",
            "0.0600 of the 0.1000",
        ),
        (Look("after", changed(kl=(0.06, -0.1, 0.1)), verdict=KEPT), "go_on", "it paid"),
        (Look("after", changed(kl=(0.04, 0.01, 0.1)), verdict=KEPT), "go_on", "it paid"),
        (Look("after", changed(kl=(0.06, 0.01, 0.1)), verdict=DROPPED), "roll_back", "did not pay"),
        (Look("after", changed(kl=(9.0, 9.0, math.inf)), verdict=KEPT), "go_on", "it paid"),
    ],
)
def test_an_action_follows_from_what_was_measured(look: Look, kind: str, said: str) -> None:
    action = act(look, GUARD)
    assert (action.kind, said in action.reason) == (kind, True), action.reason


def test_without_a_share_nothing_asks_for_a_burst() -> None:
    used = Look("after", changed(kl=(0.09, 0.09, 0.1)), verdict=KEPT)
    assert act(used, GuardConfig(burst_at=None)).kind == "go_on"
    assert act(used, GUARD).kind == "burst"


def test_several_looks_share_the_chance_of_a_false_alarm() -> None:
    assert confidence_of_looks(GUARD, 1) == pytest.approx(0.99)
    assert confidence_of_looks(GUARD, 10) == pytest.approx(0.999)
    assert confidence_of_looks(GUARD, 0) == pytest.approx(0.99)
    assert confidence_of_looks(GuardConfig(confidence=None), 10) is None


def test_changes_are_metrics_with_their_ends_as_far_as_they_are_numbers() -> None:
    changes = Changes(
        Interval(0.5, 0.25, 0.75), {"kl": Harm("kl", Interval(0.5, -math.inf, math.inf))}
    )
    assert changes.as_metrics() == {"gain": 0.5, "gain_low": 0.25, "gain_high": 0.75, "kl": 0.5}
    assert changes.ends() == {"gain": [0.5, 0.25, 0.75], "kl": [0.5, None, None]}
