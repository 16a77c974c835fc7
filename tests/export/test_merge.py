"""Adapters are folded in exactly; weights that do not fit or are not finite are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from risen_export.merging.merge import from_memory, load
from risen_export.merging.source import resolve
from risen_plugin.errors import ExportError

pytestmark = [
    pytest.mark.slow,
    # PEFT's own: it asks an attribute that transformers renamed, and warns of tied embeddings.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*tie:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]
IDS = torch.arange(40).reshape(2, 20)
TOLERANCE = 1e-4


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        answer: torch.Tensor = model(input_ids=IDS).logits
    return answer


def test_a_merged_adapter_answers_as_the_adapter_did(
    adapter: Callable[[Path], Path], tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    folder = adapter(tmp_path)
    merged = load(resolve(folder))
    expected = logits(AutoPeftModelForCausalLM.from_pretrained(folder))
    base = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    torch.testing.assert_close(logits(merged.model), expected, atol=TOLERANCE, rtol=0)
    assert (expected - base).abs().max() > 100 * TOLERANCE  # the adapter does something
    assert merged.provenance["merged_adapters"][0]["r"] == 4
    assert not hasattr(merged.model, "peft_config")


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["v_proj", "lm_head"]},
        {"target_modules": ["v_proj", "embed_tokens"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]},
    ],
    ids=str,
)
def test_an_adapter_on_one_end_of_a_tied_model_changes_that_end_only(
    options: dict[str, Any], model_of: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        model_of(tokenizer), LoraConfig(r=2, init_lora_weights=False, **options)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    expected = logits(model)
    merged = from_memory(model, tokenizer, name="mine").model
    torch.testing.assert_close(logits(merged), expected, atol=TOLERANCE, rtol=0)
    merged.save_pretrained(tmp_path)
    loaded = type(merged).from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded), expected, atol=TOLERANCE, rtol=0)


def test_tokens_added_in_training_come_with_the_adapter(
    model_of: Callable[..., Any], saved: Callable[..., Path], tokenizer: Any, tmp_path: Path
) -> None:
    import copy

    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    saved(model_of(tokenizer), tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(320, mean_resizing=False)
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens([f"<new-{index}>" for index in range(40)])
    options = {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]}
    model = get_peft_model(base, LoraConfig(r=2, init_lora_weights=False, **options)).eval()
    model.save_pretrained(tmp_path / "adapter")
    larger.save_pretrained(tmp_path / "adapter")
    merged = load(resolve(tmp_path / "adapter"))
    assert len(merged.tokenizer) == 299
    torch.testing.assert_close(logits(merged.model), logits(model), atol=TOLERANCE, rtol=0)


def test_an_adapter_without_weights_to_merge_is_refused(
    model_of: Callable[..., Any], tokenizer: Any
) -> None:
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(
        model_of(tokenizer), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    )
    with pytest.raises(ExportError, match="has no weights to merge"):
        from_memory(model, tokenizer, name="mine")


def test_half_precision_weights_are_merged_in_fp32(
    model_of: Callable[..., Any], tokenizer: Any, saved: Callable[..., Path], tmp_path: Path
) -> None:
    merged = load(resolve(saved(model_of(tokenizer).bfloat16(), tmp_path)))
    assert {parameter.dtype for parameter in merged.model.parameters()} == {torch.float32}


def test_a_model_in_memory_is_copied_and_left_as_it_is(
    model_of: Callable[..., Any], tokenizer: Any
) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        model_of(tokenizer), LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False)
    ).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = logits(model.eval())
    model.train()
    merged = from_memory(model, tokenizer, name="mine")
    torch.testing.assert_close(logits(merged.model), expected, atol=TOLERANCE, rtol=0)
    assert model.training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_forward_wrapped_by_accelerate_is_not_called_through_the_copy(
    model_of: Callable[..., Any], tokenizer: Any
) -> None:
    model = model_of(tokenizer)

    def wrapped(*_: Any, **__: Any) -> Any:
        raise AssertionError("the original was called")

    model.forward = wrapped
    assert logits(from_memory(model, tokenizer, name="mine").model).isfinite().all()


def test_nan_is_found_and_its_tensor_named(
    model_of: Callable[..., Any], tokenizer: Any, saved: Callable[..., Path], tmp_path: Path
) -> None:
    model = model_of(tokenizer)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    with pytest.raises(
        ExportError, match=r"weight model\.layers\.1\.mlp\.up_proj\.weight holds NaN"
    ):
        load(resolve(saved(model, tmp_path)))


def test_nan_in_an_adapter_is_the_adapters(adapter: Callable[[Path], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = adapter(tmp_path)
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    weights[name][0, 0] = float("inf")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=f"adapter .*weight {name} holds infinity"):
        load(resolve(folder))


@pytest.mark.parametrize(
    "other", [{"hidden_size": 128}, {"num_hidden_layers": 1}], ids=["other width", "fewer layers"]
)
def test_an_adapter_of_another_base_is_refused(
    other: dict[str, Any],
    *,
    adapter: Callable[[Path], Path],
    model_of: Callable[..., Any],
    saved: Callable[..., Path],
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    folder = adapter(tmp_path)
    saved(model_of(tokenizer, **other), tmp_path / "base")
    with pytest.raises(ExportError, match=r"was trained on another model than .*base"):
        load(resolve(folder))


def test_weights_that_the_config_asks_for_may_not_be_missing(
    model_of: Callable[..., Any], tokenizer: Any, saved: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    saved(model_of(tokenizer), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"lacks weights: model\.norm\.weight"):
        load(resolve(tmp_path))


def test_a_model_without_tokenizer_is_refused(
    model_of: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    model_of(tokenizer).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="there is no tokenizer in"):
        load(resolve(tmp_path))


def test_a_tokenizer_larger_than_the_model_is_refused(
    model_of: Callable[..., Any], tokenizer: Any
) -> None:
    with pytest.raises(ExportError, match="has 259 tokens, its model only 200"):
        from_memory(model_of(tokenizer, vocab_size=200, pad_token_id=0), tokenizer, name="mine")


def test_the_tokenizers_end_of_turn_ends_answers(
    model_of: Callable[..., Any], tokenizer: Any
) -> None:
    model = model_of(tokenizer)
    model.generation_config.eos_token_id = tokenizer.pad_token_id
    merged = from_memory(model, tokenizer, name="mine")
    assert merged.model.generation_config.eos_token_id == [
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    ]
