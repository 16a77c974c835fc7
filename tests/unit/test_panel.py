"""All rewards are asked once per batch, and TRL gets only what may be learned from."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest

from risen_plugin import BreakerConfig, Failed, GateConfig
from risen_plugin.config.choices import Grading
from risen_plugin.errors import PluginError
from risen_plugin.rewards.batch import Batch, PassRates
from risen_plugin.rewards.calling import NamedReward, wrap
from risen_plugin.rewards.gate import Gate
from risen_plugin.rewards.panel import Panel
from risen_plugin.rewards.scores import OutageError, Scores

F = Failed("down")


def named(scores: Any, name: str, **settings: Any) -> NamedReward:
    """A reward that returns ``scores``, or what ``scores`` makes of the columns."""
    reward = scores if callable(scores) else lambda **columns: list(scores)
    return wrap(reward, name, f"reward '{name}'", Grading(**settings))


def panel_of(*rewards: NamedReward, group: int = 2, **settings: Any) -> Panel:
    panel = Panel(rewards, **settings)
    panel.begin(group=group)
    return panel


def batch(panel: Panel, count: int = 4, **columns: Any) -> dict[str, Scores]:
    """What TRL is told when it calls its reward functions one by one."""
    prompts, completions = ["p"] * count, [f"c{i}" for i in range(count)]
    return {
        column.__name__: column(prompts=prompts, completions=completions, **columns)
        for column in panel.trl_rewards
    }


def test_trl_sees_a_column_per_reward_with_its_name_and_weight() -> None:
    panel = panel_of(named([1.0], "a", weight=0.5), named([1.0], "b"))
    assert [(c.__name__, c.weight) for c in panel.trl_rewards] == [("a", 0.5), ("b", 1.0)]


def test_every_reward_is_asked_once_per_batch_and_errors_mask_all_of_them() -> None:
    calls: list[str] = []

    def counting(name: str, scores: Scores) -> NamedReward:
        def reward(**columns: Any) -> Scores:
            calls.append(name)
            return scores

        return named(reward, name)

    panel = panel_of(
        counting("a", [1.0, 0.0, 1.0, 0.0]),
        counting("b", [1.0, 1.0, F, 1.0]),
        breaker=BreakerConfig(max_error_rate=1.0),
    )
    assert batch(panel) == {"a": [1.0, 0.0, None, None], "b": [1.0, 1.0, None, None]}
    assert calls == ["a", "b"]
    batch(panel)
    assert calls == ["a", "b"] * 2


def test_the_same_list_is_a_new_batch_once_its_columns_are_handed_out() -> None:
    seen: list[str] = []

    def first(completions: list[Any], **columns: Any) -> list[float]:
        seen.append(completions[0])
        return [float(len(seen))] * len(completions)

    panel = panel_of(named(first, "a"))
    completions = ["x", "y"]
    column = panel.trl_rewards[0]
    assert column(prompts=["p", "p"], completions=completions) == [1.0, 1.0]
    completions[0] = "z"
    assert column(prompts=["p", "p"], completions=completions) == [2.0, 2.0]
    assert seen == ["x", "z"]


def test_an_equal_batch_is_another_batch() -> None:
    taken: list[Batch] = []
    panel = panel_of(named([1.0, 0.0], "a"), named([0.0, 1.0], "b"), listeners=[taken.append])
    a, b = panel.trl_rewards
    for _ in range(2):
        a(prompts=["p", "p"], completions=["x", "y"])
    b(prompts=["p", "p"], completions=["x", "y"])
    assert len(taken) == 3


def test_nothing_of_a_batch_that_failed_is_left_for_the_next_phase() -> None:
    panel = panel_of(named([1.0, 0.0], "a"), named([1.0, 0.0], "b"))
    completions = ["x", "y"]
    panel.trl_rewards[0](prompts=["p", "p"], completions=completions)
    panel.begin(group=2)
    panel.trl_rewards[1](prompts=["p", "p"], completions=completions)
    assert sum(count.completions for count in panel.errors.values()) == 4


def test_listeners_get_the_outcomes_as_they_were_given() -> None:
    heard: list[Batch] = []
    reward = named([1.0, None, F, 0.0], "a", weight=2.0)
    panel = panel_of(reward, breaker=BreakerConfig(max_error_rate=1.0), listeners=[heard.append])
    state = types.SimpleNamespace(global_step=3)
    batch(panel, family=["f"] * 4, completion_ids=[[1]] * 4, trainer_state=state)
    [told] = heard
    assert (told.step, told.group, told.rewards) == (3, 2, (reward,))
    assert (told.prompts, told.completions) == (["p"] * 4, ["c0", "c1", "c2", "c3"])
    assert told.columns == {"family": ["f"] * 4, "completion_ids": [[1]] * 4}
    assert told.scores["a"][:2] == [1.0, None]
    assert told.scores["a"][2] is F


def test_pass_rates_listen_and_errors_count_for_nothing() -> None:
    rewards = [named([1.0, 0.0, F, 1.0], "a"), named([1.0, 1.0, 1.0, 1.0], "b")]
    rates = PassRates()
    panel = panel_of(*rewards, breaker=BreakerConfig(max_error_rate=1.0), listeners=[rates.take])
    batch(panel, completion_ids=[[1, 2]] * 4)
    assert rates.rates() == {"all": pytest.approx(2 / 3)}
    assert (rates.rollouts, rates.tokens) == (4, 8)


# Logging


class Log:
    """Takes what TRL would."""

    def __init__(self) -> None:
        self.extra: list[tuple[str, list[Any]]] = []
        self.metric: list[tuple[str, float]] = []

    def columns(self) -> dict[str, Callable[..., None]]:
        return {
            "log_extra": lambda column, values: self.extra.append((column, values)),
            "log_metric": lambda name, value: self.metric.append((name, value)),
        }


def test_what_rewards_log_reaches_trl_and_so_do_their_errors() -> None:
    def logging(log_extra: Any, log_metric: Any, completions: Any, **columns: Any) -> Scores:
        log_extra("length", [len(c) for c in completions])
        log_metric("longest", 2.0)
        return [1.0, F]

    log = Log()
    panel = panel_of(named(logging, "a"), breaker=BreakerConfig(max_error_rate=1.0))
    batch(panel, 2, **log.columns())
    assert log.extra == [("length", [2, 2])]
    assert log.metric == [("longest", 2.0), ("reward_errors/a", 1.0)]


def test_a_reward_that_fails_leaves_its_logged_column_empty_and_not_the_last_batchs() -> None:
    def failing_later(log_extra: Any, completions: Any, **columns: Any) -> Scores:
        if asked:
            raise ValueError("down")
        asked.append(1)
        log_extra("length", [1, 1])
        return [1.0, 0.0]

    asked: list[int] = []
    log = Log()
    reward = named(failing_later, "a", on_error="skip")
    panel = panel_of(reward, breaker=BreakerConfig(max_error_rate=1.0))
    batch(panel, 2, **log.columns())
    batch(panel, 2, **log.columns())
    assert log.extra == [("length", [1, 1]), ("length", [None, None])]


# The breaker


def test_a_reward_that_is_down_ends_the_phase_with_its_first_batch() -> None:
    heard: list[Batch] = []
    panel = panel_of(named([1.0] * 4, "a"), named([F] * 4, "judge"), listeners=[heard.append])
    with pytest.raises(OutageError) as caught:
        batch(panel)
    assert str(caught.value) == (
        "reward 'judge' failed on 4 of 4 answers (100%, limit 20%), for example: down"
    )
    assert len(heard) == 1


def test_a_few_errors_among_many_answers_end_nothing_and_a_phase_counts_anew() -> None:
    scores: Scores = [1.0] * 10
    panel = panel_of(named(lambda **columns: list(scores), "a"), group=2)
    batch(panel, 10)
    scores[:4] = [F] * 4
    assert batch(panel, 10)["a"] == [None] * 4 + [1.0] * 6  # 4 of 20
    with pytest.raises(OutageError, match=r"failed on 8 of 30 answers \(27%, limit 20%\)"):
        batch(panel, 10)
    panel.begin(group=2)
    assert panel.errors["a"].errors == 0


def test_a_reward_that_stops_on_errors_stops_the_run_whatever_the_breaker_says() -> None:
    def raising(**columns: Any) -> Scores:
        raise ValueError("down")

    panel = panel_of(named(raising, "a"), breaker=BreakerConfig(max_error_rate=1.0))
    with pytest.raises(PluginError, match="reward 'a' raised ValueError: down"):
        batch(panel)


# The gate


def gate_of(
    reward: NamedReward, quality: NamedReward | None = None, **settings: Any
) -> dict[str, Any]:
    return {"gate": Gate(GateConfig(**settings), reward, quality)}


def test_the_gate_changes_what_trl_learns_from_and_not_what_is_counted() -> None:
    reward = named([1.0, 1.0, 0.5, 0.0], "a")
    quality = named([0.9, 0.1, 0.9, 0.1], "good")
    rates = PassRates()
    heard: list[Batch] = []
    settings = gate_of(reward, quality, threshold=0.5)
    panel = panel_of(reward, listeners=[rates.take, heard.append], **settings)
    assert batch(panel) == {"a": [2.0, 0.5, 0.5, 0.0]}
    assert rates.rates() == {"all": 0.5}
    assert [told.scores for told in heard] == [
        {"a": [1.0, 1.0, 0.5, 0.0], "good": [0.9, 0.1, 0.9, 0.1]}
    ]


def test_a_reward_of_the_run_can_be_the_quality_and_is_asked_once() -> None:
    calls: list[int] = []

    def good(**columns: Any) -> Scores:
        calls.append(1)
        return [0.9, 0.1]

    reward, quality = named([1.0, 1.0], "a"), named(good, "good", weight=0.0)
    panel = panel_of(reward, quality, **gate_of(reward, quality, threshold=0.5))
    assert batch(panel, 2) == {"a": [2.0, 0.5], "good": [0.9, 0.1]}
    assert len(calls) == 1


def test_an_answer_whose_quality_could_not_be_had_is_left_out() -> None:
    reward, quality = named([1.0, 1.0, 0.0], "a"), named([F, 0.9, 0.9], "good")
    settings = gate_of(reward, quality, threshold=0.5)
    panel = panel_of(reward, group=3, breaker=BreakerConfig(max_error_rate=1.0), **settings)
    assert batch(panel, 3) == {"a": [None, 2.0, 0.0]}


def test_an_automatic_threshold_is_taken_from_the_first_batch_of_a_phase_and_kept() -> None:
    qualities: Scores = [-1.0, -2.0, -3.0, -9.0]
    reward = named([1.0] * 4, "a")
    panel = panel_of(reward, **gate_of(reward, quantile=0.25))
    panel.begin(group=2, likelihood=lambda prompts, completions, columns: list(qualities))
    assert batch(panel) == {"a": [2.0, 2.0, 2.0, 0.5]}
    kept = panel.threshold
    qualities[:] = [-8.0, -8.0, -2.0, -2.0]
    assert batch(panel) == {"a": [0.5, 0.5, 2.0, 2.0]}
    assert panel.threshold == kept
    panel.begin(group=2)
    assert panel.threshold is None
