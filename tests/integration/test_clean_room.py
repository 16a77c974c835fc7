"""What a RISEN phase leaves behind in somebody else's run: nothing but what it is allowed to."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from peft import LoraConfig, get_peft_model

from risen_plugin import RisenCallback
from risen_plugin.errors import PluginError
from risen_plugin.run.active import ActiveRun
from risen_plugin.training.clean_room import clean_room

from .conftest import DROP, KEEP, at_step, never

pytestmark = pytest.mark.slow


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def randomness() -> list[Any]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    states = [state.tolist() for state in (torch.get_rng_state(), *devices)]
    return [random.getstate(), np.random.get_state()[1].tolist(), *states]


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def surroundings(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Everything that TRL and accelerate were seen to change, in comparable form."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    modules = list(model.named_modules())
    return {
        "modules": [(name, type(module).__name__) for name, module in modules],
        "attributes": [(name, sorted(vars(module))) for name, module in modules],
        "training": [module.training for _, module in modules],
        "hooks": [len(getattr(module, hook)) for _, module in modules for hook in hooks],
        "dropout": [m.p for _, m in modules if isinstance(m, torch.nn.Dropout)],
        "requires_grad": [(name, p.requires_grad) for name, p in model.named_parameters()],
        "gradients": [p.grad is None for p in model.parameters()],
        "forward": "forward" in vars(model),
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "tokenizer": (tokenizer.padding_side, tokenizer.pad_token, tokenizer.truncation_side),
        "backend": (tokenizer.backend_tokenizer.padding, tokenizer.backend_tokenizer.truncation),
        "accelerate": copy.copy(AcceleratorState._shared_state),
        "partial": copy.copy(PartialState._shared_state),
        "gradient": {
            name: list(value) if isinstance(value, list) else value
            for name, value in GradientState._shared_state.items()
        },
        "environment": dict(os.environ),
        "attention": torch.backends.cuda.cudnn_sdp_enabled(),
        "randomness": randomness(),
    }


@pytest.mark.parametrize("sft", [False, True], ids=["Trainer", "SFTTrainer"])
def test_a_run_that_never_enters_risen_equals_the_run_without_the_callback(
    sft: bool, make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    outcomes = []
    for attached in (False, True):
        model = make_model(attention_dropout=0.1)
        trainer = make_trainer(
            model,
            sft=sft,
            folder=f"run-{attached}",
            evaluate=True,
            eval_strategy="steps",
            eval_steps=2,
        )
        if attached:
            RisenCallback(config(scheduler=never)).attach(trainer)
        trainer.train()
        outcomes.append((weights(model), losses(trainer), randomness()))
    assert same(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] == outcomes[1][1]
    assert outcomes[0][2] == outcomes[1][2]


@pytest.mark.parametrize("kind", ["plain", "plain-bf16", "plain-checkpointing", "peft"])
def test_a_rolled_back_phase_changes_nothing(
    kind: str,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model(attention_dropout=0.1)
    if kind == "peft":
        model = get_peft_model(
            model, LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear"), "mine"
        )
    trainer = make_trainer(
        model,
        bf16=kind == "plain-bf16",
        gradient_checkpointing=kind == "plain-checkpointing",
    )
    callback = RisenCallback(config(guard=DROP, grpo={"beta": 0.1})).attach(trainer)
    seen: list[tuple[dict[str, torch.Tensor], dict[str, Any]]] = []
    phase = ActiveRun.try_out

    def watched(*arguments: Any) -> None:
        for moment in (lambda: None, lambda: phase(*arguments)):
            moment()
            seen.append((weights(model), surroundings(model, tokenizer)))

    monkeypatch.setattr(ActiveRun, "try_out", watched)
    trainer.train()

    (before, around), (after, left) = seen
    assert callback.phases[1].accepted is False
    assert same(before, after)
    for name, value in around.items():
        assert left[name] == value, name


def test_a_run_with_only_rolled_back_phases_equals_fine_tuning_alone(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    outcomes = []
    for scheduler in (never, at_step(1, 3)):
        model = make_model()
        trainer = make_trainer(model, folder=f"run-{len(outcomes)}")
        RisenCallback(config(scheduler=scheduler, guard=DROP)).attach(trainer)
        trainer.train()
        outcomes.append((weights(model), losses(trainer), randomness()))
    assert same(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1:] == outcomes[1][1:]


@pytest.mark.parametrize("peft", [False, True], ids=["plain", "peft"])
def test_a_phase_that_fails_restores_everything_and_names_the_culprit(
    peft: bool,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def breaks(completions: list[Any], **columns: Any) -> list[float]:
        calls.append(len(completions))
        if len(calls) > 3:  # guard, report, first step, then
            raise ZeroDivisionError("oh")
        return [float(len(c[0]["content"])) for c in completions]

    model = make_model()
    if peft:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    trainer = make_trainer(model)
    RisenCallback(config(rewards=[breaks])).attach(trainer)
    seen: list[Any] = []
    phase = ActiveRun.try_out

    def watched(*arguments: Any) -> None:
        seen.append((weights(model), surroundings(model, tokenizer)))
        phase(*arguments)

    monkeypatch.setattr(ActiveRun, "try_out", watched)
    with pytest.raises(PluginError, match=r"reward 'breaks' .* raised ZeroDivisionError: oh"):
        trainer.train()
    (before, around) = seen[0]
    assert same(before, weights(model))
    left = surroundings(model, tokenizer)
    assert {name for name in around if left[name] != around[name]} == set()


def test_an_accepted_phase_keeps_the_model_object_its_parameters_and_keys(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Any
) -> None:
    from transformers import AutoModelForCausalLM

    model = make_model()
    parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
    before = weights(model)
    trainer = make_trainer(model, learning_rate=0.0)  # so that only RISEN changes weights
    callback = RisenCallback(config(guard=KEEP)).attach(trainer)
    trainer.train()

    assert [p.kind for p in callback.phases] == ["fine_tune", "risen"]
    assert trainer.model is model
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == parameters
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert list(model.state_dict()) == list(before)
    changed = [
        name for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])
    ]
    assert changed
    assert all("proj" in name for name in changed)  # linear layers, never embeddings or norms
    trainer.save_model()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    assert same(weights(loaded), weights(model))


def test_fine_tuning_goes_on_after_an_accepted_phase(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model()
    trainer = make_trainer(model, max_steps=4)
    RisenCallback(config(scheduler=at_step(2))).attach(trainer)
    held: list[Any] = []
    phase = ActiveRun.try_out

    def watched(*arguments: Any) -> None:
        phase(*arguments)
        held.append(weights(model))

    monkeypatch.setattr(ActiveRun, "try_out", watched)
    trainer.train()
    assert trainer.state.global_step == 4
    assert len(losses(trainer)) == 4
    assert not same(held[0], weights(model))


def test_the_kept_adapter_explains_the_change_of_weights(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Any
) -> None:
    from peft import PeftModel

    model = make_model()
    untouched = copy.deepcopy(model)
    trainer = make_trainer(model, learning_rate=0.0)
    RisenCallback(config()).attach(trainer)
    trainer.train()
    adapter = tmp_path / "run" / "risen" / "phase-001" / "adapter"
    rebuilt = PeftModel.from_pretrained(untouched.to(model.device), adapter).merge_and_unload()
    assert same(weights(rebuilt), weights(model))


def test_a_kept_adapter_can_be_exported_apart_where_the_entry_weights_are_kept(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Any
) -> None:
    from peft import AutoPeftModelForCausalLM

    model = make_model()
    trainer = make_trainer(model, max_steps=2)
    RisenCallback(config(keep_entry=True)).attach(trainer)
    trainer.train()
    adapter = tmp_path / "run" / "risen" / "phase-001" / "adapter"
    kept = AutoPeftModelForCausalLM.from_pretrained(adapter).to(model.device)
    rebuilt = kept.merge_and_unload()
    assert same(weights(rebuilt), weights(model))


def test_entry_weights_of_a_dropped_phase_are_not_kept(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Any
) -> None:
    trainer = make_trainer(make_model())
    RisenCallback(config(keep_entry=True, guard=DROP)).attach(trainer)
    trainer.train()
    folder = tmp_path / "run" / "risen" / "phase-001"
    assert sorted(path.name for path in folder.iterdir()) == ["completions.parquet", "phase.json"]


def test_the_room_restores_after_an_interrupt(
    make_model: Callable[..., Any], tokenizer: Any
) -> None:
    model = make_model()
    before = surroundings(model, tokenizer)

    def spoil() -> None:
        model.eval()
        model.forward = lambda: None
        model.requires_grad_(False)
        model.config.use_cache = not model.config.use_cache
        tokenizer.padding_side = "left"
        torch.rand(3)
        AcceleratorState._shared_state["spoiled"] = True
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), clean_room(model, tokenizer):
        spoil()
    after = surroundings(model, tokenizer)
    assert {name for name in before if after[name] != before[name]} == set()
