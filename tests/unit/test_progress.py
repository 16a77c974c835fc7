"""What can be read of a progress: series, seconds, gains."""

from __future__ import annotations

import math
from typing import Any

import pytest

from risen_plugin.contracts import PhaseRecord, Progress
from risen_plugin.progress import (
    PROBE_LOSS,
    Gain,
    evaluated,
    fine_tune_seconds,
    gain_of,
    held_by_model,
    last_risen_step,
    seconds_of,
    train_loss_blocks,
)


def risen(accepted: bool | None = True, at_step: int = 5, **metrics: Any) -> PhaseRecord:
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    return PhaseRecord("risen", 3, at_step, "", accepted, named)


MEASURED = {
    "guard__adherence_strict_before": 0.5,
    "guard__adherence_strict_after": 0.75,
    "guard__probe_loss_before": 1.0,
    "guard__probe_loss_after": 1.25,
    "seconds": 4.0,
}


@pytest.mark.parametrize(
    ("phase", "gain"),
    [
        (risen(**MEASURED), Gain(0.25, -0.25, 4.0)),
        (risen(accepted=False, **MEASURED), Gain(0.0, 0.0, 4.0)),
        (risen(accepted=None, **MEASURED), Gain(0.0, 0.0, 4.0)),
        (risen(**{**MEASURED, "guard__probe_loss_after": math.nan}), Gain(0.25, 0.0, 4.0)),
        (risen(), Gain()),
    ],
)
def test_a_phase_gains_what_it_changed_if_it_was_kept(phase: PhaseRecord, gain: Gain) -> None:
    assert gain_of(phase) == gain


@pytest.mark.parametrize(
    ("metrics", "seconds"),
    [
        ({"seconds": 4.0, "guard_s": 99.0}, 4.0),
        ({"guard_s": 1.0, "enter_s": 2.0, "reinforce_s": 3.0, "leave_s": 0.5}, 6.5),
        ({"guard_s": 1.0, "reinforce_s": -3.0}, 1.0),
        ({"seconds": math.nan, "guard_s": 1.0}, 1.0),
        ({"seconds": True}, 0.0),
        ({"seconds": "4"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_seconds_of_a_phase_are_its_whole_or_the_sum_of_its_parts(
    metrics: dict[str, Any], seconds: float
) -> None:
    assert seconds_of(risen(**metrics)) == seconds


def test_what_is_left_of_the_time_was_fine_tuning() -> None:
    phases = [risen(seconds=4.0), PhaseRecord("burst", 3, 6, "", None, {"seconds": 1.0})]
    assert fine_tune_seconds(Progress(9, 9, phases=phases, elapsed_s=12.0)) == 7.0
    assert fine_tune_seconds(Progress(9, 9, phases=phases, elapsed_s=3.0)) == 0.0


def test_the_model_keeps_what_a_kept_phase_left_and_what_a_dropped_one_found() -> None:
    assert held_by_model(risen(**MEASURED), PROBE_LOSS) == 1.25
    assert held_by_model(risen(accepted=False, **MEASURED), PROBE_LOSS) == 1.0
    assert held_by_model(risen(), PROBE_LOSS) is None


def test_a_series_leaves_out_what_is_not_finite_or_not_measured() -> None:
    seen = [(1, {"eval_loss": 2.0}), (2, {"eval_loss": math.nan}), (3, {"eval_f1": 0.5})]
    progress = Progress(9, 9, eval_metrics=seen)
    assert evaluated(progress, None) == [(1, 2.0)]
    assert evaluated(progress, "eval_f1") == [(3, 0.5)]
    assert evaluated(progress, "eval_bleu") == []


def test_training_losses_are_averaged_in_whole_blocks() -> None:
    losses = [(1, 4.0), (2, 2.0), (3, math.inf), (4, 1.0), (5, 3.0), (6, 9.0)]
    assert train_loss_blocks(Progress(9, 9, train_losses=losses), 2) == [(2, 3.0), (5, 2.0)]


def test_the_latest_risen_step_passes_over_bursts() -> None:
    phases = [risen(at_step=5), PhaseRecord("burst", 3, 8, "")]
    assert last_risen_step(Progress(9, 9, phases=phases)) == 5
    assert last_risen_step(Progress(9, 9)) == 0
