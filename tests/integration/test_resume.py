"""Resuming a run: with what was done, without the callback before, and at its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from risen_plugin import RisenCallback
from risen_plugin.record.run_record import read_events

from .conftest import KEEP, Messages, at_step, phase_events

pytestmark = pytest.mark.slow


class Counting(Messages):
    """Keeps state: how many rows it has made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, *, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
        self.made += count
        return super().__call__(count=count, seed=seed, **context)

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.made = state["made"]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 5}
    whole = make_trainer(make_model(), folder="whole", **saving)
    first = RisenCallback(config(scheduler=at_step(2, 4), generator=Counting())).attach(whole)
    whole.train()

    model = make_model()
    cut = make_trainer(model, folder="cut", **{**saving, "max_steps": 5})

    class Stop(RisenCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_save(args, state, control, **kwargs)
            control.should_training_stop = state.global_step == 3

    Stop(config(scheduler=at_step(2, 4), generator=Counting())).attach(cut)
    cut.train()
    assert cut.state.global_step == 3
    described = Path(cut.args.output_dir, "risen", "run.json")
    first_start = json.loads(described.read_text())
    held_out = described.with_name("held_out.jsonl").read_text()
    assert [json.loads(line)["set"] for line in held_out.splitlines()] == ["guard"] * 4 + [
        "report"
    ] * 2

    resumed_model = make_model(seed=9)
    resumed = make_trainer(resumed_model, folder="cut", **saving)
    generator = Counting()
    second = RisenCallback(config(scheduler=at_step(2, 4), generator=generator)).attach(resumed)
    resumed.train(resume_from_checkpoint=True)

    assert [(p.kind, p.at_step, p.accepted) for p in second.phases] == [
        (p.kind, p.at_step, p.accepted) for p in first.phases
    ]
    assert second.run_state.pass_rates.rollouts == first.run_state.pass_rates.rollouts == 32
    assert generator.made == first.run_state.parts.generator.value.made
    assert same(weights(resumed_model), weights(whole.model))
    assert sorted(p.name for p in Path(resumed.args.output_dir, "risen").glob("phase-*")) == [
        "phase-001",
        "phase-002",
    ]
    latest_start = json.loads(described.read_text())
    assert latest_start["environment"]["begun"] == first_start["environment"]["begun"]
    assert latest_start["environment"].keys() - first_start["environment"].keys() == {"resumed"}
    assert latest_start["model"] == {"class": type(resumed_model).__name__}
    assert described.with_name("held_out.jsonl").read_text() == held_out


class StopAtTwo(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == 2


def test_the_last_checkpoint_of_a_run_that_is_stopped_early_holds_its_last_phase(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(make_model(), save_strategy="steps", save_steps=1)
    callback = RisenCallback(config(scheduler=at_step(2), guard=KEEP)).attach(trainer)
    trainer.add_callback(StopAtTwo())
    trainer.train()
    assert [(p.kind, p.accepted) for p in callback.phases[:2]] == [
        ("fine_tune", None),
        ("risen", True),
    ]
    held = load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors")
    trained = weights(trainer.model)
    assert all(torch.equal(held[name], trained[name]) for name in held)
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "risen" / "state.json").read_text())
    assert state["pending"] is None


def test_a_kept_phase_that_was_lost_is_run_again_and_recorded_once(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(make_model(), **saving)
    RisenCallback(config(scheduler=at_step(2))).attach(trainer)
    trainer.train()
    adapter = tmp_path / "run" / "risen" / "phase-001" / "adapter" / "adapter_model.safetensors"
    first = adapter.read_bytes()

    again = make_trainer(make_model(seed=9), **saving)
    RisenCallback(config(scheduler=at_step(2))).attach(again)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert adapter.read_bytes() == first
    events = read_events(tmp_path / "run" / "risen" / "events.jsonl")
    assert phase_events(events) == ["decision", "phase"]
    assert [event["step"] for event in events if event["event"] == "log"] == [1, 2, 3, 4]
    assert same(weights(again.model), weights(trainer.model))


def test_a_run_begun_without_the_callback_can_be_resumed_with_it(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(make_model(), max_steps=2, **saving).train()
    trainer = make_trainer(make_model(), **saving)
    callback = RisenCallback(config(scheduler=at_step(3), guard=KEEP)).attach(trainer)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4
    assert [(p.kind, p.steps) for p in callback.phases] == [("fine_tune", 3), ("risen", 2)]


def test_a_run_with_the_callback_can_be_resumed_without_it(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(make_model(), max_steps=2, **saving)
    RisenCallback(config(scheduler=at_step(1))).attach(trainer)
    trainer.train()
    plain = make_trainer(make_model(), **saving)
    plain.train(resume_from_checkpoint=True)
    assert plain.state.global_step == 4


@pytest.mark.parametrize("steps", [4, 12, 13], ids=["in-epoch", "epoch-end", "next-epoch"])
def test_resuming_at_max_steps_takes_no_step(
    steps: int, make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    saving = {"save_strategy": "steps", "save_steps": steps, "max_steps": steps}
    trainer = make_trainer(make_model(), **saving)
    RisenCallback(config(scheduler=at_step(2))).attach(trainer)
    trainer.train()
    done = weights(trainer.model)

    model = make_model(seed=9)
    again = make_trainer(model, **saving)
    callback = RisenCallback(config(scheduler=at_step(2, steps))).attach(again)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == steps
    assert sum(p.kind == "risen" for p in callback.phases) == 1
    assert same(weights(model), done)


def test_a_new_run_in_a_used_folder_moves_the_old_record_aside(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    for _ in range(2):
        trainer = make_trainer(make_model(), max_steps=2)
        RisenCallback(config()).attach(trainer)
        trainer.train()
    for folder in ("risen", "risen.1"):
        events = read_events(tmp_path / "run" / folder / "events.jsonl")
        assert phase_events(events) == ["decision", "phase"]
