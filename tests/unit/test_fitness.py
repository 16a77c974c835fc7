"""What a RISEN phase cannot work with is refused at the start, in one line, with the fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from risen_plugin.errors import ConfigError
from risen_plugin.run import fitness
from risen_plugin.run.fitness import check_arguments, check_model, check_targets
from risen_plugin.training.answering import longest_prompt
from risen_plugin.training.asking import prompt_ids

TINY = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
HEADS = {"num_attention_heads": 2, "max_position_embeddings": 64}
BART = {
    "vocab_size": 64,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}
T5 = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
CAUSAL = {**TINY, **HEADS, "num_key_value_heads": 2, "pad_token_id": 0}
LORA = LoraConfig(r=2, target_modules=["q_proj"])


def refusal(check: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tiny(name: str, settings: dict[str, Any]) -> Any:
    """A model of a transformers class, from the configuration of its family."""
    model = getattr(transformers, name)
    return model(model.config_class(**settings))


# Arguments


def arguments(folder: Path, **changes: Any) -> SimpleNamespace:
    fields = {
        "output_dir": str(folder),
        "world_size": 1,
        "n_gpu": 0,
        "deepspeed": None,
        "fsdp": None,
        "load_best_model_at_end": False,
    }
    return SimpleNamespace(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_gpu": 2}, "this process trains on 2 devices at once (DataParallel), which RISEN"),
        ({"deepspeed": "ds.json"}, "RISEN phases do not run under DeepSpeed: its engine owns the"),
        ({"fsdp": ["full_shard"]}, "RISEN phases do not run under FSDP: a phase's adapter can nei"),
        (
            {"load_best_model_at_end": True},
            "load_best_model_at_end could throw accepted RISEN phases away without a word; set it ",
        ),
    ],
)
def test_arguments_that_no_phase_can_serve_are_refused_with_the_fix(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert refusal(check_arguments, arguments(tmp_path, **changes)).startswith(said)


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_what_accelerate_launch_was_told_is_seen_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    said = refusal(check_arguments, arguments(tmp_path))
    assert "start one process per device with torchrun" in said
    assert said.endswith("start risen train without data on the model that it saved")
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "false")
    check_arguments(arguments(tmp_path))


def test_processes_whose_trainers_know_nothing_of_one_another_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torchrun makes of a Trainer on CPUs without use_cpu (transformers 5.23)."""
    monkeypatch.setattr(fitness, "running_processes", lambda: SimpleNamespace(count=2))
    said = refusal(check_arguments, arguments(tmp_path, world_size=1))
    assert said.startswith("each of the 2 processes would train alone")
    assert "give TrainingArguments use_cpu=True" in said
    check_arguments(arguments(tmp_path, world_size=2))


def test_the_arguments_of_an_ordinary_trainer_pass(tmp_path: Path) -> None:
    check_arguments(transformers.TrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True))


def test_looking_whether_a_folder_can_be_written_makes_nothing(tmp_path: Path) -> None:
    check_arguments(arguments(tmp_path / "new" / "run", n_gpu=1))
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refusal(check_arguments, arguments(tmp_path / "file" / "run"))
    assert said == (
        f"the run's record cannot be written to output_dir {tmp_path}/file/run: {tmp_path}/file "
        "is a file; choose another"
    )


def test_an_output_folder_that_takes_no_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda place, mode: False)
    said = refusal(check_arguments, arguments(tmp_path / "run"))
    assert said.endswith(f"{tmp_path} takes no files; choose another")


# Models


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        (
            "T5ForConditionalGeneration",
            T5,
            "T5ForConditionalGeneration is an encoder-decoder model; RISEN needs a causal language",
        ),
        (
            "BartForConditionalGeneration",
            BART,
            "BartForConditionalGeneration is an encoder-decoder model; RISEN needs a causal",
        ),
        (
            "Qwen2ForSequenceClassification",
            CAUSAL,
            "Qwen2ForSequenceClassification cannot generate text; RISEN needs a causal language mo",
        ),
        ("Qwen2ForTokenClassification", CAUSAL, "Qwen2ForTokenClassification cannot generate text"),
        ("Qwen2Model", CAUSAL, "Qwen2Model cannot generate text"),
        ("BertForMaskedLM", {**TINY, **HEADS}, "BertForMaskedLM cannot generate text"),
    ],
)
def test_a_model_that_is_no_causal_language_model_is_refused_by_its_class(
    name: str, settings: dict[str, Any], said: str, tokenizer: Any
) -> None:
    assert refusal(check_model, tiny(name, settings), tokenizer).startswith(said)


def test_a_module_without_a_configuration_is_refused(tokenizer: Any) -> None:
    assert refusal(check_model, torch.nn.Linear(2, 2), tokenizer).startswith("Linear cannot gen")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Qwen2ForCausalLM", CAUSAL),
        ("LlamaForCausalLM", CAUSAL),
        ("GPT2LMHeadModel", {"vocab_size": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}),
    ],
)
def test_causal_language_models_pass(name: str, settings: dict[str, Any], tokenizer: Any) -> None:
    check_model(tiny(name, settings), tokenizer)


def test_a_tokenizer_is_needed_and_one_that_can_end_an_answer(
    make_model: Callable[..., Any], tokenizer: Any
) -> None:
    model = make_model()
    assert refusal(check_model, model, None) == (
        "the Trainer has no tokenizer; give it processing_class=tokenizer"
    )
    tokenizer.eos_token = None
    assert refusal(check_model, model, tokenizer) == (
        "the tokenizer has no eos_token, so no answer could ever end; set one"
    )


def test_a_tokenizer_without_a_pad_token_passes(
    make_model: Callable[..., Any], tokenizer: Any
) -> None:
    tokenizer.pad_token = None
    check_model(make_model(), tokenizer)


def test_an_adapter_is_judged_by_the_model_under_it(
    make_model: Callable[..., Any], tokenizer: Any
) -> None:
    check_model(get_peft_model(make_model(), LORA, "mine"), tokenizer)
    wrapped = get_peft_model(tiny("Qwen2ForSequenceClassification", CAUSAL), LORA)
    said = refusal(check_model, wrapped, tokenizer)
    assert said.startswith("Qwen2ForSequenceClassification cannot generate")


def test_exactly_one_adapter_is_trained_and_none_is_called_as_trls_reference(
    make_model: Callable[..., Any], tokenizer: Any
) -> None:
    named = get_peft_model(make_model(), LORA, "mine")
    named.add_adapter("ref", LORA)
    assert refusal(check_model, named, tokenizer) == (
        "an adapter is called 'ref', which TRL needs for its reference; rename it"
    )
    model: Any = get_peft_model(make_model(), LORA, "one")
    model.add_adapter("two", LORA)
    check_model(model, tokenizer)
    model.base_model.set_adapter(["one", "two"])
    assert refusal(check_model, model, tokenizer) == (
        "the model has 2 active adapters (one, two); RISEN trains one"
    )


def test_adapters_that_a_model_holds_itself_are_judged_alike(
    make_model: Callable[..., Any], tokenizer: Any
) -> None:
    model: Any = make_model()
    model.add_adapter(LORA, "one")
    check_model(model, tokenizer)
    model.add_adapter(LORA, "two")
    model.set_adapter(["one", "two"])
    assert refusal(check_model, model, tokenizer) == (
        "the model has 2 active adapters (one, two); RISEN trains one"
    )
    mixed = get_peft_model(make_model(), LORA, mixed=True)
    assert refusal(check_model, mixed, tokenizer) == (
        "the model is a PeftMixedModel, which TRL does not know; give it adapters of one kind, by "
        "get_peft_model"
    )


@pytest.mark.parametrize("targets", [["q_proj", "embed_tokens"], r".*(embed_tokens|v_proj)"])
def test_a_module_that_shares_its_weights_is_no_place_for_a_phases_adapter(
    targets: str | list[str], make_model: Callable[..., Any]
) -> None:
    check_targets(make_model(tie_word_embeddings=False), targets)
    assert refusal(check_targets, make_model(), targets) == (
        "lora.target_modules: 'model.embed_tokens' shares its weights with 'lm_head' (tied), so "
        "that merging a phase's adapter into one would change the other too; leave "
        "'model.embed_tokens' out"
    )


# Prompts


def test_chat_prompts_need_a_chat_template_and_texts_do_not(tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "a"}]
    assert prompt_ids(tokenizer, chat)
    tokenizer.chat_template = None
    assert prompt_ids(tokenizer, "a")
    assert refusal(prompt_ids, tokenizer, chat) == (
        "there are chat messages to read, but the tokenizer has no chat template; set "
        "tokenizer.chat_template, or give prompts as plain text (generators that make chats of "
        "texts take chat=False)"
    )


class Context:
    """A model of which nothing is known but its context."""

    def __init__(self, tokens: int | None) -> None:
        self.max_position_embeddings = tokens
        self.config = self

    def get_text_config(self) -> Context:
        return self


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_a_prompt_and_its_answer_fill_the_context_at_most(context: int, answer: int) -> None:
    if answer < context:
        assert longest_prompt(Context(context), answer) + answer == context
    else:
        said = refusal(longest_prompt, Context(context), answer)
        assert said == (
            f"grpo.max_completion_length = {answer} fills the model's context of {context} tokens; "
            "lower it"
        )


def test_a_model_that_tells_no_context_has_room_for_every_prompt() -> None:
    assert longest_prompt(Context(None), 128) > 100_000
