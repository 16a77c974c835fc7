"""Adapters are folded in exactly; weights that do not fit or are not finite are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from risen_export.merging.merge import from_memory, load
from risen_export.merging.source import resolve
from risen_export.merging.weights import context_length, drop_foreign_keys
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


# Kinds of adapters ---------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True, "lora_alpha": 8},
    "dora": {"use_dora": True},
    "bias": {"bias": "all"},
    "rank pattern": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 5}},
    "embedding": {"target_modules": ["v_proj", "embed_tokens"]},
    "output layer": {"target_modules": ["v_proj", "lm_head"]},
    "saved output layer": {"modules_to_save": ["lm_head"]},
    "saved norm": {"modules_to_save": ["input_layernorm"]},
    "tokens": {"trainable_token_indices": [3, 250]},
}


def lora(**options: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        **{
            "r": 2,
            "target_modules": ["q_proj", "down_proj"],
            "init_lora_weights": False,
            "task_type": "CAUSAL_LM",
            **options,
        }
    )


def wrapped(model: Any, seed: int = 0, **options: Any) -> Any:
    """``model`` with an adapter whose weights are all far from those that it begins with."""
    from peft import get_peft_model

    torch.manual_seed(seed)
    adapted = get_peft_model(model, lora(**options)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                scale = 0.02 if "magnitude" in name else 0.05
                parameter.add_(torch.randn_like(parameter) * scale)
    return adapted


@pytest.mark.parametrize(
    ("kind", "is_tied"),
    [*((kind, True) for kind in KINDS), ("tokens", False), ("embedding", False)],
)
def test_each_kind_of_adapter_is_merged_from_memory_and_from_its_folder(
    kind: str,
    is_tied: bool,
    *,
    model_of: Callable[..., Any],
    saved: Callable[..., Path],
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    from transformers import AutoModelForCausalLM

    base = saved(model_of(tokenizer, tied=is_tied), tmp_path / "base")
    model = wrapped(AutoModelForCausalLM.from_pretrained(base), **KINDS[kind])
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter")
    assert (expected - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max() > 0.01
    for merged in (
        from_memory(model, tokenizer, name="mine"),
        load(resolve(tmp_path / "adapter")),
    ):
        torch.testing.assert_close(logits(merged.model), expected, atol=TOLERANCE, rtol=0)
        measured = merged.provenance["merged_adapters"][0]["merged_against_adapter"]
        assert measured["max_logit_diff"] < TOLERANCE
        assert (measured["argmax_agreement"], measured["tokens"]) == (1.0, 48)


@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"trainable_token_indices": [288, 289]},
        {},
    ],
    ids=str,
)
def test_new_tokens_come_with_whatever_adapter_holds_them(
    options: dict[str, Any],
    *,
    model_of: Callable[..., Any],
    saved: Callable[..., Path],
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    import copy

    from transformers import AutoModelForCausalLM

    base = saved(model_of(tokenizer), tmp_path / "base")
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens([f"<new-{index}>" for index in range(290 - len(tokenizer))])
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(290, mean_resizing=False)
    model = wrapped(model, **options)
    model.save_pretrained(tmp_path / "adapter")
    larger.save_pretrained(tmp_path / "adapter")
    merged = load(resolve(tmp_path / "adapter"))
    newest = torch.arange(270, 290)[None]
    with torch.no_grad():
        expected = model(input_ids=newest).logits
        ours = merged.model(input_ids=newest).logits
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    assert len(merged.tokenizer) == 290


def test_new_tokens_without_weights_are_refused_by_their_number(
    model_of: Callable[..., Any], saved: Callable[..., Path], tokenizer: Any, tmp_path: Path
) -> None:
    import copy

    from transformers import AutoModelForCausalLM

    base = saved(model_of(tokenizer), tmp_path / "base")
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens([f"<new-{index}>" for index in range(290 - len(tokenizer))])
    model = wrapped(AutoModelForCausalLM.from_pretrained(base))
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    larger.save_pretrained(tmp_path / "adapter")
    said = r"brings 2 tokens that its base does not have, and no weights for token 288.*save_embed"
    with pytest.raises(ExportError, match=said):
        load(resolve(tmp_path / "adapter"))


def test_a_bias_of_an_adapter_becomes_the_layers_own(
    model_of: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    model = wrapped(model_of(tokenizer, "Llama"), lora_bias=True, target_modules=["q_proj"])
    expected = logits(model)
    merged = from_memory(model, tokenizer, name="mine").model
    torch.testing.assert_close(logits(merged), expected, atol=TOLERANCE, rtol=0)
    assert merged.config.attention_bias
    merged.save_pretrained(tmp_path)
    loaded = type(merged).from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded), expected, atol=TOLERANCE, rtol=0)


def test_a_bias_where_the_architecture_has_none_is_refused(
    model_of: Callable[..., Any], tokenizer: Any
) -> None:
    model = wrapped(model_of(tokenizer), lora_bias=True, target_modules=["o_proj"])
    said = r"trained with lora_bias on model\.layers\.0\.self_attn\.o_proj, which has no bias in Qw"
    with pytest.raises(ExportError, match=said):
        from_memory(model, tokenizer, name="mine")


# Several adapters ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kinds", [("lora", "lora"), ("dora", "lora"), ("lora", "dora"), ("dora", "dora")], ids=" ".join
)
def test_adapters_that_answer_together_are_merged_together(
    kinds: tuple[str, str], model_of: Callable[..., Any], tokenizer: Any
) -> None:
    """DoRA scales by the norm of the base's weights, not by that of what others made of them."""
    if kinds[1] == "dora":
        pytest.importorskip("peft", "0.21", reason="its DoRA takes the norm of merged weights")
    model = wrapped(model_of(tokenizer), **KINDS[kinds[0]])
    model.add_adapter("second", lora(target_modules=["q_proj", "v_proj"], **KINDS[kinds[1]]))
    model.base_model.set_adapter(["default", "second"])
    model.eval()
    expected = logits(model)
    merged = from_memory(model, tokenizer, name="mine")
    torch.testing.assert_close(logits(merged.model), expected, atol=TOLERANCE, rtol=0)
    one, two = merged.provenance["merged_adapters"]
    assert (one["name"], two["name"]) == ("default", "second")
    assert one["relative_change"].keys() != two["relative_change"].keys()


def test_the_active_adapter_alone_is_merged(model_of: Callable[..., Any], tokenizer: Any) -> None:
    model = wrapped(model_of(tokenizer))
    model.add_adapter("second", lora(target_modules=["v_proj"]))
    for active in ("default", "second"):
        model.set_adapter(active)
        model.eval()
        merged = from_memory(model, tokenizer, name="mine")
        torch.testing.assert_close(logits(merged.model), logits(model), atol=TOLERANCE, rtol=0)
        assert [one["name"] for one in merged.provenance["merged_adapters"]] == [active]


def test_a_model_that_holds_its_adapter_itself_is_merged(
    model_of: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    model = model_of(tokenizer)
    model.add_adapter(lora(use_dora=True, modules_to_save=["lm_head"]))
    expected = logits(model.eval())
    merged = from_memory(model, tokenizer, name="mine").model
    torch.testing.assert_close(logits(merged), expected, atol=TOLERANCE, rtol=0)
    merged.save_pretrained(tmp_path)  # nothing of it takes the model for an adapter
    loaded = type(merged).from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded), expected, atol=TOLERANCE, rtol=0)


def stack(folder: Path, base: Any, *, merged: bool) -> tuple[Any, list[Path]]:
    """Two DoRA adapters, the second trained on the base with the first merged; what they answer.

    :param merged: whether the second one names the first as its base, as if nothing was merged.
    """
    from transformers import AutoModelForCausalLM

    model = wrapped(AutoModelForCausalLM.from_pretrained(base), 1, use_dora=True)
    model.save_pretrained(folder / "one")
    second = wrapped(model.merge_and_unload(), 2, use_dora=True)
    second.peft_config["default"].base_model_name_or_path = str(base if merged else folder / "one")
    second.save_pretrained(folder / "two")
    return second, [folder / "one", folder / "two"]


@pytest.mark.parametrize("form", ["named", "given"])
def test_stacked_adapters_are_merged_from_the_innermost_outwards(
    form: str,
    *,
    model_of: Callable[..., Any],
    saved: Callable[..., Path],
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    base = saved(model_of(tokenizer), tmp_path / "base")
    model, (one, two) = stack(tmp_path, base, merged=form == "given")
    found = resolve(two) if form == "named" else resolve(base, adapters=[one, two])
    assert (found.model, found.adapters) == (str(base), (str(one), str(two)))
    merged = load(found)
    torch.testing.assert_close(logits(merged.model), logits(model), atol=TOLERANCE, rtol=0)
    assert [entry["name"] for entry in merged.provenance["merged_adapters"]] == ["one", "two"]
    reversed_order = load(resolve(base, adapters=[two, one])).model
    assert (logits(reversed_order) - logits(model)).abs().max() > TOLERANCE


def test_what_an_adapter_changed_is_reported_for_each_module(
    adapter: Callable[[Path], Path], tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM

    folder = adapter(tmp_path)
    [entry] = load(resolve(folder)).provenance["merged_adapters"]
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    name = "model.layers.1.mlp.down_proj"
    layer = model.get_submodule(f"base_model.model.{name}")
    expected = layer.get_delta_weight("default").norm() / layer.get_base_layer().weight.norm()
    assert entry["relative_change"][name] == pytest.approx(float(expected), rel=1e-3)
    assert len(entry["relative_change"]) == 4
    largest = max(entry["relative_change"], key=entry["relative_change"].__getitem__)
    assert entry["largest_change"] == largest
    assert str(tmp_path) not in str(entry)


def test_an_adapter_that_no_weights_can_hold_is_refused(
    model_of: Callable[..., Any], tokenizer: Any
) -> None:
    model = wrapped(model_of(tokenizer))
    for module in model.modules():
        if hasattr(module, "get_delta_weight"):
            module.scaling["default"] = 2.0
            honest = module.forward
            module.forward = lambda x, honest=honest: torch.tanh(honest(x))
    from risen_export.merging.fold import fold

    with pytest.raises(ExportError, match="merging the adapter of mine changes its answers"):
        fold(model, "mine")


# Weights and what the configuration says of them ---------------------------------------------


def test_a_model_cast_as_a_whole_gets_its_rotary_frequencies_back(
    model_of: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    for cast in ("bfloat16", "half"):
        model = getattr(model_of(tokenizer), cast)()
        merged = from_memory(model, tokenizer, name="mine").model
        merged.save_pretrained(tmp_path / cast)
        fresh = type(merged).from_pretrained(tmp_path / cast)
        ours, theirs = merged.model.rotary_emb.inv_freq, fresh.model.rotary_emb.inv_freq
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, model.model.rotary_emb.inv_freq.float())
        assert torch.equal(logits(merged), logits(fresh))


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_two_matrices_under_a_tied_flag_stay_two(
    place: str,
    *,
    model_of: Callable[..., Any],
    saved: Callable[..., Path],
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    import json

    model = model_of(tokenizer, tied=False)
    expected = logits(model)
    saved(model, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": True}))
    model.config.tie_word_embeddings = True
    merged = (
        load(resolve(tmp_path)) if place == "folder" else from_memory(model, tokenizer, name="mine")
    )
    assert not merged.model.config.tie_word_embeddings
    torch.testing.assert_close(logits(merged.model), expected, atol=TOLERANCE, rtol=0)


def test_one_matrix_under_an_untied_flag_is_said_to_be_tied(
    model_of: Callable[..., Any], tokenizer: Any
) -> None:
    model = model_of(tokenizer, tied=False)
    model.lm_head.weight = model.model.embed_tokens.weight
    merged = from_memory(model, tokenizer, name="mine").model
    assert merged.config.tie_word_embeddings
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert not model.config.tie_word_embeddings


def test_keys_of_other_programs_leave_the_configuration(
    model_of: Callable[..., Any], tokenizer: Any, saved: Callable[..., Path], tmp_path: Path
) -> None:
    import json

    model = model_of(tokenizer, "Llama")
    saved(model, tmp_path)
    path = tmp_path / "config.json"
    foreign = {"seq_length": 64, "sliding_window": 8, "ffn_hidden_size": 7, "n_ctx": 9}
    path.write_text(json.dumps({**json.loads(path.read_text()), **foreign}))
    merged = load(resolve(tmp_path))
    assert not set(foreign) & set(merged.model.config.to_dict())
    assert merged.provenance["model"]["ignored_config_keys"] == sorted(foreign)
    assert context_length(merged.model.config) == 256


def test_what_a_configuration_derives_from_its_fields_is_its_own() -> None:
    from transformers import DeepseekV3Config, GPTNeoConfig

    for config in (GPTNeoConfig(), DeepseekV3Config()):
        assert drop_foreign_keys(config) == ()
    assert GPTNeoConfig().attention_layers


def test_the_context_has_many_names() -> None:
    from transformers import BloomConfig, GPT2Config, LlamaConfig

    assert context_length(GPT2Config(n_positions=77)) == 77
    assert context_length(LlamaConfig(max_position_embeddings=33)) == 33
    assert context_length(BloomConfig()) is None
