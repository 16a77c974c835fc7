"""How long a phase will take, by what it does and how long each of it was measured to take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from risen_plugin.config import (
    AnchorConfig,
    ControlConfig,
    GuardConfig,
    MendingConfig,
    effective_grpo,
)
from risen_plugin.guard.looks import RowPlan
from risen_plugin.phases.duration import (
    Pace,
    expected,
    likely_steps,
    longest_of,
    work_of,
)

STEADY = ControlConfig(max_zero_variance=None)
PACE = Pace(batch_s=5.0, update_s=10.0, greedy_s=0.5, own_s=1.0, loss_s=0.25, groups=16, differ=16)


def work(steps: int = 40, guard: GuardConfig | None = None, **grpo: Any) -> Any:
    plain = GuardConfig(report_rows=0, kl_samples=0)
    fields = effective_grpo({"per_device_train_batch_size": 8, **grpo})
    return work_of(steps, fields, guard or plain, RowPlan((64,)), beside=0)


@pytest.mark.parametrize(
    ("grpo", "answers", "batches", "passes"),
    [
        ({}, 8, 40, 40),
        ({"gradient_accumulation_steps": 4}, 32, 40, 160),
        ({"steps_per_generation": 4}, 8, 10, 40),
        ({"generation_batch_size": 32, "gradient_accumulation_steps": 2}, 16, 20, 80),
        ({"steps_per_generation": 2, "num_iterations": 2}, 4, 10, 40),
        ({"steps_per_generation": 1, "gradient_accumulation_steps": 4}, 32, 160, 160),
    ],
)
def test_answers_are_sampled_in_batches_and_learned_from_in_passes(
    grpo: dict[str, Any], answers: int, batches: float, passes: float
) -> None:
    made = work(**grpo)
    assert (made.answers, made.batches, made.passes) == (answers, batches, passes)


def test_the_seconds_are_those_of_sampling_updating_and_measuring() -> None:
    known = replace(PACE, groups=10_000, differ=10_000)
    told = expected(known, work(gradient_accumulation_steps=4), STEADY)
    assert told.training_s == pytest.approx(40 * 5.0 + 160 * 10.0, rel=0.01)
    assert told.measuring_s == 2 * 64 * 0.5  # once before and once after


def test_anchors_are_answered_and_read_once_as_far_as_there_are_any() -> None:
    def more(steps: int, prompts: Any = "plain", *, marks: bool = False) -> tuple[float, int]:
        fields = effective_grpo({"max_completion_length": 128})
        guard = GuardConfig(report_rows=0, kl_samples=0)
        without, made = (
            work_of(steps, fields, guard, RowPlan((64,)), beside=0, anchor=anchor)
            for anchor in (None, AnchorConfig(prompts=prompts, rows=8, tokens=64, marks=marks))
        )
        return made.greedy - without.greedy, made.losses - without.losses

    assert more(3) == (12.0, 24)  # eight of each kind, answers of half the length
    assert more(400) == (306.0, 256 + 256 + 100)
    assert more(400, ["a", "b", "c"]) == (1.5, 3)
    assert more(3, "mine.jsonl") == (12.0, 24)
    assert more(400, "mine.jsonl") == (128.0, 256)
    assert more(3, marks=True) == (9.0, 24)  # six of each kind, and six of these once more
    assert more(400, marks=True) == (306.0, 256 + 256 + 100 + 256)
    assert more(400, ["a", "b", "c"], marks=True) == (1.5, 6)


def test_mended_answers_are_written_and_learned_from_before_the_first_step() -> None:
    fields = effective_grpo({"max_completion_length": 80, "per_device_train_batch_size": 8})
    guard = GuardConfig(report_rows=0, kl_samples=0)
    without, made = (
        work_of(4, fields, guard, RowPlan((64,)), beside=0, mending=mending)
        for mending in (None, MendingConfig(rows=400, tokens=160))
    )
    # Each as long as two answers, and one in four asked for again.
    assert made.greedy - without.greedy == 2 * (400 + 100)
    assert made.before == 100.0
    more = expected(PACE, made, STEADY).training_s - expected(PACE, without, STEADY).training_s
    assert more == pytest.approx(100.0 * PACE.update_s)
    many = work_of(
        4, fields, guard, RowPlan((64,)), beside=0, mending=MendingConfig(rows=5000, tokens=80)
    )
    assert many.greedy - without.greedy == 525 + 1250  # questions that there are, and again


def test_what_is_measured_beside_adherence_counts_too() -> None:
    guard = GuardConfig(rows=64, report_rows=0, kl_samples=32)
    more = work_of(
        4,
        effective_grpo({"max_completion_length": 96}),
        guard,
        RowPlan((32, 64)),
        beside=50,
        own=10,
        probe=20,
    )
    assert more.greedy == 32 + 64 + 2 * 50 + 32  # half of the rows that are open at the end
    assert (more.own, more.losses) == (10, 2 * (20 + 32))


def test_facts_are_asked_twice_and_are_short() -> None:
    guard = GuardConfig(report_rows=0, kl_samples=0, facts="auto")
    asked = work(guard=guard, max_completion_length=96).greedy - work().greedy
    assert 76 / 2 < asked < 76


def test_looks_in_a_phase_count_too() -> None:
    guard = GuardConfig(report_rows=0, kl_samples=0, every=10)
    assert work(guard=guard).greedy == work().greedy + 3 * 64


@pytest.mark.parametrize(
    ("groups", "differ", "share"), [(0, 0, 0.7), (4, 4, 0.85), (96, 0, 0.028), (96, 96, 0.988)]
)
def test_the_share_of_groups_to_learn_from_is_believed_as_far_as_it_was_seen(
    groups: int, differ: int, share: float
) -> None:
    assert replace(PACE, groups=groups, differ=differ).learned == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize(("beta", "loss_type"), [(0.1, "dapo"), (0.0, "grpo")])
def test_where_no_answer_is_left_out_of_an_update_all_of_them_count(
    beta: float, loss_type: str
) -> None:
    tied = replace(PACE, groups=100, differ=0)
    left_out = expected(tied, work(), STEADY).training_s
    whole = expected(tied, work(beta=beta, loss_type=loss_type), STEADY).training_s
    assert whole == 40 * 15.0
    assert left_out < whole / 2


def test_a_phase_without_variance_is_likely_to_be_ended_early() -> None:
    control = ControlConfig(max_zero_variance=0.7, window=4)
    assert likely_steps(40, 4, 0.7, control) == 40
    assert likely_steps(40, 4, 0.0, control) == 8  # two windows
    assert 8 < likely_steps(40, 4, 0.3, control) < 40
    assert likely_steps(40, 4, 0.0, STEADY) == 40


def test_a_rare_answer_without_end_counts_by_how_often_a_batch_has_one() -> None:
    assert longest_of([20] * 64, 64) == 20
    assert 20 < longest_of([20] * 63 + [120], 8) < longest_of([20] * 63 + [120], 64) < 120


@pytest.mark.parametrize(
    ("differ", "line"),
    [
        (
            10_000,
            "the phase takes about 31 minutes: 40 steps of 32 answers (30 min), measuring before "
            "and after (64 s)",
        ),
        (
            0,
            "the phase takes about 2 minutes: up to 40 steps of 32 answers (40 s), measuring "
            "before and after (64 s)",
        ),
    ],
)
def test_one_line_says_it(differ: int, line: str) -> None:
    pace = replace(PACE, groups=10_000, differ=differ)
    told = expected(pace, work(gradient_accumulation_steps=4), ControlConfig())
    assert str(told) == line
