"""What a run writes: bytes, seconds, and how often the Trainer does."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from risen_plugin.commands.advise.advice import checkpoints
from risen_plugin.commands.advise.saving import save_every, saved_bytes, write_rate


def test_a_whole_model_is_kept_and_its_checkpoints_hold_two_moments_of_every_weight(make_model):
    model = make_model()
    count = sum(p.numel() for p in model.parameters())
    assert saved_bytes(model) == (4 * count, 12 * count)


def test_of_an_adapter_the_adapter_alone_is_written(make_model):
    model = get_peft_model(make_model(), LoraConfig(r=2, target_modules="all-linear"))
    count = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    assert saved_bytes(model) == (4 * count, 12 * count)


def test_the_pace_is_measured_on_a_real_file(make_model, tmp_path: Path):
    assert 0.0 < write_rate(make_model(), tmp_path) < math.inf
    assert list(tmp_path.iterdir())


def test_a_folder_that_takes_nothing_costs_nothing(make_model, tmp_path: Path):
    assert write_rate(make_model(), tmp_path / "gone") == math.inf


@pytest.mark.parametrize(
    ("given", "every"),
    [
        ({"save_strategy": "steps", "save_steps": 0.25}, 0.25),
        ({"save_strategy": "steps", "save_steps": 40}, 40.0),
        ({"save_strategy": "epoch", "per_device_train_batch_size": 4}, 25.0),
        ({"save_strategy": "no"}, 0.0),
    ],
)
def test_how_often_is_read_from_the_arguments(given: dict[str, Any], every: float, tmp_path: Path):
    args = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], **given)
    assert save_every(args, 100) == every


@pytest.mark.parametrize("every", [0.25, 0.1, 1, 3, 100, 0.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 8, 37, 375])
def test_checkpoints_are_counted_as_the_trainer_makes_them(
    steps: int, every: float, tmp_path: Path
):
    args = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=steps,
        save_strategy="steps" if every else "no",
        save_steps=every or 500,
        use_cpu=True,
        report_to=[],
    )
    state = transformers.TrainerState(max_steps=steps)
    state.compute_steps(args, steps)
    flow, saved = transformers.trainer_callback.DefaultFlowCallback(), 0
    for state.global_step in range(1, steps + 1):
        control = transformers.TrainerControl()
        flow.on_step_end(args, state, control)
        saved += control.should_save
    assert checkpoints(steps, save_every(args, 100)) == saved


def test_a_weight_that_lies_transposed_in_memory_is_written_too(tmp_path: Path):
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    model = SimpleNamespace(named_parameters=lambda: [("weight", weight)])
    assert 0.0 < write_rate(model, tmp_path) < math.inf
