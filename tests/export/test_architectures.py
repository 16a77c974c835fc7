"""Every architecture is exported right, or refused in one true line before weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from risen_export.backends import classes, genai, genai_support
from risen_export.backends.builder import ModelBuilder
from risen_export.backends.genai_support import refusal
from risen_export.bundles.variants import variants
from risen_plugin.errors import ExportError
from tests.export.architectures import (
    ARCHITECTURES,
    BY_NAME,
    LONG_ROPE,
    MIX,
    SWITCH,
    Architecture,
    config_of,
    model_of,
    rows,
)
from tests.export.parity import differences, engine_difference

FP32_TOLERANCE = 1e-3
UNFIT = {
    "llama-rope-longrope": "rope of type longrope",
    "phimoe": "CUDA in int4 alone",
    "granite4-mamba": "linear_attention layers",
}
"""Models of classes that the builder knows, and what it does not make of them."""

BUILT = [
    one
    for one in ARCHITECTURES
    if config_of(one).architectures[0] in genai_support.SUPPORTED and one.name not in UNFIT
]
OTHERS = [one for one in ARCHITECTURES if one not in BUILT]


def built(architecture: Architecture, tokenizer: Any, folder: Path, precision: str) -> Any:
    """The model, its graph in ``folder``."""
    model = model_of(architecture).float()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (variant,) = variants(("cpu",), (precision,))
    genai.build(
        folder / "model",
        folder / precision,
        variant,
        cache=folder / "cache",
        tied=model.config.tie_word_embeddings,
    )
    return model


def test_there_are_many_and_each_is_listed_once() -> None:
    assert len(BY_NAME) == len(ARCHITECTURES)
    assert len({one.kind for one in BUILT}) >= 19
    assert len({one.kind for one in ARCHITECTURES}) >= 40


@pytest.mark.slow
@pytest.mark.parametrize("architecture", BUILT, ids=lambda one: str(one.name))
def test_an_fp32_graph_is_the_model_past_every_change_of_its_arithmetic(
    architecture: Architecture, tokenizer: Any, tmp_path: Path
) -> None:
    model = built(architecture, tokenizer, tmp_path, "fp32")
    apart = differences(tmp_path / "fp32", model, rows())
    assert max(apart.values()) <= FP32_TOLERANCE, apart
    assert engine_difference(tmp_path / "fp32", model, rows()) <= FP32_TOLERANCE


@pytest.mark.parametrize("architecture", OTHERS, ids=lambda one: str(one.name))
def test_what_is_not_built_right_is_refused_with_the_reason(architecture: Architecture) -> None:
    reason = refusal(config_of(architecture).to_dict())
    assert reason is not None
    assert UNFIT.get(architecture.name, "does not build it") in reason


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("llama", {"head_dim": 24}, "heads of a multiple of 16, not 24"),
        ("hunyuan", {"head_dim": 20}, "heads of a multiple of 8, not 20"),
        ("llama", {"hidden_act": "quick_gelu"}, "activation quick_gelu"),
        ("llama", {"intermediate_size": 288}, "as large as another layer's output"),
        ("llama", {"hidden_size": 288, "head_dim": 16}, "as large as another layer's output"),
        ("phi3", {"intermediate_size": 144}, "as large as another layer's output"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm"),
        ("phi", {"partial_rotary_factor": 0.25}, "rotates a multiple of 16 dimensions, not 8"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("granite4", {"num_local_experts": 4}, "num_local_experts"),
        ("nemotron", {"mlp_bias": True}, "mlp_bias"),
        ("glm", {"partial_rotary_factor": 1.0}, "partial_rotary_factor 1.0 is built as 0.5"),
        ("lfm2", {"conv_bias": True}, "conv_bias"),
        ("lfm2_moe", {"norm_topk_prob": False}, "norm_topk_prob"),
        ("gpt_oss", {"layer_types": MIX[::-1]}, "layer_types"),
        ("qwen3", {"rope_parameters": LONG_ROPE}, "rope of type longrope"),
    ],
)
def test_a_setting_that_the_builder_would_ignore_is_refused_by_name(
    name: str, changes: Mapping[str, Any], said: str
) -> None:
    one = BY_NAME[name]
    assert refusal(config_of(one).to_dict()) is None
    changed = config_of(Architecture(name, one.kind, "", {**one.changes, **changes}))
    reason = refusal(changed.to_dict())
    assert reason is not None
    assert said in reason


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_experts_that_are_quantized_from_another_checkpoint_are_exported_in_fp32_alone(
    precision: str,
) -> None:
    config = config_of(BY_NAME["gpt_oss"]).to_dict()
    assert refusal(config) is None
    assert "export it in fp32" in str(refusal(config, precision=precision))


def test_int4_is_refused_where_a_block_of_weights_is_left_over() -> None:
    odd, even = (
        config_of(Architecture("", "llama", "", {"intermediate_size": size})).to_dict()
        for size in (96, 128)
    )
    for precision in ("int4", "int4-fast", "int4-mixed", "int4-kquant"):
        assert refusal(even, "cpu", precision) is None
        assert "even number of blocks of 32, not 96" in str(refusal(odd, "cpu", precision))
    for precision in ("int8", "int8-fine", "int4-128", "fp32"):
        assert refusal(odd, "cpu", precision) is None
    tied = config_of(Architecture("", "gemma", "", {**BY_NAME["gemma"].changes}))
    tied.intermediate_size = 128
    assert "tied embedding of a multiple of 32, not 48" in str(
        refusal(tied.to_dict(), "cpu", "int4-mixed")
    )
    assert refusal(tied.to_dict(), "cpu", "int4") is None


def test_a_file_of_another_release_is_read_with_the_defaults_of_its_class() -> None:
    older = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "rope_theta": 5e5,
        "rope_scaling": {"type": "linear", "factor": 2.0},
    }
    rope = classes.whole(older)["rope_parameters"]
    assert (rope["rope_type"], rope["rope_theta"], rope["factor"]) == ("linear", 5e5, 2.0)
    assert ModelBuilder().refuses(classes.whole(older), "cpu", "fp32") is None


def test_infinity_in_a_configuration_is_read_and_written_as_json(
    tokenizer: Any, tmp_path: Path
) -> None:
    from risen_export.merging import merge, saving

    model = model_of(BY_NAME["granite4"])
    assert model.config.time_step_limit[1] == float("inf")
    saving.save(merge.from_memory(model, tokenizer, name="mine"), tmp_path / "model")
    for place in (".", "client"):
        text = (tmp_path / "model" / place / "config.json").read_text()
        written = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        assert classes.whole(written)["time_step_limit"][1] == float("inf")


def test_remote_code_is_refused_as_such() -> None:
    for name in ("InternLM2ForCausalLM", "ChatGLMModel"):
        assert "not part of transformers" in str(refusal({"architectures": [name]}))


def test_the_builder_itself_refuses_what_got_past_the_first_check(
    tokenizer: Any, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="linear_attention layers"):
        built(BY_NAME["granite4-mamba"], tokenizer, tmp_path, "fp32")
    assert not (tmp_path / "fp32").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma2", "granite", "qwen2"])
def test_a_tied_embedding_is_stored_once_in_int8_whatever_follows_the_output_layer(
    name: str, tokenizer: Any, tmp_path: Path
) -> None:
    import onnx

    one = BY_NAME[name]
    in_blocks = Architecture(name, one.kind, "", {**one.changes, "hidden_size": 64})
    model = built(in_blocks, tokenizer, tmp_path, "int8")
    graph = onnx.load(str(tmp_path / "int8" / "model.onnx"), load_external_data=False).graph
    size = [model.config.vocab_size, model.config.hidden_size]
    assert [tensor.name for tensor in graph.initializer if list(tensor.dims) == size] == []


@pytest.mark.slow
def test_a_short_prompt_is_answered_alike_beside_a_long_one_and_past_the_switch(
    tokenizer: Any, tmp_path: Path
) -> None:
    import torch

    from risen_export import export

    model = model_of(BY_NAME["phi3-longrope"])
    long, _, short, middle = rows()
    prompts = [long, short, middle]
    export(
        "in memory", tmp_path / "out", model=model, tokenizer=tokenizer, check=False, progress=False
    )
    from risen_export import Bundle

    bundle = Bundle.open(tmp_path / "out")
    together = bundle.generate_ids(prompts, max_new_tokens=SWITCH, ignore_eos=True)
    for prompt, answer in zip(prompts, together, strict=True):
        alone = bundle.generate_ids([prompt], max_new_tokens=SWITCH, ignore_eos=True)[0]
        expected = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            min_new_tokens=SWITCH,
            max_new_tokens=SWITCH,
        )[0, len(prompt) :].tolist()
        assert answer == alone == expected
