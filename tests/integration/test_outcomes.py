"""What TRL makes of scores, abstentions and errors, and what becomes of a phase that has them."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments
from trl.trainer.grpo_trainer import GRPOTrainer

from risen_plugin import BreakerConfig, Failed, RisenCallback, Weighted
from risen_plugin.config import LoraSettings
from risen_plugin.errors import PluginError
from risen_plugin.record.run_record import read_events
from risen_plugin.rewards.calling import wrap
from risen_plugin.rewards.panel import Panel
from risen_plugin.rewards.scores import Scores
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.grpo import Plan, build_trainer, train

from .conftest import KEEP, ROWS, ascii_share, at_step, is_at_end, never

pytestmark = pytest.mark.slow

F = Failed("down")
NEVER_ENDS = BreakerConfig(max_error_rate=1.0)


@pytest.fixture
def advantages(
    make_model: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., list[float]]:
    """One step of TRL's trainer on two groups of four answers with the given scores."""
    seen: list[list[float]] = []
    generate = GRPOTrainer._generate_and_score_completions

    def watched(self: GRPOTrainer, inputs: Any) -> Any:
        made = generate(self, inputs)
        seen.append(made["advantages"].tolist())
        return made

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", watched)

    def run(outcomes: Mapping[str, Scores], *, bare: bool = False, **grpo: Any) -> list[float]:
        def scoring(scores: Scores) -> Callable[..., Scores]:
            return lambda **columns: list(scores)

        rewards = [wrap(scoring(scores), name, name) for name, scores in outcomes.items()]
        panel = Panel(rewards, NEVER_ENDS)
        panel.begin(group=4)
        settings = {
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "max_completion_length": 4,
            **grpo,
        }
        plan = Plan(1, settings, LoraSettings(r=2), 0, str(tmp_path), "test", quiet=True)
        model = make_model()
        with clean_room(model, tokenizer):
            trainer = build_trainer(
                model,
                tokenizer,
                rewards if bare else panel.trl_rewards,
                lambda count: ROWS[:count],
                outer=TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]),
                plan=plan,
            )
            train(trainer, plan)
        return seen[-1]

    return run


EQUAL: dict[str, Scores] = {"a": [1.0] * 8, "b": [1.0, F] * 4}


def test_a_reward_that_fails_on_half_of_equal_answers_prefers_none_of_them(
    advantages: Callable[..., list[float]],
) -> None:
    assert advantages(EQUAL) == [0.0] * 8


def test_trl_alone_would_have_preferred_the_half_that_was_scored(
    advantages: Callable[..., list[float]],
) -> None:
    assert advantages(EQUAL, bare=True) == pytest.approx([0.866, -0.866] * 4, abs=1e-3)


def test_the_answers_that_are_left_are_compared_with_each_other(
    advantages: Callable[..., list[float]],
) -> None:
    found = advantages(
        {
            "a": [1.0, 0.0, 0.5, 1.0, 1.0, 0.0, 0.0, 0.0],  # in the first group b fails once
            "b": [0.0, 0.0, 0.0, F, None, 1.0, 1.0, 1.0],  # and is left out in the second
        }
    )
    # (score - mean) / (std + 1e-4) by hand: of (1, 0, 0.5), and of (1, 0, 0, 0)
    assert found == pytest.approx([1.0, -1.0, 0.0, 0.0, 1.5, -0.5, -0.5, -0.5], abs=1e-3)
    assert found[3] == 0.0


@pytest.mark.parametrize(
    "grpo",
    [
        {"scale_rewards": "group"},
        {"scale_rewards": "batch"},
        {"scale_rewards": "none"},
        {"multi_objective_aggregation": "normalize_then_sum"},
    ],
    ids=lambda grpo: "-".join(map(str, grpo.values())),
)
def test_what_cannot_be_compared_moves_nothing_however_trl_scales(
    grpo: dict[str, Any], advantages: Callable[..., list[float]]
) -> None:
    lone = advantages(
        {"a": [1.0, F, F, F, 1.0, 0.0, 1.0, 0.0], "b": [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, F]},
        **grpo,
    )
    assert lone[:4] == [0.0] * 4
    assert lone[7] == 0.0
    assert all(math.isfinite(advantage) for advantage in lone)
    assert lone[6] > max(lone[4], lone[5])
    assert sum(lone) == pytest.approx(0.0, abs=1e-3)
    assert advantages({"a": [F] * 8, "b": [1.0] * 8}, **grpo) == [0.0] * 8


# In a run


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def made(completions: list[Any]) -> list[bool]:
    """A share of the answers that does not depend on their order: one in four, or so."""
    return [sum(map(ord, completion[0]["content"])) % 4 == 0 for completion in completions]


def test_errors_are_left_out_counted_and_shown(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    def judge(completions: list[Any], **columns: Any) -> list[float]:
        return [Failed("no verdict") if odd else 1.0 for odd in made(completions)]

    rewards = [Weighted(ascii_share, passes_at=0.0), Weighted(judge, graded=False)]
    trainer = make_trainer(make_model())
    callback = RisenCallback(config(rewards=rewards, breaker=NEVER_ENDS)).attach(trainer)
    heard: list[Mapping[str, Scores]] = []
    with callback.run_state.panel.listening(lambda batch: heard.append(batch.scores)):
        trainer.train()

    failed = sum(isinstance(score, Failed) for out in heard for score in out["judge"])
    assert failed > 0
    [phase] = [record for record in callback.phases if record.kind == "risen"]
    assert phase.accepted is True
    assert phase.metrics["reward_errors/judge"] == failed
    assert phase.metrics["reward_errors/ascii_share"] == 0
    assert phase.metrics["error_examples"] == {"judge": "no verdict"}
    [logged] = [log for log in trainer.state.log_history if "risen/reward_errors/judge" in log]
    assert logged["risen/reward_errors/judge"] == failed
    record = json.loads((tmp_path / "run" / "risen" / "phase-001" / "phase.json").read_text())
    steps = [log["reward_errors/judge"] for log in record["logs"] if "reward_errors/judge" in log]
    assert sum(steps) == failed
    events = {
        event["event"]: event for event in read_events(tmp_path / "run" / "risen" / "events.jsonl")
    }
    assert events["phase"]["metrics"]["reward_errors/judge"] == failed
    told = {name: events["plugin_error"][name] for name in ("plugin", "reason", "count", "number")}
    assert told == {"plugin": "judge", "reason": "no verdict", "count": failed, "number": 1}


@pytest.mark.parametrize("peft", [False, True], ids=["plain", "peft"])
@pytest.mark.parametrize("graded", [False, True])
def test_a_judge_that_is_down_never_trains_the_model(
    peft: bool,
    graded: bool,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
) -> None:
    def judge(completions: list[Any], **columns: Any) -> list[float]:
        raise ConnectionError("503")

    down = Weighted(judge, graded=graded, on_error="skip")
    outcomes = []
    for scheduler in (never, at_step(1, 3)):
        model = make_model()
        if peft:
            torch.manual_seed(0)
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
        trainer = make_trainer(model, folder=f"run-{len(outcomes)}")
        rewards = [Weighted(ascii_share, passes_at=0.0), down]
        callback = RisenCallback(config(rewards=rewards, scheduler=scheduler)).attach(trainer)
        trainer.train()
        outcomes.append((weights(model), torch.get_rng_state().tolist()))
    assert same(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] == outcomes[1][1]
    assert trainer.state.global_step == 4

    phases = [record for record in callback.phases if record.kind == "risen"]
    assert [record.accepted for record in phases] == [False, False]
    for phase in phases:
        said = phase.metrics["verdict"]
        assert "reward 'judge'" in said
        assert "for example: raised ConnectionError: 503" in said
        begun = "not begun: 4 of 4 held-out" if graded else "ended at GRPO step 0: reward 'judge'"
        assert said.startswith(begun)
        assert phase.steps == 0


def test_a_judge_that_goes_down_in_a_phase_ends_it_and_the_run_goes_on(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    calls: list[int] = []

    def judge(completions: list[Any], **columns: Any) -> list[float]:
        calls.append(1)
        if len(calls) > 1:
            raise ConnectionError("503")
        return [1.0] * len(completions)

    trainer = make_trainer(make_model())
    judged = Weighted(judge, graded=False, on_error="skip")
    rewards = [Weighted(ascii_share, passes_at=0.0), judged]
    callback = RisenCallback(config(rewards=rewards)).attach(trainer)
    trainer.train()
    assert trainer.state.global_step == 4
    [phase] = [record for record in callback.phases if record.kind == "risen"]
    assert (phase.accepted, phase.steps) == (False, 1)
    assert phase.metrics["verdict"] == (
        f"ended at GRPO step 1: reward 'judge' ({__name__}) failed on 8 of 16 answers "
        "(50%, limit 20%), for example: raised ConnectionError: 503"
    )
    record = json.loads((tmp_path / "run" / "risen" / "phase-001" / "phase.json").read_text())
    assert record["accepted"] is False
    assert record["verdict"]["reason"] == phase.metrics["verdict"]
    assert len(record["logs"]) == 1
    assert not (tmp_path / "run" / "risen" / "phase-001" / "adapter").exists()


def test_a_phase_that_cannot_be_judged_afterwards_is_dropped(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    steps: list[int] = []

    def judge(completions: list[Any], trainer_state: Any, **columns: Any) -> list[float]:
        if is_at_end(trainer_state) and steps:  # measured after the phase
            raise ConnectionError("503")
        if not is_at_end(trainer_state):
            steps.append(trainer_state.global_step)
        return [1.0] * len(completions)

    trainer = make_trainer(make_model())
    rewards = [Weighted(judge, on_error="skip")]
    callback = RisenCallback(config(rewards=rewards)).attach(trainer)
    trainer.train()
    [phase] = [record for record in callback.phases if record.kind == "risen"]
    assert (phase.accepted, phase.steps) == (False, 2)
    assert phase.metrics["verdict"].startswith("4 of 4 held-out answers could not be judged")
    assert (phase.metrics["guard/errors_before"], phase.metrics["guard/errors_after"]) == (0, 4)


def test_held_out_answers_that_a_reward_failed_on_do_not_count_for_adherence(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    def judge(completions: list[Any], trainer_state: Any, **columns: Any) -> list[float]:
        if not is_at_end(trainer_state):
            return [1.0] * len(completions)
        return [F, *[1.0] * (len(completions) - 1)]

    trainer = make_trainer(make_model())
    breaker = BreakerConfig(max_error_rate=0.25)
    callback = RisenCallback(config(rewards=[judge], breaker=breaker)).attach(trainer)
    trainer.train()
    [phase] = [record for record in callback.phases if record.kind == "risen"]
    assert phase.accepted is True
    assert phase.metrics["guard/errors_before"] == 1
    assert phase.metrics["guard/adherence_strict_before"] == 1.0


@pytest.fixture
def closed() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_a_reward_that_takes_too_long_is_skipped_or_stops_the_run(
    on_error: Any,
    closed: threading.Event,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
) -> None:
    def slow(completions: list[Any], **columns: Any) -> list[float]:
        closed.wait(30)
        return [1.0] * len(completions)

    limited = Weighted(slow, graded=False, timeout_s=0.05, on_error=on_error)
    rewards = [Weighted(ascii_share, passes_at=0.0), limited]
    model = make_model()
    trainer = make_trainer(model)
    callback = RisenCallback(config(rewards=rewards)).attach(trainer)
    if on_error == "stop":
        with pytest.raises(PluginError, match=r"reward 'slow' .* took longer than timeout_s = 0"):
            trainer.train()
        return
    trainer.train()
    [phase] = [record for record in callback.phases if record.kind == "risen"]
    assert phase.accepted is False
    assert "took longer than timeout_s = 0.05" in phase.metrics["verdict"]


def test_async_rewards_of_a_run_meet_each_other(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    places: dict[str, asyncio.Event] = {}

    def meeting(mine: str, other: str) -> Any:
        async def meet(completions: list[Any], **columns: Any) -> list[float]:
            for name in (mine, other):
                places.setdefault(name, asyncio.Event())
            places[mine].set()
            await asyncio.wait_for(places[other].wait(), 30)
            places[other].clear()
            return [1.0] * len(completions)

        meet.__name__ = mine
        return Weighted(meet, graded=False)

    rewards = [Weighted(ascii_share, passes_at=0.0), meeting("a", "b"), meeting("b", "a")]
    trainer = make_trainer(make_model())
    callback = RisenCallback(config(rewards=rewards, guard=KEEP)).attach(trainer)
    trainer.train()
    [phase] = [record for record in callback.phases if record.kind == "risen"]
    assert phase.accepted is True
