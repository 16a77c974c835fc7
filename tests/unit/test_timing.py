"""What a measuring phase sees of the answers, and when it ends."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from risen_plugin.commands.advise.timing import Seen, StopAt
from risen_plugin.config.choices import Grading
from risen_plugin.contracts import Failed
from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.calling import wrap
from risen_plugin.rewards.scores import OutageError


def scored(name: str, **settings: Any) -> Any:
    return wrap(lambda completions, **columns: [], name, f"reward '{name}'", Grading(**settings))


REWARDS = [scored("right"), scored("form", graded=False)]


def seen(ends: float) -> Seen:
    return Seen(ends)


def take(watch: Seen, right: list[Any], form: list[Any]) -> None:
    ids = {"completion_ids": [[1, 2, 3] for _ in right]}
    scores = {"right": right, "form": form}
    prompts, answers = ["p"] * len(right), ["a"] * len(right)
    watch.take(Batch(1, prompts, answers, ids, scores, REWARDS, group=2))


def test_groups_are_counted_by_the_graded_rewards_and_told_apart_by_all():
    watch = seen(math.inf)
    take(watch, [1.0, 0.0, 0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 0.1, 0.0, 0.0])
    assert watch.pass_at_1 == pytest.approx(3 / 6)
    assert watch.pass_at_k == pytest.approx(2 / 3), "two groups have an answer that passes"
    assert watch.zero_variance == pytest.approx(1 / 3), "the middle group differs in form alone"
    assert (watch.tokens, watch.k) == (18, 2)


def test_an_answer_that_nobody_judged_counts_for_nothing():
    watch = seen(math.inf)
    take(watch, [Failed("down"), Failed("down"), None, 1.0], [0.0, 0.0, 0.0, 0.0])
    assert watch.pass_at_1 == 1.0
    assert len(watch.groups) == 1


def test_a_phase_ends_when_the_next_batch_would_come_too_late_but_not_before_two():
    watch = seen(time.perf_counter() - 1.0)
    take(watch, [1.0, 1.0], [0.0, 0.0])
    with pytest.raises(OutageError):
        take(watch, [1.0, 1.0], [0.0, 0.0])
    long = seen(math.inf)
    for _ in range(5):
        take(long, [1.0, 1.0], [0.0, 0.0])
    assert len(long.times) == 5


def test_the_first_gap_warms_up_and_is_left_out():
    watch = seen(math.inf)
    watch.times = [0.0, 9.0, 10.0, 12.0]
    assert watch.step_s(99.0) == pytest.approx(1.5)
    watch.times = [0.0, 9.0]
    assert watch.step_s(99.0) == pytest.approx(9.0)
    watch.times = [0.0]
    assert watch.step_s(99.0) == pytest.approx(99.0)


def test_training_stops_when_the_next_step_would_come_too_late():
    control = SimpleNamespace(should_training_stop=False)
    clock = StopAt(time.perf_counter() - 1.0)
    clock.on_step_end(None, None, control)
    assert not control.should_training_stop, "one step says nothing of how long they take"
    clock.on_step_end(None, None, control)
    assert control.should_training_stop
    assert clock.step_s > 0.0
