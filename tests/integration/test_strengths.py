"""A phase whose whole change gains and does harm is kept at the largest strength that does none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from risen_plugin import RisenCallback
from risen_plugin.commands.report.decision import decision_of
from risen_plugin.config import TaskProbe
from risen_plugin.record.reading import read_run
from risen_plugin.training.adapters import Snapshot

from .conftest import KEEP, ROWS

pytestmark = pytest.mark.slow

TASK_ROWS = [{"prompt": row["prompt"]} for row in ROWS[:16]]
LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


class Scripted:
    """A task whose rows fail as a list says: one entry for each time that they are answered."""

    __name__ = "scripted"

    def __init__(self, *failed: int) -> None:
        self.failed = list(failed)

    def __call__(self, *, completions: list[Any], **columns: Any) -> list[float]:
        failed = self.failed.pop(0)
        return [float(place >= failed) for place in range(len(completions))]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


@pytest.fixture
def run(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> Callable[..., Any]:
    """One phase whose task fails as scripted at each measurement; outer steps change nothing."""

    def run(kind: str, *failed: int, folder: str = "run", every: int = 0, **guard: Any) -> Any:
        model = make_model() if kind == "plain" else get_peft_model(make_model(), LORA, "mine")
        entry = weights(model)
        trainer = make_trainer(model, folder=folder, learning_rate=0.0)
        task = TaskProbe(TASK_ROWS, Scripted(*failed), max_drop=0.1)
        settings = {"tasks": {"old": task}, "strengths": (0.5, 0.25), "every": every, **guard}
        callback = RisenCallback(
            config(guard=replace(KEEP, **settings), keep_dropped=True, keep_entry=True)
        ).attach(trainer)
        trainer.train()
        [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
        return phase, model, entry

    return run


def saved(folder: Path, called: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "risen" / "phase-001" / called / "adapter_model.safetensors")


@pytest.mark.parametrize("kind", ["plain", "peft"])
def test_a_phase_that_does_harm_at_full_strength_is_kept_at_half(
    kind: str, run: Callable[..., Any], tmp_path: Path
) -> None:
    _, at_full, entry = run(kind, 0, 0, folder="full")
    phase, at_half, _ = run(kind, 0, 10, 0)
    assert phase.accepted
    assert phase.metrics["strength"] == 0.5
    said = phase.metrics["verdict"]
    assert (
        ": kept at half strength, since at full strength the drop of task 'old' is 0.6250" in said
    )
    assert phase.metrics["task/old_after"] == 1.0
    assert [(one["strength"], one["against"] is None) for one in phase.metrics["strengths"]] == [
        (1.0, False),
        (0.5, True),
    ]
    whole, half = saved(tmp_path / "full", "adapter"), saved(tmp_path / "run", "adapter")
    for name, tensor in whole.items():
        share = 0.5 if "lora_B" in name else 1.0
        assert torch.equal(half[name], share * tensor), name
    assert any(bool(tensor.any()) for name, tensor in half.items() if "lora_B" in name)
    folder = tmp_path / "run" / "risen" / "phase-001"
    if kind == "plain":
        loaded = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(folder / "entry"), folder / "adapter"
        )
        assert same(weights(loaded.merge_and_unload()), weights(at_half))
    else:
        changed = [name for name in entry if not torch.equal(entry[name], weights(at_half)[name])]
        assert changed
        assert all("lora_" in name for name in changed)
    assert not same(weights(at_full), weights(at_half))

    events = map(json.loads, (tmp_path / "run/risen/events.jsonl").read_text().splitlines())
    told = [event for event in events if event["event"] == "guard"]
    assert [(event["when"], event.get("strength", 1.0), event["action"]) for event in told] == [
        ("before", 1.0, "go_on"),
        ("after", 1.0, "shrink"),
        ("after", 0.5, "go_on"),
    ]
    decision = decision_of(read_run(tmp_path / "run"))
    assert decision is not None
    assert "kept at half strength" in decision.gained


@pytest.mark.parametrize("kind", ["plain", "peft"])
def test_a_phase_that_does_harm_at_every_strength_leaves_the_weights_as_they_were(
    kind: str, run: Callable[..., Any], tmp_path: Path
) -> None:
    phase, model, entry = run(kind, 0, 10, 10, 10)
    assert not phase.accepted
    assert same(weights(model), entry)
    assert phase.metrics["task/old_after"] == pytest.approx(6 / 16)
    said = phase.metrics["verdict"]
    assert "; at half strength, the drop of task 'old' is 0.6250" in said
    assert "; at a quarter of its strength, the drop of task 'old' is 0.6250" in said
    run(kind, 0, 0, folder="full")
    assert same(saved(tmp_path / "run", "dropped"), saved(tmp_path / "full", "adapter"))


def test_a_phase_that_a_look_rolls_back_is_kept_at_half_where_that_does_no_harm(
    run: Callable[..., Any],
) -> None:
    phase, _, _ = run("plain", 0, 16, 16, 0, every=1)
    assert (phase.accepted, phase.steps) == (True, 1)
    assert ": kept at half strength, since at full strength" in phase.metrics["verdict"]


def test_rows_are_answered_at_a_strength_only_where_the_losses_speak_for_it(
    run: Callable[..., Any],
) -> None:
    """No strength leaves the loss below what it was by 9 nats, and the task is asked no more."""
    phase, model, entry = run("plain", 0, 0, max_probe_loss_rise=-9.0)
    assert not phase.accepted
    assert same(weights(model), entry)
    tried = phase.metrics["strengths"]
    assert [sorted(one["measured"]) for one in tried[1:]] == [["probe_loss"]] * 2
    assert phase.metrics["guard_s"] > 0


def test_a_phase_without_a_gain_is_not_tried_again(run: Callable[..., Any]) -> None:
    phase, _, _ = run("plain", 0, 10, min_gain=2.0)
    assert not phase.accepted
    assert "strengths" not in phase.metrics


@pytest.mark.parametrize("strength", [0.5, 0.3])
def test_an_adapter_that_was_trained_before_goes_a_part_of_its_way(
    strength: float, make_model: Callable[..., Any]
) -> None:
    model = get_peft_model(make_model(), LORA)
    factors = [p for name, p in model.named_parameters() if "lora_" in name]
    torch.manual_seed(0)
    for parameter in factors:
        parameter.data.normal_()
    entry = [parameter.data.clone() for parameter in factors]
    with Snapshot(model) as snapshot:
        for parameter in factors:
            parameter.data += torch.randn_like(parameter)
        whole = [parameter.data.clone() for parameter in factors]
        assert snapshot.settle(model)
        assert snapshot.settle_at(model, strength)
        for parameter, was, trained in zip(factors, entry, whole, strict=True):
            expected = was + strength * (trained - was)
            torch.testing.assert_close(parameter.data, expected, rtol=1e-6, atol=1e-6)
        assert snapshot.settle_at(model, 1.0)
        assert all(torch.equal(p.data, w) for p, w in zip(factors, whole, strict=True))
        snapshot.restore()
    assert all(torch.equal(p.data, was) for p, was in zip(factors, entry, strict=True))
