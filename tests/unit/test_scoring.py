"""Rewards are called as TRL calls them, and nothing but finite scores comes through."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.config.choices import Grading
from risen_plugin.contracts import Failed
from risen_plugin.errors import ConfigError, DataError, PluginError
from risen_plugin.rewards.adherence import Adherence, adherence, columns_of, grade, unjudged
from risen_plugin.rewards.batch import Batch, PassRates
from risen_plugin.rewards.calling import AsyncNamedReward, NamedReward, wrap
from risen_plugin.rewards.scores import check_scores

LABEL = "reward 'mine' (risen-mine 1.0)"


def reward_of(*scores: Any, name: str = "mine", **settings: Any) -> NamedReward:
    """A wrapped reward that returns these scores whatever it sees."""
    return wrap(lambda **columns: list(scores), name, f"reward '{name}'", Grading(**settings))


def silent(*names: str, **settings: Any) -> list[NamedReward]:
    return [reward_of(name=name, **settings) for name in names]


def rows(count: int, **columns: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"prompt": f"p{i}", **{k: v[i] for k, v in columns.items()}} for i in range(count)]


# Scores


@pytest.mark.parametrize(
    "scores",
    [
        [1, 0.5, None],
        (True, 0.5, None),
        [np.float32(1), np.float64(0.5), None],
        [np.int64(1), Fraction(1, 2), None],
        [torch.tensor(1.0), torch.tensor([0.5]), None],
        [torch.tensor(1.0, requires_grad=True), 0.5, None],
    ],
)
def test_numbers_of_any_library_become_plain_floats(scores: Any) -> None:
    checked = check_scores(scores, 3, LABEL)
    assert checked == [1.0, 0.5, None]
    assert [type(score) for score in checked] == [float, float, type(None)]


@pytest.mark.parametrize("scores", [np.array([1.0, 0.5]), torch.tensor([1.0, 0.5])])
def test_an_array_is_a_list_of_scores(scores: Any) -> None:
    assert check_scores(scores, 2, LABEL) == [1.0, 0.5]


def test_a_score_that_could_not_be_had_comes_through_with_its_reason() -> None:
    failed = Failed("no answer within 9 s")
    checked = check_scores([failed, 1.0, None], 3, LABEL)
    assert checked[0] is failed
    assert checked[1:] == [1.0, None]


class Odd:
    def __repr__(self) -> str:
        return "odd\n" * 40


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([1.0], "returned 1 scores for 2 completions; it must return one per completion (None to "),
        ([1.0] * 3, "returned 3 scores for 2 completions"),
        ([], "returned 0 scores for 2 completions"),
        ([1.0, math.nan], "returned nan for completion 1; a score is finite, and None means that"),
        ([math.inf, 1.0], "returned inf for completion 0"),
        ([1.0, -math.inf], "returned -inf for completion 1"),
        ([10**400, 1.0], "returned inf for completion 0"),
        ([np.float32("nan"), 1.0], "returned nan for completion 0"),
        ([torch.tensor(math.nan), 1.0], "returned nan for completion 0"),
        (["1.0", 1.0], "returned '1.0' for completion 0; a score is a number or None"),
        ([1.0, "x" * 500], "returned 'xxxxxxxxxxxx...xxxxxxxxxxxxx' for completion 1"),
        ([[1.0], 1.0], "returned [1.0] for completion 0"),
        ([1.0, {"score": 1.0}], "returned {'score': 1.0} for completion 1"),
        ([1j, 1.0], "returned 1j for completion 0"),
        ([Odd(), 1.0], "returned odd odd odd"),
        (np.ones((2, 3)), "returned array([1., 1., 1.]) for completion 0"),
        (torch.ones(2, 3), "returned tensor([1., 1., 1.]) for completion 0"),
        (None, "returned NoneType, not a list of scores"),
        (1.0, "returned float, not a list of scores"),
        ("11", "returned str, not a list of scores"),
        ({0: 1.0, 1: 1.0}, "returned dict, not a list of scores"),
        ({1.0, 2.0}, "returned set, not a list of scores"),
        ((score for score in (1.0, 1.0)), "returned generator, not a list of scores"),
        (torch.tensor(1.0), "returned Tensor, not a list of scores"),
        (np.array(1.0), "returned ndarray, not a list of scores"),
    ],
)
def test_what_would_train_on_nonsense_is_refused_in_one_line(scores: Any, said: str) -> None:
    with pytest.raises(PluginError) as caught:
        check_scores(scores, 2, LABEL)
    assert str(caught.value).startswith(f"{LABEL} {said}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)))
def test_finite_scores_and_abstentions_come_through_unchanged(
    scores: list[float | None],
) -> None:
    assert check_scores(scores, len(scores), LABEL) == scores


@given(st.lists(st.floats() | st.text() | st.none(), min_size=1), st.integers(0, 9))
def test_whatever_comes_through_is_finite_and_one_per_completion(
    scores: list[Any], expected: int
) -> None:
    try:
        checked = check_scores(scores, expected, LABEL)
    except PluginError:
        return
    assert len(checked) == expected
    assert all(score is None or math.isfinite(score) for score in checked)


# Wrapping


def plain(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    return [float(len(completion)) for completion in completions]


async def slow(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    await asyncio.sleep(0)
    return plain(prompts, completions, **columns)


class SlowObject:
    async def __call__(
        self, prompts: list[Any], completions: list[Any], **columns: Any
    ) -> list[float]:
        return await slow(prompts, completions, **columns)


@pytest.mark.parametrize(
    ("reward", "is_async"),
    [
        (plain, False),
        (functools.partial(plain), False),
        (slow, True),
        (functools.partial(slow), True),
        (SlowObject(), True),
    ],
)
def test_exactly_the_rewards_that_are_async_are_awaited(
    reward: Callable[..., Any], is_async: bool
) -> None:
    wrapped = wrap(reward, "mine", LABEL)
    assert isinstance(wrapped, AsyncNamedReward) is is_async
    assert asyncio.iscoroutinefunction(wrapped.__call__) is is_async
    assert wrapped.__name__ == "mine"
    scores: Any = wrapped(prompts=["a", "b"], completions=["", "xyz"], answer=["", ""])
    assert (asyncio.run(scores) if is_async else scores) == [0.0, 3.0]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (KeyError("gold"), PluginError, f"{LABEL} raised KeyError: 'gold'"),
        (ValueError("a\nb"), PluginError, f"{LABEL} raised ValueError: a b"),
        (DataError("row 3 is odd"), DataError, f"{LABEL}: row 3 is odd"),
    ],
)
def test_a_reward_that_raises_is_named_in_one_line(
    is_async: bool, error: Exception, kind: type[Exception], said: str
) -> None:
    def raising(**columns: Any) -> list[float]:
        raise error

    async def raising_later(**columns: Any) -> list[float]:
        raise error

    wrapped = wrap(raising_later if is_async else raising, "mine", LABEL)
    with pytest.raises(kind) as caught:
        grade([wrapped], rows(1), ["x"])
    assert str(caught.value) == said
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("needs", "columns"),
    [((), ()), (("a", "b"), ("a", "b")), (["a"], ("a",)), ("answer", ("answer",))],
)
def test_a_reward_says_which_columns_it_needs(needs: Any, columns: tuple[str, ...]) -> None:
    def mine(**columns: Any) -> list[float]:
        return []

    mine.needs = needs  # type: ignore[attr-defined]
    assert wrap(mine, "mine", LABEL).needs == columns


def test_an_argument_without_a_default_is_a_column_that_is_needed() -> None:
    def mine(
        prompts: Any, completions: Any, colour: Any, *, size: Any, shade: Any = None, **columns: Any
    ) -> list[float]:
        return []

    assert wrap(mine, "mine", LABEL).needs == ("colour", "size")


# Grading


def test_grading_calls_rewards_as_trl_does_with_a_column_per_name() -> None:
    seen: dict[str, Any] = {}

    def mine(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        seen.update(columns, prompts=prompts, completions=completions)
        columns["log_metric"]("x", 1.0)
        columns["log_extra"]("x", [1.0])
        return [1.0, 0.0]

    instructions: Any = [
        {"prompt": "a", "answer": 1, "completion": "c"},
        {"prompt": "b", "family": "f"},
    ]
    rewards = [wrap(mine, "mine", LABEL)]
    assert grade(rewards, instructions, ("x", "y"), [[1], [2, 3]]) == {"mine": [1.0, 0.0]}
    assert seen["prompts"] == ["a", "b"]
    assert seen["completions"] == ["x", "y"]
    assert (seen["answer"], seen["family"]) == ([1, None], [None, "f"])
    assert seen["completion_ids"] == [[1], [2, 3]]
    assert seen["trainer_state"].global_step == seen["trainer_state"].max_steps > 0
    assert "completion" not in seen


def test_a_reward_of_token_ids_is_refused_where_they_are_not_known() -> None:
    def short(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        return [1.0] * len(completion_ids)

    rows: Any = [{"prompt": "a"}]
    with pytest.raises(ConfigError, match="takes completion_ids, the token ids of answers"):
        grade([wrap(short, "short", LABEL)], rows, ["x"])
    assert grade([wrap(short, "short", LABEL)], rows, ["x"], [[1]]) == {"short": [1.0]}


def test_columns_are_the_rows_without_prompt_and_completion() -> None:
    assert columns_of([{"prompt": 1, "b": 2}, {"completion": 3, "a": 4}]) == {
        "a": [None, 4],
        "b": [2, None],
    }


def test_grading_asks_only_graded_rewards() -> None:
    rewards = [reward_of(1.0, name="a"), reward_of("never asked", name="b", graded=False)]
    assert grade(rewards, rows(1), ["x"]) == {"a": [1.0]}


def test_async_rewards_are_graded_also_where_an_event_loop_runs_already() -> None:
    async def in_a_notebook() -> Any:
        return grade([wrap(slow, "mine", LABEL)], rows(2), ["", "xy"])

    assert asyncio.run(in_a_notebook()) == {"mine": [0.0, 2.0]}
    assert grade([wrap(slow, "mine", LABEL)], rows(2), ["", "xy"]) == {"mine": [0.0, 2.0]}


# Adherence


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"a": [1.0, 0.0], "b": [1.0, 1.0]}, Adherence(0.5, 0.75, 2)),
        ({"a": [1.0, None], "b": [0.5, 1.0]}, Adherence(0.5, 0.875, 2)),
        ({"a": [None, 1.0], "b": [None, 1.0]}, Adherence(1.0, 1.0, 1)),
        ({"a": [None, None], "b": [None, None]}, Adherence(0.0, 0.0, 0)),
        ({"a": [1.0, 0.0], "b": [1.0, Failed("down")]}, Adherence(1.0, 1.0, 1, 1)),
        ({"a": [None, 1.0], "b": [Failed("down"), Failed("down")]}, Adherence(0.0, 0.0, 0, 2)),
        ({"a": [], "b": []}, Adherence(0.0, 0.0, 0)),
    ],
)
def test_an_answer_adheres_if_every_reward_that_scored_it_passes(
    scores: dict[str, list[float | None]], expected: Adherence
) -> None:
    assert adherence(silent("a", "b"), scores) == expected


def test_a_reward_passes_from_its_own_bar_on() -> None:
    rewards = [*silent("a", passes_at=0.5), *silent("b", passes_at=-1.0)]
    scores: Any = {"a": [0.5, 0.49, 0.5], "b": [-1.0, 0.0, -1.01]}
    assert adherence(rewards, scores).strict == pytest.approx(1 / 3)


def test_a_reward_that_is_not_graded_has_no_say() -> None:
    rewards = [*silent("a"), *silent("b", graded=False)]
    assert adherence(rewards, {"a": [1.0]}) == Adherence(1.0, 1.0, 1)


scored = st.lists(st.tuples(*[st.none() | st.floats(0, 1)] * 2), max_size=20)


@given(scored)
def test_strict_adherence_is_a_share_and_never_above_soft(
    pairs: list[tuple[float | None, float | None]],
) -> None:
    scores = {"a": [a for a, _ in pairs], "b": [b for _, b in pairs]}
    found = adherence(silent("a", "b"), scores)
    assert 0.0 <= found.strict <= 1.0
    assert found.strict <= found.soft + 1e-9
    assert found.rows == sum(pair != (None, None) for pair in pairs)


@pytest.mark.parametrize(
    ("scores", "limit", "said"),
    [
        ([1.0, Failed("down")], 0.5, None),
        ([None, None], 0.0, None),
        (
            [1.0, Failed("down")],
            0.4,
            "1 of 2 held-out answers could not be judged (50%, limit 40%): reward 'a' failed on 1, "
            "for example: down",
        ),
        (
            [None, Failed("down")],
            1.0,
            "1 of 2 held-out answers could not be judged (50%, limit 100%): reward 'a' failed on "
            "1, for example: down",
        ),
    ],
)
def test_too_few_judged_answers_are_no_measurement(
    scores: list[float | None], limit: float, said: str | None
) -> None:
    other: list[float | None] = [None, None]
    assert unjudged(silent("b", "a"), {"b": other, "a": scores}, limit) == said


# Pass rates


def report(
    counted: PassRates,
    rewards: Sequence[NamedReward],
    outcomes: Mapping[str, Sequence[float | None]],
    **columns: Any,
) -> None:
    given = {name: list(scores) for name, scores in outcomes.items()}
    answers = [""] * len(next(iter(given.values())))
    counted.take(Batch(0, answers, answers, columns, given, rewards))


def test_pass_rates_are_the_shares_of_answers_that_every_reward_passes() -> None:
    counted = PassRates()
    scores: Any = {"a": [1.0, 1.0, 0.0, None], "b": [1.0, 0.0, 1.0, 1.0]}
    report(
        counted,
        silent("a", "b"),
        scores,
        family=["x", "x", "y", "y"],
        completion_ids=[[1], [1, 2], [], [3]],
    )
    assert counted.rates() == {"x": 0.5, "y": 0.5}
    assert (counted.rollouts, counted.tokens) == (4, 4)


def test_only_graded_rewards_count_for_pass_rates() -> None:
    counted = PassRates()
    report(counted, [*silent("a"), *silent("b", graded=False)], {"a": [1.0], "b": [Failed("down")]})
    assert counted.rates() == {"all": 1.0}


@pytest.mark.parametrize("nothing", [None, Failed("down")])
def test_an_answer_without_a_score_is_a_rollout_without_a_rate(nothing: float | None) -> None:
    counted = PassRates()
    report(counted, silent("a"), {"a": [nothing, nothing]}, completion_ids=[[1], [2]])
    assert counted.rates() == {}
    assert counted.rollouts == 2


def test_an_answer_that_one_reward_failed_on_has_no_rate_whatever_the_others_say() -> None:
    counted = PassRates()
    report(counted, silent("a", "b"), {"a": [1.0, 1.0], "b": [Failed("down"), 0.0]})
    assert counted.rates() == {"all": 0.0}


@pytest.mark.parametrize(
    ("family", "name"), [(None, "all"), ("", "all"), (3, "3"), (["a", 1], "['a', 1]")]
)
def test_any_value_can_be_a_family(family: Any, name: str) -> None:
    counted = PassRates()
    report(counted, silent("a"), {"a": [1.0]}, family=[family])
    assert counted.rates() == {name: 1.0}


def test_only_the_latest_answers_of_a_family_count() -> None:
    counted = PassRates(window=4)
    report(counted, silent("a"), {"a": [0.0] * 8 + [1.0, 1.0]})
    assert counted.rates() == {"all": 0.5}


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.none() | st.floats(0, 2)), max_size=30))
def test_pass_rates_survive_being_saved_as_json(
    answers: list[tuple[str, float | None]],
) -> None:
    import json

    counted = PassRates()
    report(
        counted,
        silent("a"),
        {"a": [score for _, score in answers]},
        family=[family for family, _ in answers],
        completion_ids=[[0]] * len(answers),
    )
    restored = PassRates()
    restored.load_state_dict(json.loads(json.dumps(counted.state_dict())))
    assert restored.rates() == counted.rates()
    assert all(0.0 <= rate <= 1.0 for rate in restored.rates().values())
    assert (restored.rollouts, restored.tokens) == (counted.rollouts, counted.tokens)


class _Exiting(float):
    def __float__(self) -> float:
        raise SystemExit(0)

    def __len__(self) -> int:
        raise KeyboardInterrupt


@pytest.mark.parametrize("scores", [[_Exiting(1.0)], _Exiting(1.0)])
def test_scores_whose_class_exits_are_an_error_of_the_reward(scores: Any) -> None:
    with pytest.raises(PluginError, match="reward 'r' returned what cannot be read as scores"):
        check_scores(scores, 1, "reward 'r'")
