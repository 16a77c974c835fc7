"""Tiny models for the export tests: two layers, hidden 64, a byte vocabulary, a ChatML template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONTEXT = 256


@pytest.fixture(autouse=True)
def _quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def make_tokenizer() -> Any:
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(
        vocab={letter: index for index, letter in enumerate(alphabet)},
        merges=[],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def make_model(tokenizer: Any, kind: str = "Qwen2", *, tied: bool = True, **other: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        **{
            "vocab_size": 288,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": tied,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_range": 0.15,
            **other,
        }
    )
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def model_of() -> Callable[..., Any]:
    """``model_of(tokenizer, kind, tied=...)``: a new model with weights from one seed."""
    return make_model


@pytest.fixture
def saved(tokenizer: Any) -> Callable[..., Path]:
    """``saved(model, folder)``: write a model with its tokenizer and return the folder."""

    def save(model: Any, folder: Path) -> Path:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def adapter(tokenizer: Any, saved: Callable[..., Path]) -> Callable[[Path], Path]:
    """``adapter(folder)``: a LoRA adapter with random weights, its base in ``folder/base``."""
    import torch
    from peft import LoraConfig, get_peft_model

    def make(folder: Path) -> Path:
        saved(make_model(tokenizer), folder / "base")
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(folder / "base")
        wrapped = get_peft_model(
            base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        )
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_" in name:
                    parameter.normal_(0, 0.1)
        wrapped.save_pretrained(folder / "adapter")
        return folder / "adapter"

    return make


@pytest.fixture(scope="session")
def tied_model(tokenizer: Any) -> Any:
    """The model that :func:`tied_bundle` was made from."""
    return make_model(tokenizer)


@pytest.fixture(scope="session")
def tied_bundle(tied_model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tied Qwen2 model in both precisions, exported once per session."""
    from risen_export import export

    folder = tmp_path_factory.mktemp("tied")
    tied_model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    export(folder / "model", folder / "bundle", ("fp32", "int8"), progress=False)
    return folder / "bundle"


@pytest.fixture(scope="session")
def apart_bundle(tied_model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the same model whose graph takes adapters, and has none yet."""
    from risen_export import export

    folder = tmp_path_factory.mktemp("apart")
    tied_model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    export(folder / "model", folder / "bundle", ("fp32",), separate=True, progress=False)
    return folder / "bundle"
