"""Tiny models and trainers, built from configurations: no network, no GPU."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A deadline measures the machine, not the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


_NEW = 50  # modules
_frozen_at = 0


def pytest_collection_finish() -> None:
    _freeze()


def pytest_runtest_logfinish() -> None:
    _freeze()


def _freeze() -> None:
    """Have the garbage collector leave out what the libraries hold once they are loaded.

    A collection looks through half a million objects of theirs, for half a second; every phase and
    export asks for one.
    """
    global _frozen_at
    if len(sys.modules) >= _frozen_at + _NEW:
        _frozen_at = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A byte tokenizer (no merges) with ChatML, in Qwen2's layout."""
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    from risen_plugin.embedded import base_model

    tokenizer = transformers.Qwen2Tokenizer(
        vocab={byte: index for index, byte in enumerate(sorted(ByteLevel.alphabet()))},
        merges=[],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        model_max_length=512,
    )
    tokenizer.chat_template = (base_model() / "chat_template.jinja").read_text()
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tokenizer(tokenizer_folder: str) -> Any:
    """A fresh tokenizer, for a test to spoil."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture
def make_model(tokenizer: Any) -> Callable[..., Any]:
    """Builds a two-layer Qwen2 with weights from ``seed``."""

    def make(*, seed: int = 0, **changes: Any) -> Any:
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM

        settings: dict[str, Any] = {
            "vocab_size": 288,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(Qwen2Config(**{**settings, **changes}))

    return make
