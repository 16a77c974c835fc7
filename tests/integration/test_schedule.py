"""A scheduler in a Trainer: what is decided, told and recorded, and what a replay makes of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risen_plugin import RisenCallback
from risen_plugin.builtin.schedulers.plateau import Plateau
from risen_plugin.commands.simulate.replay import replay
from risen_plugin.commands.simulate.trace import read_trace

SCHEDULER = Plateau(steps=2, evaluations=1, least=1.0, in_a_row=1)  # no improvement is enough
EVALUATING = {"evaluate": True, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 5}


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "risen" / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def decisions(folder: Path) -> list[tuple[int, str]]:
    return [(e["step"], e["phase"]) for e in events(folder) if e["event"] == "decision"]


def test_plateau_leaves_fine_tuning_in_a_trainer_and_says_why_once_per_reason(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="risen_plugin")
    trainer = make_trainer(make_model(), **EVALUATING)
    callback = RisenCallback(config(scheduler=SCHEDULER)).attach(trainer)
    trainer.train()
    told = decisions(tmp_path / "run")
    assert told[:4] == [(1, "fine_tune"), (2, "fine_tune"), (3, "risen"), (4, "fine_tune")]
    said = [r.message for r in caplog.records if "goes on" in r.message]
    assert said[:2] == [
        "step 1: fine-tune goes on (plateau: no evaluation yet)",
        "step 2: fine-tune goes on (plateau: 1 of 2 evaluations since RISEN or the start)",
    ]
    recorded = events(tmp_path / "run")
    for name, key in (("log", "loss"), ("evaluation", "metrics"), ("phase", "metrics")):
        found = [event for event in recorded if event["event"] == name]
        assert found, name
        assert all(key in event for event in found)
    times = [event["time"] for event in recorded]
    assert times == sorted(times)
    [first, *_] = [phase for phase in callback.phases if phase.kind == "risen"]
    assert first.reason.startswith("plateau: eval_loss ")


def test_a_replay_of_the_record_makes_the_runs_own_decisions(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(make_model(), **EVALUATING)
    RisenCallback(config(scheduler=SCHEDULER)).attach(trainer)
    trainer.train()
    done = replay(read_trace(tmp_path / "run"), SCHEDULER, "it")
    assert [(made.step, made.decision.phase) for made in done.made] == decisions(tmp_path / "run")
    reasons = [e["reason"] for e in events(tmp_path / "run") if e["event"] == "decision"]
    assert [made.decision.reason for made in done.made] == reasons


def test_a_resumed_run_tells_no_reason_twice(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    saving = {**EVALUATING, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(make_model(), **saving)
    RisenCallback(config(scheduler=SCHEDULER)).attach(trainer)
    trainer.train()
    whole = decisions(tmp_path / "run")
    again = make_trainer(make_model(seed=9), **saving)
    RisenCallback(config(scheduler=SCHEDULER)).attach(again)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert decisions(tmp_path / "run") == whole
