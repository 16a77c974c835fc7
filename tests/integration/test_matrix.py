"""What a phase leaves behind on each kind of model, by bits: pairs of what meets in the field.

``python -m benchmarks.clean_room`` runs the whole matrix.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from risen_plugin import RisenCallback
from risen_plugin.training.adapters import Snapshot

from .cells import EIGHT_BIT, FOUR_BIT, QUANTIZED, Cell, faults
from .conftest import KEEP

pytestmark = pytest.mark.slow

CELLS = (
    Cell("full", "bf16", "kept"),
    Cell("LoRA", "fp16", "failed"),
    Cell("DoRA", "bf16", "dropped"),
    Cell("PiSSA", "fp32", "dropped"),
    Cell("OLoRA", "fp32", "failed"),
    Cell("IA3", "fp32", "kept"),
    Cell("several adapters", "bf16", "dropped"),
    Cell("modules_to_save", "fp16", "kept"),
    Cell("on embeddings", "fp32", "dropped"),
    Cell("add_adapter", "fp32", "failed"),
    Cell("LoRA", EIGHT_BIT, "dropped"),
    Cell("LoRA", FOUR_BIT, "kept"),
    Cell("add_adapter", FOUR_BIT, "dropped"),
)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_phase_leaves_nothing_behind_but_what_it_may(cell: Cell, tmp_path: Path) -> None:
    if cell.dtype in QUANTIZED and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("quantized weights need bitsandbytes, which is not installed")
    assert faults(cell, tmp_path) == []


def test_a_phase_on_transformers_own_adapter_is_in_what_is_saved(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = make_model()
    model.save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = make_trainer(model, learning_rate=0.0)  # so that only RISEN changes weights
    callback = RisenCallback(config(guard=KEEP, grpo={"beta": 0.1})).attach(trainer)
    trainer.train()
    assert callback.phases[1].accepted
    trainer.save_model()

    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run").state_dict()
    assert all(torch.equal(saved[name], after[name]) for name in after)


def _with_lora(model: Any) -> Any:
    """A plain model under a temporary adapter that does something."""
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    return adapted.eval()


def _bits(model: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_a_look_at_the_merged_model_leaves_the_adapter_as_it_was(
    make_model: Callable[..., Any],
) -> None:
    model = make_model().to(torch.bfloat16)
    snapshot = Snapshot(model)
    trained = _with_lora(model)
    ids = torch.arange(12)[None]
    weights, answer = _bits(trained), trained(input_ids=ids).logits
    with snapshot.as_kept(trained):
        merged = trained(input_ids=ids).logits
    assert all(map(torch.equal, weights, _bits(trained)))
    assert torch.equal(trained(input_ids=ids).logits, answer)
    assert snapshot.settle(trained)
    assert torch.equal(trained(input_ids=ids).logits, merged)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_makes_weights_infinite_cannot_be_kept(
    value: float, make_model: Callable[..., Any]
) -> None:
    model = make_model()
    before = _bits(model)
    snapshot = Snapshot(model)
    trained = _with_lora(model)
    layer = model.model.layers[1].mlp.up_proj  # others are merged before it
    torch.nn.init.constant_(layer.lora_B["default"].weight, value)
    assert not snapshot.settle(trained)
    after = [p for name, p in trained.named_parameters() if "lora_" not in name]
    assert all(map(torch.equal, before, after))
