"""A part of a change is kept where the whole gained and did harm, and chance wins no more by it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from risen_plugin.config import GuardConfig
from risen_plugin.errors import ConfigError
from risen_plugin.guard.changes import Changes, Harm, RowByRow, compare
from risen_plugin.guard.strengths import (
    Part,
    in_words,
    judge_part,
    judge_retention,
    verdict_on_parts,
)
from risen_plugin.guard.verdicts import Verdict
from risen_plugin.kit.intervals import Interval
from risen_plugin.phases.leftovers.buffers import refusal

GUARD = GuardConfig(strengths=(0.5, 0.25))
SURE = Interval(0.2, 0.1, 0.3)
CHANCE = Interval(0.2, -0.1, 0.5)
NONE = Interval(0.0, -0.1, 0.1)
WHOLE = Part(1.0, harms={"probe_loss_rise": "the rise of the probe loss is 0.2000"})


def changes(gain: Interval, *, probe: Interval = NONE, kl: Interval = NONE) -> Changes:
    harms = {
        "probe_loss_rise": Harm("the rise of the probe loss", probe, 0.05),
        "forward_kl": Harm("the forward KL", kl, 0.1),
    }
    return Changes(gain, harms)


FOR_SURE, SHOWS, WITHIN = Interval(0.2, 0.15, 0.25), Interval(0.2, 0.0, 0.4), Interval(0.03, 0, 0.1)


@pytest.mark.parametrize(
    ("measured", "earlier", "is_kept", "may_be_less", "against"),
    [
        (changes(SURE), (), True, False, None),
        (changes(SURE, probe=SHOWS), (), True, False, None),
        (changes(SURE, probe=FOR_SURE), (), False, True, "the rise of the probe loss is 0.2000,"),
        (changes(CHANCE, probe=FOR_SURE), (), False, False, "gain may be chance"),
        (changes(NONE, probe=FOR_SURE), (), False, False, "gain is less than 0.010"),
        (changes(SURE, probe=WITHIN), [WHOLE], True, False, None),
        (changes(SURE, probe=SHOWS), [WHOLE], False, True, "the rise of the probe loss is 0.2000"),
        (changes(SURE, kl=SHOWS), [WHOLE], True, False, None),
        (changes(SURE, kl=FOR_SURE), [WHOLE], False, True, "the forward KL is 0.2000, for sure"),
        (changes(CHANCE), [WHOLE], False, False, "gain may be chance"),
    ],
    ids=[
        "it gained and did no harm",
        "a harm that may be chance",
        "a harm for sure",
        "a harm, and the gain may be chance",
        "a harm and no gain",
        "a part within the limit",
        "a part that does not show that the harm is gone",
        "a part with another harm that may be chance",
        "a part with another harm for sure",
        "a part whose gain may be chance",
    ],
)
def test_a_smaller_part_is_tried_for_harm_alone(
    measured: Changes,
    earlier: list[Part],
    is_kept: bool,
    may_be_less: bool,
    against: str | None,
) -> None:
    part = judge_part(0.5, measured, GUARD, earlier)
    assert (part.is_kept, part.may_be_less) == (is_kept, may_be_less)
    assert part.against == against or str(part.against).startswith(str(against))


def test_the_losses_speak_for_a_part_before_its_gain_is_known() -> None:
    unknown = Interval(float("nan"), float("nan"), float("nan"))
    assert judge_retention(0.5, changes(unknown, probe=WITHIN), [WHOLE]).is_kept
    assert judge_retention(0.5, changes(unknown, probe=SHOWS), [WHOLE]).may_be_less


def test_a_verdict_says_at_which_strength_a_phase_is_kept_or_why_at_none() -> None:
    dropped = Verdict(False, "adherence 0.1 -> 0.3: rises by more than 0.0500")
    half, quarter = Part(0.5, harms={"forward_kl": "the forward KL is 0.2"}), Part(0.25)
    kept = verdict_on_parts(dropped, [WHOLE, half, quarter], "adherence 0.1 -> 0.2")
    assert kept == Verdict(
        True,
        "adherence 0.1 -> 0.2: kept at a quarter of its strength, since at full strength the rise "
        "of the probe loss is 0.2000",
    )
    none = verdict_on_parts(dropped, [WHOLE, half, Part(0.25, "gain may be chance")], "")
    assert none == Verdict(
        False,
        "adherence 0.1 -> 0.3: rises by more than 0.0500; at half strength, the forward KL is 0.2; "
        "at a quarter of its strength, gain may be chance",
    )
    assert verdict_on_parts(dropped, [Part(1.0, "no gain")], "") == dropped
    assert in_words(0.1) == "0.1 of its strength"


def test_a_reward_by_lot_is_kept_no_more_often_for_all_the_strengths() -> None:
    """Each strength's answers change at random, and half of the strengths do harm; seeded."""
    drawn = random.Random(0)
    guard = GuardConfig(strengths=(0.5, 0.25, 0.125))
    kept = {True: 0, False: 0}
    runs = 3000
    for _ in range(runs):
        before = [drawn.random() < 0.5 for _ in range(64)]
        harms = [drawn.random() < 0.5 for _ in range(4)]
        parts: list[Part] = []
        for strength, harm in zip((1.0, *guard.strengths), harms, strict=True):
            after = [drawn.random() < 0.5 if drawn.random() < 0.3 else b for b in before]
            end = RowByRow(after, probe=[(12.0 if harm else 10.0, 10)] * 9)
            found = compare(RowByRow(before, probe=[(10.0, 10)] * 9), end, guard, guard.confidence)
            parts.append(judge_part(strength, found, guard, parts))
            if not parts[-1].may_be_less:
                break
        kept[parts[0].is_kept] += parts[-1].is_kept
    assert sum(kept.values()) <= 0.01 * runs


def test_answers_of_the_whole_are_not_fine_tuned_on_where_a_part_is_kept() -> None:
    ends = {"guard/probe_loss_before": 1.0, "guard/probe_loss_after": 1.0}
    assert refusal(True, ends, GUARD) is None
    assert refusal(True, {**ends, "strength": 1.0}, GUARD) is None
    assert "part of its strength" in str(refusal(True, {**ends, "strength": 0.5}, GUARD))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (0.5, "guard.strengths is 0.5; it is a list of shares of the trained change, such as"),
        ("0.5", "guard.strengths is '0.5'; it is a list"),
        ([50], "guard.strengths has 50; did you mean 0.5? Each is a share above 0 and below 1"),
        ([1.0], "guard.strengths has 1.0. Each is a share above 0 and below 1 of the trained"),
        ([0.5, 0], "guard.strengths has 0. Each is a share"),
        ([True], "guard.strengths has True. Each is a share"),
        ([0.5, "5e-1"], "guard.strengths has the text '5e-1' (in YAML write 5.0e-1). Each is"),
        ([0.5, 0.5], "guard.strengths is [0.5, 0.5]; name each strength once"),
    ],
)
def test_what_is_no_share_of_a_change_is_refused(named: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GuardConfig(strengths=named)
    assert str(caught.value).startswith(said)


def test_the_largest_strength_comes_first_and_none_is_tried_by_default() -> None:
    assert GuardConfig(strengths=[0.25, 0.5]).strengths == (0.5, 0.25)
    assert GuardConfig().strengths == ()
