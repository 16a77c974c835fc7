"""How long a phase a demo on a real model has time for."""

from __future__ import annotations

import pytest

from risen_export.demo.fitting import export_seconds, steps_within
from risen_plugin.config import ControlConfig, GuardConfig, effective_grpo
from risen_plugin.errors import ConfigError
from risen_plugin.guard.looks import RowPlan
from risen_plugin.phases.duration import Expected, Pace, expected, work_of

PACE = Pace(batch_s=5.0, update_s=5.0, greedy_s=0.5, own_s=0.5, loss_s=0.0, groups=99, differ=99)


def expect(steps: int) -> Expected:
    """10 s for a step, and 50 s of measuring."""
    guard = GuardConfig(report_rows=0, kl_samples=0)
    work = work_of(steps, effective_grpo({"beta": 0.1}), guard, RowPlan((50,)), beside=0)
    return expected(PACE, work, ControlConfig(max_zero_variance=None))


@pytest.mark.parametrize(("left_s", "steps"), [(9999, 40), (450, 40), (449, 39), (130, 8)])
def test_the_longest_phase_that_fits_is_taken(left_s: float, steps: int) -> None:
    assert steps_within(left_s, 40, expect, spent_s=60.0) == steps


def test_where_not_even_the_least_fits_the_refusal_names_the_minutes_that_do() -> None:
    with pytest.raises(ConfigError) as refused:
        steps_within(129, 40, expect, spent_s=171.0)
    assert str(refused.value) == (
        "on this machine the least phase, 8 steps, takes about 2 min, and all else about 3 min; "
        "give --minutes 6, or a smaller model"
    )


def test_a_larger_model_leaves_less_time_for_the_phase() -> None:
    assert 40 < export_seconds(135e6) < 240
    assert export_seconds(1e9) > export_seconds(135e6)
