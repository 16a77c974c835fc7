"""Rewards are compared where GRPO would feel the difference: inside groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.commands.score.comparison import Comparison, Moments, best_changes, is_flat
from risen_plugin.commands.score.rescoring import labelled, options_by_label, rescore
from risen_plugin.contracts import Failed
from risen_plugin.errors import ConfigError, DataError
from risen_plugin.record.rollouts import Rollout
from risen_plugin.rewards.calling import wrap

ERROR = Failed("down")


@pytest.mark.parametrize(
    ("outcomes", "flat"),
    [
        ([0.0, 1.0], False),
        ([0.5, 0.5, 0.5], True),
        ([0.5, 0.5 + 1e-9], True),
        ([0.5, None, ERROR], True),
        ([0.5, None, 0.6], False),
        ([None, None], True),
        ([1.0], True),
        ([], True),
    ],
)
def test_a_group_without_a_difference_is_flat(outcomes, flat):
    assert is_flat(outcomes) is flat


@pytest.mark.parametrize(
    ("first", "second", "changes"),
    [
        ([1.0, 0.0], [0.9, 0.1], False),
        ([1.0, 0.0], [0.1, 0.9], True),
        ([1.0, 1.0, 0.0], [0.2, 0.9, 0.1], False),
        ([1.0, 1.0, 0.0], [0.2, 0.1, 0.9], True),
        ([1.0, 1.0], [0.2, 0.1], False),
        ([1.0, 0.0, 0.5], [None, 0.1, 0.9], False),
        ([1.0, 0.0, ERROR], [0.1, 0.9, 1.0], True),
        ([1.0, None], [None, 1.0], None),
        ([1.0], [0.0], None),
    ],
)
def test_the_best_answer_changes_if_none_is_best_by_both(first, second, changes):
    assert best_changes(first, second) is changes
    assert best_changes(second, first) is changes


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2))
def test_the_correlation_is_pearsons(pairs):
    moments = Moments()
    for x, y in pairs:
        moments.add(x, y)
    xs, ys = np.array(pairs).T
    if xs.std() > 1e-3 and ys.std() > 1e-3:
        assert moments.correlation == pytest.approx(np.corrcoef(xs, ys)[0, 1], abs=1e-6)


@pytest.mark.parametrize("pairs", [[], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)]])
def test_what_never_differs_has_no_correlation(pairs):
    moments = Moments()
    for x, y in pairs:
        moments.add(x, y)
    assert moments.correlation is None


def compared(*groups, **settings):
    """A comparison of ``a`` and ``b``; a group is a list of pairs."""
    comparison = Comparison(["a", "b"], **settings)
    for number, group in enumerate(groups):
        told = [f"{number}.{index}" for index in range(len(group))]
        comparison.add([{"a": a, "b": b} for a, b in group], told)
    return comparison


def test_each_reward_has_its_mean_its_pass_rate_and_its_flat_groups():
    data = compared([(1.0, 0.5), (0.0, 0.5)], [(1.0, None), (1.0, ERROR)]).data()
    assert (data["answers"], data["groups"]) == (4, 2)
    assert data["rewards"]["a"] == {
        "mean": 0.75,
        "pass_rate": 0.75,
        "outcomes": {"score": 4, "abstain": 0, "error": 0},
        "groups": 2,
        "flat_groups": 1,
        "flat_share": 0.5,
    }
    assert data["rewards"]["b"]["outcomes"] == {"score": 2, "abstain": 1, "error": 1}
    assert data["rewards"]["b"]["flat_groups"] == 2


def test_a_pair_has_correlation_agreement_and_changes_of_the_best():
    [pair] = compared([(1.0, 1.0), (0.0, 0.0)], [(1.0, 0.5), (0.0, 1.0)]).data()["pairs"]
    assert pair["rewards"] == ["a", "b"]
    assert pair["agreement"] == 0.5
    assert (pair["groups"], pair["best_changed"], pair["best_changed_share"]) == (2, 1, 0.5)
    assert pair["correlation"] == pytest.approx(np.corrcoef([1, 0, 1, 0], [1, 0, 0.5, 1])[0, 1])


def test_passing_is_a_matter_of_the_bar():
    groups = [(1.0, 0.6), (0.0, 0.4)]
    assert compared(groups).data()["pairs"][0]["agreement"] == 0.5
    assert compared(groups, passes_at=0.5).data()["pairs"][0]["agreement"] == 1.0


def test_what_only_one_reward_scored_is_no_part_of_a_pair():
    [pair] = compared([(1.0, None), (0.0, ERROR)]).data()["pairs"]
    assert (pair["answers"], pair["correlation"], pair["agreement"]) == (0, None, None)
    assert (pair["groups"], pair["best_changed_share"]) == (0, None)


def test_a_reward_that_never_saw_a_group_has_no_flat_group_there():
    comparison = Comparison(["a", "b"])
    comparison.add([{"a": 1.0}, {"a": 0.0}])
    assert comparison.data()["rewards"]["b"]["groups"] == 0
    assert comparison.data()["rewards"]["b"]["flat_share"] is None


def test_examples_are_the_largest_disagreements_one_per_group():
    groups = [
        [(1.0, 0.9), (1.0, 0.2)],
        [(0.0, 0.0), (0.5, 0.4)],
        [(0.0, 1.0), (1.0, 0.0)],
        [(0.3, 0.3), (None, 1.0)],
    ]
    examples = compared(*groups, examples=2).examples()
    assert [(one.about, one.distance) for one in examples] == [("2.0", 1.0), ("0.1", 0.8)]
    assert [one.about for one in compared(*groups, examples=9).examples()] == ["2.0", "0.1", "1.1"]
    assert compared(*groups).examples() == []


def test_of_equal_disagreements_the_first_is_kept():
    groups = [[(1.0, 0.0)], [(1.0, 0.0)], [(0.0, 1.0)]]
    assert [one.about for one in compared(*groups, examples=2).examples()] == ["0.0", "1.0"]


def test_pairs_of_old_rewards_alone_are_left_out():
    pairs = Comparison(["old", "older", "new"], new=["new"]).pairs
    assert list(pairs) == [("old", "new"), ("older", "new")]


# Rescoring


def rollouts(*texts, group=2):
    """Rollouts in groups, logged with a reward that liked the first of each."""
    return [
        Rollout(
            f"log, row {index + 1}",
            phase=1,
            step=1,
            group=index // group,
            prompt="Ask.",
            completion=text,
            columns={"answer": "Po"},
            outcomes={"first": float(index % group == 0)},
        )
        for index, text in enumerate(texts)
    ]


def reward(function):
    return wrap(function, "mine", "reward 'mine'")


def length(completions, **columns):
    return [float(len(text)) for text in completions]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_logged_and_new_rewards_meet_on_the_same_answers(batch_size):
    data = rescore(
        rollouts("aa", "b", "c", "dd", "e", "ff"),
        {"long": reward(length), "again": reward(length)},
        ["first"],
        batch_size=batch_size,
    ).data()
    assert list(data["rewards"]) == ["first (logged)", "long", "again"]
    assert data["rewards"]["first (logged)"]["mean"] == 0.5
    assert data["rewards"]["long"]["mean"] == 1.5
    told = {tuple(pair["rewards"]): pair["best_changed"] for pair in data["pairs"]}
    assert told == {
        ("first (logged)", "long"): 2,
        ("first (logged)", "again"): 2,
        ("long", "again"): 0,
    }


def test_a_reward_that_scores_again_gets_the_logged_token_ids():
    def short(completion_ids, **columns):
        return [1.0 / len(ids) for ids in completion_ids]

    logged = [
        Rollout(**{**as_dict(one), "completion_ids": [7] * len(one.completion)})
        for one in rollouts("aa", "b")
    ]
    assert rescore(logged, {"short": reward(short)}, []).data()["rewards"]["short"]["mean"] == 0.75
    with pytest.raises(DataError, match="lacks the column 'completion_ids'"):
        rescore(rollouts("aa", "b"), {"short": reward(short)}, [])


def test_groups_of_different_phases_are_different_groups():
    first = rollouts("a", "b")
    second = [Rollout(**{**as_dict(one), "phase": 2}) for one in rollouts("a", "b")]
    assert rescore([*first, *second], {"long": reward(length)}, ["first"]).groups == 2


def as_dict(rollout):
    return {name: getattr(rollout, name) for name in Rollout.__dataclass_fields__}


def test_an_answer_that_cannot_be_scored_stops_or_is_an_error():
    def picky(completions, **columns):
        if "bad" in completions:
            raise ValueError("no")
        return [1.0] * len(completions)

    with pytest.raises(DataError, match=r"^log, row 2: reward 'mine' raised ValueError: no"):
        rescore(rollouts("a", "bad"), {"picky": reward(picky)}, ["first"])
    data = rescore(rollouts("a", "bad"), {"picky": reward(picky)}, ["first"], stop=False).data()
    assert data["rewards"]["picky"]["outcomes"] == {"score": 1, "abstain": 0, "error": 1}


def test_a_lacking_column_stops_before_any_reward_is_called():
    def never(completions, **columns):
        raise AssertionError("it was called")

    def needy(completions, anser, **columns):
        return []

    with pytest.raises(DataError, match=r"lacks the column 'anser'.*did you mean 'answer'"):
        rescore(rollouts("a"), {"never": reward(never), "needy": reward(needy)}, ["first"])


def test_a_log_without_answers_is_told():
    with pytest.raises(DataError, match="no logged answers"):
        rescore([], {"long": reward(length)}, [])


def test_memory_holds_a_batch_of_rollouts():
    ahead = []

    def stream():
        for one in rollouts(*"abcdefgh"):
            ahead.append(one)
            yield one

    def watching(completions, **columns):
        assert len(ahead) - seen[0] <= 2
        seen[0] += len(completions)
        return [1.0] * len(completions)

    seen = [0]
    rescore(stream(), {"watching": reward(watching)}, ["first"], batch_size=2)
    assert seen == [8]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["length"], {"length": "length"}),
        (["mine/length"], {"mine/length": "mine/length"}),
        (["short=length", "length"], {"short": "length", "length": "length"}),
        (["my.py:Short"], {"Short": "my.py:Short"}),
        (["s=my.py:Short"], {"s": "my.py:Short"}),
    ],
)
def test_a_reward_has_a_label(given, named):
    assert labelled(given) == named


def test_two_rewards_of_one_label_are_refused():
    with pytest.raises(ConfigError, match="two rewards are called 'a'; give one a label, as in"):
        labelled(["a", "x.py:a"])


@pytest.mark.parametrize(
    ("pairs", "labels", "options"),
    [
        (["low=1"], ["a"], {"a": ["low=1"]}),
        (["a.low=1"], ["a"], {"a": ["low=1"]}),
        (["a.low=1", "b.low=2"], ["a", "b"], {"a": ["low=1"], "b": ["low=2"]}),
        (["a.b.low=1"], ["a", "a.b"], {"a": [], "a.b": ["low=1"]}),
        (["pattern=a.b=c"], ["a"], {"a": ["pattern=a.b=c"]}),
    ],
)
def test_options_find_their_reward(pairs, labels, options):
    assert options_by_label(pairs, labels) == options


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (
            "low=1",
            "'low=1' does not say whose it is. Write LABEL.name=value with one of the labels",
        ),
        ("shrt.low=1", "whose it is; did you mean 'short'?"),
    ],
)
def test_an_option_of_nobody_is_refused(pair, message):
    with pytest.raises(ConfigError) as caught:
        options_by_label([pair], ["short", "other"])
    assert message in str(caught.value)


def test_infinity_is_no_score():
    assert is_flat([math.inf, 1.0])
