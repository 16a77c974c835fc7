"""A base model in 4 or 8 bits: loaded by the command line, kept as it can be trained."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from risen_plugin.commands.train import models
from risen_plugin.config import LoraSettings
from risen_plugin.errors import ConfigError
from risen_plugin.training.quantized import keep_trainable

pytestmark = pytest.mark.slow

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="quantized weights need bitsandbytes, which is not installed",
)
LORA = LoraSettings(r=4)


@needs_bitsandbytes
@pytest.mark.parametrize(("bits", "kind"), [("4bit", "Linear4bit"), ("8bit", "Linear8bitLt")])
def test_a_quantized_base_is_frozen_under_an_adapter_that_is_trained(bits: Any, kind: str) -> None:
    model, _ = models.load("embedded", "float32", lora=LORA, seed=0, quantize=bits)
    projection = model.base_model.model.model.layers[0].self_attn.q_proj
    assert type(projection.base_layer).__name__ == kind
    trained = {name for name, weights in model.named_parameters() if weights.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


@needs_bitsandbytes
def test_a_4_bit_model_that_answers_can_still_be_trained() -> None:
    """On CPUs with AVX512-BF16 bitsandbytes packs its weights for answering, else."""
    model, _ = models.load("embedded", "float32", lora=LORA, seed=0, quantize="4bit")
    held = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    ids = torch.arange(12)[None]
    keep_trainable(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(torch.equal(weights, held[name]) for name, weights in model.named_parameters())
    assert all(w.grad is not None for w in model.parameters() if w.requires_grad)


def test_a_model_whose_weights_are_packed_already_is_refused_by_the_layer() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    layer: Any = model[0]
    layer.support_avx512bf16_for_cpu = True
    layer.weight.quant_state = SimpleNamespace(packing_format_for_cpu=True)
    with pytest.raises(ConfigError, match="packed '0' for answers on this CPU") as caught:
        keep_trainable(model)
    assert "\n" not in str(caught.value)
    layer.weight.quant_state.packing_format_for_cpu = False
    keep_trainable(model)
    assert layer.support_avx512bf16_for_cpu is False


def test_without_bitsandbytes_quantizing_is_refused_before_weights_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="quantize: 4bit needs the package bitsandbytes"):
        models.load("embedded", "float32", lora=LORA, seed=0, quantize="4bit")
