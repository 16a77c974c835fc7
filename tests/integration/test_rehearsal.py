"""A phase is tried once before fine-tuning: what cannot be trained is refused then, in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import AdaLoraConfig, LoraConfig, PromptTuningConfig, get_peft_model

from risen_plugin import RisenCallback, use
from risen_plugin.config import LoraSettings
from risen_plugin.errors import ConfigError, RecordError
from risen_plugin.phases import rehearsal
from risen_plugin.training.adapters import fresh_lora

from .conftest import never
from .refusing import refused, refused_at_the_start
from .test_clean_room import same, surroundings, weights

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


# Settings


@pytest.mark.parametrize(
    ("grpo", "said"),
    [
        ({"use_liger_kernel": True}, "grpo.use_liger_kernel = True does not work here: "),
        ({"optim": "grokadamw"}, "grpo.optim = 'grokadamw' does not work here: "),
        ({"cache_implementation": "nosuch"}, "grpo.cache_implementation = 'nosuch' does not work"),
        (
            {"generation_kwargs": {"stop_strings": ["x"]}, "beta": 0.1},
            "grpo.generation_kwargs = {'stop_strings': ['x']} does not work here: answering ended "
            "in ValueError: There are one or more stop strings",
        ),
        ({"use_vllm": True}, "grpo.use_vllm needs the package vllm, which is not installed"),
    ],
)
def test_a_value_that_no_phase_can_use_is_named_before_anything_is_trained(
    grpo: dict[str, Any], said: str, make_model: Make, make_trainer: Make, config: Any
) -> None:
    callback = RisenCallback(config(grpo=grpo))
    assert said in refused_at_the_start(make_trainer(make_model()), callback, ConfigError, True)


class MadeByTheModel:
    """A probe that is made when it is first read, as that of a run without probe rows."""

    def __iter__(self) -> Any:
        raise AssertionError("asked before the phase was tried")


def test_a_probe_that_the_model_makes_is_made_after_the_trial(
    make_model: Make, make_trainer: Make, config: Any
) -> None:
    grpo = {"generation_kwargs": {"stop_strings": ["x"]}}
    callback = RisenCallback(config(grpo=grpo, probe=MadeByTheModel()))
    said = refused_at_the_start(make_trainer(make_model()), callback, ConfigError, True)
    assert "does not work here: answering ended in ValueError" in said


@pytest.mark.parametrize("field", ["optim", "lr_scheduler_type", "loss_type", "scale_rewards"])
def test_a_word_that_is_none_is_refused_when_the_callback_is_made(field: str, config: Any) -> None:
    words = {"optim": "adamw", "lr_scheduler_type": "cosin", "loss_type": "grop"}
    meant = {"optim": "adamw_torch", "lr_scheduler_type": "cosine", "loss_type": "grpo"}
    word, right = words.get(field, "grp"), meant.get(field, "group")
    said = refused(ConfigError, lambda: RisenCallback(config(grpo={field: word})))
    assert said.startswith(f"grpo.{field} is '{word}'; did you mean '{right}'? It is one of ")


def test_the_fields_of_a_scheduler_are_checked_and_tried_too(
    make_model: Make, make_trainer: Make, config: Any
) -> None:
    def scheduled(**parameters: Any) -> RisenCallback:
        return RisenCallback(config(scheduler=use("after", steps=2, parameters=parameters)))

    said = refused(ConfigError, lambda: scheduled(optim="adamw"))
    assert "after" in said
    assert "optim is 'adamw'; did you mean 'adamw_torch'" in said
    trainer = make_trainer(make_model())
    said = refused_at_the_start(trainer, scheduled(optim="grokadamw"), ConfigError, True)
    assert "after" in said
    assert "optim = 'grokadamw' does not work here" in said


# Models and adapters


@pytest.mark.parametrize(
    ("settings", "beta", "said"),
    [
        (
            LoraConfig(r=2, target_modules=["q_proj"], bias="all"),
            0.1,
            "grpo.beta = 0.1 does not work here: LoraModel supports only 1 adapter with bias",
        ),
        (
            AdaLoraConfig(target_modules=["q_proj"], total_step=10),
            0.1,
            "grpo.beta = 0.1 does not work here: AdaLoraModel supports only 1 trainable adapter",
        ),
        (
            LoraConfig(r=2, target_modules=["q_proj", "lm_head"]),
            0.0,
            "",  # not of this trial alone: tied weights are refused for it too
        ),
        (
            LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[5]),
            0.0,
            "a trial of a RISEN phase fails on Qwen2ForCausalLM with its LORA adapter: training "
            "ended in AttributeError: 'TrainableTokensWrapper'",
        ),
        (
            PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
            0.0,
            "the adapter 'default' (prompt tuning) puts tokens of its own before every prompt",
        ),
    ],
    ids=["bias", "adalora", "head", "tokens", "prompt"],
)
def test_an_adapter_that_no_phase_can_train_is_refused(
    settings: Any, beta: float, said: str, make_model: Make, make_trainer: Make, config: Any
) -> None:
    settings.task_type = "CAUSAL_LM"
    trainer = make_trainer(get_peft_model(make_model(), settings))
    callback = RisenCallback(config(grpo={"beta": beta}))
    assert said in refused_at_the_start(trainer, callback, ConfigError, True)


SMALL = {"vocab_size": 288, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
MAMBA = {**SMALL, "state_size": 8, "time_step_rank": 4}
LLAMA_4 = {
    **SMALL,
    "intermediate_size": 32,
    "intermediate_size_mlp": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 2,
}
GRANITE_4 = {
    **SMALL,
    "intermediate_size": 32,
    "shared_intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 2,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "layer_types": ["mamba", "attention"],
}


def tiny(name: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    model = getattr(transformers, name)
    return model(model.config_class(**settings))


def test_a_model_that_trl_cannot_train_is_refused_by_its_class(
    make_trainer: Make, config: Any
) -> None:
    trainer = make_trainer(tiny("Llama4ForCausalLM", LLAMA_4))
    said = refused_at_the_start(trainer, RisenCallback(config()), ConfigError, True)
    assert said.startswith("a trial of a RISEN phase fails on Llama4ForCausalLM: training ended in")
    assert said.endswith("nothing was trained yet")


@pytest.mark.parametrize(
    ("name", "settings"),
    [("MambaForCausalLM", MAMBA), ("GraniteMoeHybridForCausalLM", GRANITE_4)],
)
def test_models_that_need_known_settings_get_them(
    name: str, settings: dict[str, Any], make_trainer: Make, config: Any
) -> None:
    """Layers that PEFT takes no adapter on, and a loss of routers that TRL cannot compute."""
    trainer = make_trainer(tiny(name, settings), max_steps=2)
    callback = RisenCallback(config()).attach(trainer)
    trainer.train()
    assert [(p.kind, p.steps, p.accepted) for p in callback.phases[1:2]] == [("risen", 2, True)]


FALCON = {
    "vocab_size": 288,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "ffn_hidden_size": 48,
}


@pytest.mark.parametrize(
    ("name", "settings", "taken", "left"),
    [
        (
            "FalconForCausalLM",
            FALCON,
            {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
            "lm_head",
        ),
        ("Llama4ForCausalLM", LLAMA_4, {"q_proj", "k_proj", "v_proj", "o_proj"}, "router"),
    ],
)
def test_an_adapter_sits_on_layers_with_a_forward_of_their_own_if_that_makes_one_row(
    name: str, settings: dict[str, Any], taken: set[str], left: str
) -> None:
    model = tiny(name, settings)
    adapted = get_peft_model(model, fresh_lora(model, LoraSettings()))
    found = {
        key.split(".lora_A")[0].rpartition(".")[2]
        for key, _ in adapted.named_parameters()
        if ".lora_A" in key
    }
    assert taken <= found
    assert left not in found


def test_a_model_that_answers_nonsense_is_refused(
    make_model: Make, make_trainer: Make, config: Any
) -> None:
    model = make_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    trainer = make_trainer(model)

    def train() -> None:
        RisenCallback(config()).attach(trainer)
        trainer.train()

    assert "fails on Qwen2ForCausalLM: the loss of a probe row is nan" in refused(
        ConfigError, train
    )


def test_attach_already_refuses_a_run_without_probe_or_template(
    make_model: Make, make_trainer: Make, config: Any, tokenizer: Any
) -> None:
    trainer = make_trainer(make_model())
    said = refused(ConfigError, lambda: RisenCallback(config(probe=None)).attach(trainer))
    assert said.startswith("there is nothing to measure retention on")
    trainer.processing_class.chat_template = None
    said = refused(ConfigError, lambda: RisenCallback(config()).attach(trainer))
    assert said.endswith("(generators that make chats of texts take chat=False)")


# No trace


def test_a_trial_leaves_model_tokenizer_randomness_and_folders_as_they_were(
    make_model: Make,
    make_trainer: Make,
    config: Any,
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapted = get_peft_model(
        make_model(attention_dropout=0.1), LoraConfig(r=2, lora_dropout=0.1), "mine"
    )
    seen: list[tuple[Any, Any]] = []
    perform = rehearsal.rehearse

    def watched(context: Any, chosen: Any) -> None:
        before = (weights(context.model), surroundings(context.model, context.tokenizer))
        files = sorted(tmp_path.rglob("*"))
        perform(context, chosen)
        after = (weights(context.model), surroundings(context.model, context.tokenizer))
        assert sorted(tmp_path.rglob("*")) == files
        seen.append((before, after))

    monkeypatch.setattr("risen_plugin.run.start.rehearse", watched)
    trainer = make_trainer(adapted, max_steps=1)
    RisenCallback(config(scheduler=never, grpo={"beta": 0.1})).attach(trainer)
    trainer.train()
    [((tensors, around), (tensors_after, around_after))] = seen
    assert same(tensors, tensors_after)
    assert around == around_after


def test_nobody_is_asked_for_a_score_or_an_instruction(
    make_model: Make, make_trainer: Make, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def perform(context: Any, chosen: Any) -> None:
        monkeypatch.setattr(context.panel, "learnable", None)
        monkeypatch.setattr(context.instructions, "next", None)
        rehearsal.rehearse(context, chosen)
        monkeypatch.undo()

    monkeypatch.setattr("risen_plugin.run.start.rehearse", perform)
    trainer = make_trainer(make_model(), max_steps=1)
    RisenCallback(config(scheduler=never)).attach(trainer)
    trainer.train()


# Resuming


def test_a_run_that_goes_on_unchanged_is_not_tried_again(
    make_model: Make, make_trainer: Make, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    monkeypatch.setattr("risen_plugin.run.start.rehearse", lambda *_: tried.append(1))
    for changes, resume in (({}, None), ({}, True), ({"grpo": {"beta": 0.1}, "force": True}, True)):
        trainer = make_trainer(make_model(), max_steps=3, save_strategy="steps", save_steps=2)
        RisenCallback(config(scheduler=never, **changes)).attach(trainer)
        trainer.train(resume_from_checkpoint=resume)
    assert len(tried) == 2


def test_a_checkpoint_without_optimizer_is_refused_since_the_rate_would_begin_again(
    make_model: Make, make_trainer: Make, config: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def train(resume: bool | None, **changes: Any) -> None:
        saving = {"save_strategy": "steps", "save_steps": 2, "save_only_model": True}
        trainer = make_trainer(make_model(), max_steps=3, **saving)
        RisenCallback(config(scheduler=never, **changes)).attach(trainer)
        trainer.train(resume_from_checkpoint=resume and f"{trainer.args.output_dir}/checkpoint-2")

    with caplog.at_level("INFO", logger="risen_plugin"):
        train(None)
    said = refused(RecordError, lambda: train(True))
    assert "checkpoint-2 holds no optimizer and no schedule" in said
    train(True, force=True)
