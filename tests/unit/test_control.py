"""Controllers steer by logged numbers alone, and go on from their state as if nothing had been."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.config import ControlConfig, GuardConfig, RisenConfig, TaskProbe
from risen_plugin.errors import ConfigError
from risen_plugin.guard.controllers import Controllers
from risen_plugin.guard.rules import AdaptiveKl, Orders, PhaseStart, RateByKl

LEAST: dict[str, Any] = {"rewards": ["length"], "generator": "jsonl", "scheduler": "after"}
BETA = {"beta": 0.04}


def run(config: ControlConfig, logs: list[dict[str, float]], grpo: dict[str, Any]) -> list[Any]:
    controllers = Controllers(config)
    controllers.begin(grpo, steps=len(logs))
    return [controllers.observe(step, numbers) for step, numbers in enumerate(logs, 1)]


# The KL coefficient


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (0.1, 1.0),
        (0.11, 1.01),
        (0.12, 1.02),
        (9.0, 1.02),  # clipped
        (0.09, 0.99),
        (0.0, 0.98),  # clipped
    ],
)
def test_the_kl_coefficient_follows_ziegler(kl: float, factor: float) -> None:
    controller = AdaptiveKl(target=0.1, horizon=10, most=1.0)
    assert controller.begin(PhaseStart(beta=0.04)) == Orders()
    assert controller.observe(1, {"kl": kl}).beta == pytest.approx(0.04 * factor)


def test_the_kl_coefficient_answers_to_the_steps_between_two_logs() -> None:
    controller = AdaptiveKl(target=0.1, horizon=10, most=1.0)
    controller.begin(PhaseStart(beta=0.04))
    assert controller.observe(5, {"kl": 9.0}).beta == pytest.approx(0.04 * 1.1)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_the_kl_coefficient_stays_above_zero_and_below_its_most(kls: list[float]) -> None:
    controller = AdaptiveKl(target=0.1, horizon=1, most=0.5)
    controller.begin(PhaseStart(beta=0.04))
    for step, kl in enumerate(kls, 1):
        beta = controller.observe(step, {"kl": kl}).beta
        assert beta is not None
        assert 0.0 < beta <= 0.5


def test_the_next_phase_goes_on_with_the_kl_coefficient_unless_it_is_given_another() -> None:
    controllers = Controllers(ControlConfig(kl_target=0.1, kl_horizon=1))
    assert controllers.begin(BETA, 5) == {}
    came_to = controllers.observe(1, {"kl": 9.0}).beta
    assert came_to == pytest.approx(0.048)
    assert controllers.begin(BETA, 5) == {"beta": came_to}
    assert controllers.begin({"beta": 0.1}, 5) == {}


def test_what_the_guard_raised_the_controller_goes_on_from() -> None:
    controllers = Controllers(ControlConfig(kl_target=0.1, kl_horizon=10, max_beta=0.5))
    controllers.begin(BETA, 5)
    assert controllers.raise_beta(0.04, 2.0) == 0.08
    assert controllers.observe(1, {"kl": 9.0}).beta == pytest.approx(0.08 * 1.02)
    assert controllers.raise_beta(0.4, 2.0) == 0.5


# What ends a phase


def test_a_spent_kl_budget_ends_a_phase_and_the_next_one_has_it_anew() -> None:
    config = ControlConfig(kl_budget=0.2, window=2)
    controllers = Controllers(config)
    controllers.begin(BETA, 9)
    stops = [
        controllers.observe(step, {"kl": kl}).stop for step, kl in enumerate((0.1, 0.25, 0.3), 1)
    ]
    assert stops == [None, None, "the KL budget of 0.2 nats per token is spent: it is 0.2750"]
    controllers.begin(BETA, 9)
    assert controllers.observe(1, {"kl": 0.3}).stop is None


@pytest.mark.parametrize(
    ("shares", "ends_at"),
    [
        ((1.0, 1.0, 1.0, 1.0), 4),
        ((1.0, 1.0, 0.5, 0.8, 1.0, 1.0, 1.0, 1.0), 7),
        ((0.8, 0.6, 0.8, 0.6), None),  # exactly 70 % on average
        ((1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0), None),  # fresh instructions helped
        ((1.0,), None),
    ],
)
def test_a_phase_ends_where_also_fresh_instructions_have_no_variance(
    shares: tuple[float, ...], ends_at: int | None
) -> None:
    orders = run(ControlConfig(window=2), [{"frac_reward_zero_std": s} for s in shares], {})
    stopped = [step for step, order in enumerate(orders, 1) if order.stop]
    assert (stopped[0] if stopped else None) == ends_at


def test_without_a_limit_no_variance_ends_nothing() -> None:
    logs = [{"frac_reward_zero_std": 1.0}] * 30
    assert not any(order.stop for order in run(ControlConfig(max_zero_variance=None), logs, {}))


def test_below_its_floor_entropy_heats_the_sampling_and_then_ends_the_phase() -> None:
    config = ControlConfig(entropy_floor=0.2, max_temperature=1.2, window=1)
    orders = run(config, [{"entropy": e} for e in (0.3, 0.1, 0.3, 0.1, 0.1)], {})
    assert [order.temperature for order in orders] == pytest.approx([None, 1.1, None, 1.2, None])
    assert [bool(order.stop) for order in orders] == [False, False, False, False, True]
    assert orders[-1].stop == "entropy 0.1000 is below its floor of 0.2 at temperature 1.2"


def test_an_entropy_floor_may_end_the_phase_at_once() -> None:
    config = ControlConfig(entropy_floor=0.2, entropy_action="stop", window=2)
    orders = run(config, [{"entropy": e} for e in (0.1, 0.25, 0.1, 0.3)], {})
    assert [order.stop for order in orders] == [
        None,
        "entropy 0.1750 is below its floor of 0.2",
        "entropy 0.1750 is below its floor of 0.2",
        None,
    ]


def test_entropy_is_judged_again_once_answers_were_sampled_at_the_new_temperature() -> None:
    config = ControlConfig(entropy_floor=0.2, max_temperature=1.5, window=1)
    logs = [{"entropy": 0.1}] * 9
    for four in (
        {"num_iterations": 4},
        {"steps_per_generation": 4},
        {"generation_batch_size": 32, "per_device_train_batch_size": 8},
    ):
        orders = run(config, logs, four)
        heated = [order.temperature is not None for order in orders]
        assert heated == [step in (1, 5, 9) for step in range(1, 10)]
    sparse = Controllers(config)
    sparse.begin({"num_iterations": 4, "logging_steps": 3}, 12)
    at = [sparse.observe(step, logs[0]).temperature for step in (3, 6, 9)]
    assert at[0] is not None
    assert at[1] is None, "two of its three steps were on answers sampled before"


@pytest.mark.parametrize(
    ("steps", "every", "ends_at"), [(30, 10, 10), (20, 10, 10), (80, 10, 40), (40, 0.25, 20)]
)
def test_a_phase_with_few_logs_has_its_kl_budget_too(
    steps: int, every: float, ends_at: int
) -> None:
    controllers = Controllers(ControlConfig(kl_budget=0.2))
    controllers.begin({**BETA, "logging_steps": every}, steps)
    stops = [
        step for step in range(10, steps + 1, 10) if controllers.observe(step, {"kl": 5.0}).stop
    ]
    assert stops[0] == ends_at


def test_a_dropped_phase_leaves_the_kl_coefficient_no_lower_than_it_found_it() -> None:
    controllers = Controllers(ControlConfig(kl_target=0.1, kl_horizon=1))
    controllers.begin(BETA, 5)
    controllers.observe(1, {"kl": 0.0})
    controllers.drop()
    assert controllers.begin(BETA, 5) == {}
    raised = controllers.raise_beta(0.04, 2.0)
    controllers.drop()
    assert controllers.begin(BETA, 5) == {"beta": raised}


# Rates and temperatures


def test_the_learning_rate_falls_where_the_kl_runs_away_and_comes_back() -> None:
    rule = RateByKl(target=0.1)
    rule.begin(PhaseStart())
    kls = (0.1, 0.21, 0.3, 0.1, 0.04, 0.04, 0.04)
    assert [rule.observe(step, {"kl": kl}).rate for step, kl in enumerate(kls, 1)] == pytest.approx(
        [1.0, 1 / 1.5, 1 / 2.25, 1 / 2.25, 1 / 1.5, 1.0, 1.0]
    )
    for step in range(8, 107):
        rule.observe(step, {"kl": 9.0})
    assert rule.rate == pytest.approx(0.05)


def test_the_temperature_moves_to_its_end_in_equal_steps() -> None:
    orders = run(ControlConfig(temperature_end=0.6), [{}] * 5, {"temperature": 1.0})
    assert [order.temperature for order in orders] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.6])


# State

EVERYTHING = ControlConfig(
    kl_target=0.05,
    kl_budget=0.5,
    entropy_floor=0.2,
    learning_rate="kl",
    window=3,
)
LOGS = st.lists(
    st.fixed_dictionaries(
        {
            "kl": st.floats(0, 1),
            "entropy": st.floats(0, 1),
            "frac_reward_zero_std": st.floats(0, 1),
        }
    ),
    min_size=2,
    max_size=30,
)


@given(logs=LOGS, cut=st.integers(1, 29))
def test_controllers_restored_from_their_state_go_on_as_they_would_have(
    logs: list[dict[str, float]], cut: int
) -> None:
    whole = run(EVERYTHING, logs, BETA)
    controllers = Controllers(EVERYTHING)
    controllers.begin(BETA, len(logs))
    for step, numbers in enumerate(logs[:cut], 1):
        controllers.observe(step, numbers)
    resumed = Controllers(EVERYTHING)
    resumed.load_state_dict(json.loads(json.dumps(controllers.state_dict())))
    for step, numbers in enumerate(logs[cut:], cut + 1):
        assert resumed.observe(step, numbers) == whole[step - 1]


def test_what_holds_is_known_after_a_resume() -> None:
    controllers = Controllers(ControlConfig(kl_target=0.1, kl_horizon=1))
    controllers.begin(BETA, 5)
    orders = controllers.observe(1, {"kl": 9.0})
    controllers.observe(2, {})
    resumed = Controllers(controllers.config)
    resumed.load_state_dict(json.loads(json.dumps(controllers.state_dict())))
    assert resumed.standing.beta == orders.beta
    controllers.begin({"beta": 0.3}, 5)
    assert controllers.standing.beta is None


def test_a_state_without_controllers_is_that_of_a_run_begun_before_them() -> None:
    controllers = Controllers(EVERYTHING)
    controllers.load_state_dict({})
    controllers.begin(BETA, 5)
    assert controllers.observe(1, {"kl": 0.05, "entropy": 1.0}).stop is None


def test_numbers_that_are_none_steer_nothing() -> None:
    controllers = Controllers(EVERYTHING)
    controllers.begin(BETA, 5)
    broken = {"kl": math.nan, "entropy": math.nan, "frac_reward_zero_std": math.nan}
    for step in range(1, 9):
        orders = controllers.observe(step, broken)
        assert (orders.beta, orders.rate, orders.temperature, orders.stop) == (None,) * 4


# What is refused


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ControlConfig(kl_target=0.0), "control.kl_target is 0.0; it is a number above 0"),
        (lambda: ControlConfig(kl_horizon=0), "control.kl_horizon is 0; least is 1"),
        (lambda: ControlConfig(window=0), "control.window is 0; least is 1"),
        (lambda: ControlConfig(max_zero_variance=2), "control.max_zero_variance is 2; it is a nu"),
        (
            lambda: ControlConfig(entropy_action="heat"),  # type: ignore[arg-type]
            "control.entropy_action is 'heat'; it is 'temperature' or 'stop'",
        ),
        (
            lambda: ControlConfig(kl_target=0.2, kl_budget=0.1),
            "control.kl_target is 0.2, but control.kl_budget is 0.1",
        ),
        (
            lambda: ControlConfig(learning_rate="kl"),
            "control.learning_rate is 'kl', but control.kl_target is not set",
        ),
        (
            lambda: ControlConfig(temperature_end=0.8, entropy_floor=0.1),
            "control.temperature_end is 0.8, but control.entropy_floor moves the temperature too",
        ),
        (
            lambda: ControlConfig(temperature_end=2.0),
            "control.temperature_end is 2, above control.max_temperature 1.5",
        ),
        (
            lambda: RisenConfig(**LEAST, control=ControlConfig(kl_target=0.1)),
            "control.kl_target is 0.1, but grpo.beta is 0.0: TRL measures the KL only with a beta",
        ),
        (
            lambda: RisenConfig(**LEAST, control=ControlConfig(kl_budget=0.1), grpo={"beta": 0}),
            "control.kl_budget is 0.1, but grpo.beta is 0: TRL",
        ),
        (
            lambda: RisenConfig(**LEAST, control=ControlConfig(kl_target=0.1), grpo={"beta": 2.0}),
            "grpo.beta is 2, above control.max_beta 1; raise that",
        ),
        (
            lambda: RisenConfig(
                **LEAST, control=ControlConfig(entropy_floor=0.1), grpo={"temperature": 2.0}
            ),
            "grpo.temperature is 2, above control.max_temperature 1.5; raise that",
        ),
        (
            lambda: GuardConfig(rows=6),
            "guard.rows is 6, but guard.confidence 0.99 is only reached by 7 rows that all improve",
        ),
        (
            lambda: GuardConfig(max_forward_kl=0.1, kl_samples=0),
            "guard.max_forward_kl is 0.1, but guard.kl_samples is 0",
        ),
        (
            lambda: GuardConfig(max_domain_drop=0.1),
            "guard.max_domain_drop is 0.1, but guard.domain names nothing that could drop",
        ),
        (
            lambda: RisenConfig(**LEAST, reserve=0, guard=GuardConfig(max_gap=0.1)),
            "guard.max_gap is 0.1, but reserve sets no families apart",
        ),
        (lambda: GuardConfig(confidence=0.5), "guard.confidence is 0.5; it is a share above 0.5"),
        (lambda: GuardConfig(confidence=1.0), "guard.confidence is 1.0; it is a share above 0.5"),
        (lambda: GuardConfig(every=-1), "guard.every is -1; least is 0"),
        (lambda: GuardConfig(patience=0), "guard.patience is 0; least is 1"),
        (lambda: GuardConfig(beta_factor=0.5), "guard.beta_factor is 0.5; it is a number from 1"),
        (lambda: GuardConfig(burst_at=-1), "guard.burst_at is -1; it is a number from 0"),
        (lambda: GuardConfig(tasks={"a": 1}), "guard.tasks is a mapping of names to TaskProbe"),  # type: ignore[dict-item]
        (lambda: TaskProbe([], "length", max_drop=-1), "max_drop of a task is -1; it is a number"),
        (
            lambda: RisenConfig.from_dict(
                {**LEAST, "guard": {"tasks": {"sums": {"rows": "a.jsonl"}}}}
            ),
            "config: guard.tasks.sums lacks 'reward'",
        ),
        (
            lambda: RisenConfig.from_dict(
                {**LEAST, "guard": {"tasks": {"sums": {"row": "a.jsonl"}}}}
            ),
            "config: guard.tasks.sums has no key 'row'; did you mean 'rows'?",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_with_both_names(make: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_few_rows_are_no_contradiction_where_no_confidence_is_asked_for() -> None:
    for guard in (
        {"confidence": None},
        {"confidence": 0.9},
        {"min_gain": -1.0},
        {"min_gain": 2.0},  # drops every phase, however many rows there are
    ):
        assert GuardConfig(rows=4, **guard).rows == 4  # type: ignore[arg-type]


def test_yaml_says_tasks_and_controls_as_python_does() -> None:
    said = RisenConfig.from_dict(
        {
            **LEAST,
            "guard": {
                "confidence": None,
                "domain": "metric:accuracy",
                "tasks": {"sums": {"rows": "a.jsonl", "reward": "length", "max_drop": 0.1}},
            },
            "control": {"kl_target": 0.05},
            "grpo": {"beta": 0.04},
        }
    )
    assert said.guard == GuardConfig(
        confidence=None,
        domain="metric:accuracy",
        tasks={"sums": TaskProbe("a.jsonl", "length", max_drop=0.1)},
    )
    assert said.guard.domain_metric == "accuracy"
    assert said.control == ControlConfig(kl_target=0.05)


def test_the_record_counts_the_rows_of_a_task_and_names_its_reward() -> None:
    def right(**columns: Any) -> list[float]:
        return []

    guard = GuardConfig(
        domain=right,
        tasks={
            "a": TaskProbe([{"prompt": "1"}] * 3, right),
            "b": TaskProbe("b.jsonl", "length", max_drop=0.1),
        },
    )
    told = json.loads(json.dumps(guard.describe()))
    assert told["domain"] == "right"
    assert told["tasks"] == {
        "a": {"rows": 3, "reward": "right", "max_drop": None},
        "b": {"rows": "b.jsonl", "reward": "length", "max_drop": 0.1},
    }
    assert told["confidence"] == 0.99
