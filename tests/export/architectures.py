"""Tiny random models of the architectures that people fine-tune, as data.

The longest of :func:`rows` is longer than each length at which the arithmetic of one changes (a
window, a switch of the rotary table). Every parameter is drawn, biases and norms too: those begin
at 0 and 1, and a graph without them would pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VOCABULARY = 288
CONTEXT = 128
WINDOW = 8
SWITCH = 16
"""Tokens after which a scaled rotary table (longrope) changes."""
LENGTHS = (40, 27, 5, 13)
"""Tokens of the rows: more than window and switch, less than them, and between."""

SIZES: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.15,
    "rms_norm_eps": 0.05,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 258,
    "pad_token_id": 256,
}
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
DYNAMIC_ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.05 * n for n in range(8)],
    "long_factor": [1.5 + 0.5 * n for n in range(8)],
    "original_max_position_embeddings": SWITCH,
}
BY_LAYER_ROPE = {
    "full_attention": {"rope_type": "default", "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
MIX = ["sliding_attention", "full_attention"]
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}


@dataclass(frozen=True)
class Architecture:
    """One tiny model.

    :param name: its name in tables.
    :param kind: transformers' model type.
    :param changes: fields of the configuration beside :data:`SIZES`; None as a value leaves out a
        field of those.
    :param shows: what it has that others have not.
    :param dtype: type of the weights as they are saved.
    """

    name: str
    kind: str
    shows: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"


def _of(
    name: str, kind: str, shows: str, /, dtype: str = "float32", **changes: Any
) -> Architecture:
    return Architecture(name, kind, shows, changes, dtype)


ARCHITECTURES: tuple[Architecture, ...] = (
    # Architectures of onnxruntime-genai's model builder.
    _of("llama", "llama", "untied, grouped keys"),
    _of("llama-tied", "llama", "tied, biases", tie_word_embeddings=True, attention_bias=True,
        mlp_bias=True),
    _of("llama-bf16", "llama", "weights in bf16", "bfloat16"),
    _of("llama-heads", "llama", "head size apart, as many keys", head_dim=32,
        num_key_value_heads=4),
    _of("llama-one-key", "llama", "one key head", num_key_value_heads=1),
    _of("llama-rope-llama3", "llama", "llama3 rope", rope_parameters=LLAMA3_ROPE),
    _of("llama-rope-linear", "llama", "linear rope", rope_parameters=LINEAR_ROPE),
    _of("llama-rope-dynamic", "llama", "dynamic rope", rope_parameters=DYNAMIC_ROPE),
    _of("llama-rope-yarn", "llama", "yarn rope without betas", rope_parameters=YARN_ROPE),
    _of("llama-rope-longrope", "llama", "longrope", rope_parameters=LONG_ROPE),
    _of("llama-window", "llama", "a window that its class does not read", sliding_window=WINDOW),
    _of("mistral", "mistral", "window in every layer", sliding_window=WINDOW),
    _of("mistral-no-window", "mistral", "no window", sliding_window=None),
    _of("ministral", "ministral", "window in some layers", sliding_window=WINDOW,
        layer_types=MIX, head_dim=16, rope_parameters=DEFAULT_ROPE),
    _of("ministral3", "ministral3", "yarn, queries scaled by position", head_dim=16,
        sliding_window=None,
        rope_parameters={**YARN_ROPE, "llama_4_scaling_beta": 0.1, "beta_fast": 32.0,
                         "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}),
    _of("qwen2", "qwen2", "biases of queries, keys, values", tie_word_embeddings=True),
    _of("qwen2-window", "qwen2", "window in the upper layers", use_sliding_window=True,
        sliding_window=WINDOW, max_window_layers=1),
    _of("qwen2-rope-yarn", "qwen2", "yarn rope without betas", rope_parameters=YARN_ROPE),
    _of("qwen3", "qwen3", "norms of queries and keys, head size apart", head_dim=32),
    _of("qwen3-rope-yarn", "qwen3", "yarn rope", head_dim=32, rope_parameters=YARN_ROPE),
    _of("qwen3_5", "qwen3_5_text", "linear attention", head_dim=16,
        layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16),
    _of("gemma", "gemma", "scaled embedding, tied", hidden_size=48, head_dim=16,
        tie_word_embeddings=True),
    _of("gemma-window", "gemma", "a window that its class does not read", head_dim=16,
        tie_word_embeddings=True, sliding_window=WINDOW),
    _of("gemma2", "gemma2", "soft caps, window in some layers", hidden_size=48,
        head_dim=16, sliding_window=WINDOW, query_pre_attn_scalar=24, attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0, tie_word_embeddings=True),
    _of("gemma3", "gemma3_text", "two rotary tables, window in some layers", hidden_size=48,
        head_dim=16, sliding_window=WINDOW, query_pre_attn_scalar=24, layer_types=MIX,
        rope_parameters=BY_LAYER_ROPE, tie_word_embeddings=True),
    _of("gemma3-rope-linear", "gemma3_text", "linear rope in full layers", head_dim=16,
        sliding_window=WINDOW, query_pre_attn_scalar=24, layer_types=MIX,
        rope_parameters={"full_attention": {"rope_type": "linear", "rope_theta": 1e6,
                                            "factor": 8.0},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
        tie_word_embeddings=True),
    _of("gemma4", "gemma4_text", "two head sizes, shared keys", head_dim=16, global_head_dim=32,
        sliding_window=WINDOW, layer_types=MIX, vocab_size_per_layer_input=VOCABULARY,
        hidden_size_per_layer_input=8, num_kv_shared_layers=0, tie_word_embeddings=True),
    _of("phi", "phi", "partial rotary, biases, layer norms", num_attention_heads=2,
        partial_rotary_factor=0.5, layer_norm_eps=0.05),
    _of("phi3", "phi3", "fused projections, window", sliding_window=WINDOW,
        original_max_position_embeddings=CONTEXT),
    _of("phi3-partial", "phi3", "partial rotary", sliding_window=None,
        partial_rotary_factor=0.5, head_dim=32, original_max_position_embeddings=CONTEXT,
        rope_parameters={**DEFAULT_ROPE, "partial_rotary_factor": 0.5}),
    _of("phi3-longrope", "phi3", "longrope", sliding_window=None, rope_parameters=LONG_ROPE,
        original_max_position_embeddings=SWITCH),
    _of("phimoe", "phimoe", "experts", **EXPERTS, sliding_window=None,
        rope_parameters=DEFAULT_ROPE),
    _of("smollm3", "smollm3", "every fourth layer without rope", num_hidden_layers=4),
    _of("smollm3-window", "smollm3", "no rope in some layers, window in some",
        num_hidden_layers=4, use_sliding_window=True, sliding_window=WINDOW,
        no_rope_layers=[1, 0, 1, 1],
        layer_types=["sliding_attention", "full_attention", "sliding_attention",
                     "full_attention"]),
    _of("granite", "granite", "four multipliers, tied", embedding_multiplier=3.0,
        attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=2.5,
        tie_word_embeddings=True),
    _of("granite-window", "granite", "a window that its class does not read",
        sliding_window=WINDOW),
    _of("granite4", "granitemoehybrid", "attention alone, no rope", embedding_multiplier=3.0,
        attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=2.5,
        layer_types=["attention", "attention"], num_local_experts=0, shared_intermediate_size=96),
    _of("granite4-rope", "granitemoehybrid", "attention alone, rope", embedding_multiplier=3.0,
        attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=2.5,
        layer_types=["attention", "attention"], num_local_experts=0, shared_intermediate_size=96,
        position_embedding_type="rope"),
    _of("granite4-mamba", "granitemoehybrid", "state-space layers", mamba_n_heads=4,
        mamba_d_head=32, mamba_d_state=8, mamba_n_groups=1,
        layer_types=["mamba", "attention"], num_local_experts=0, shared_intermediate_size=96),
    _of("olmo", "olmo", "norms without weights"),
    _of("olmo-clip", "olmo", "queries, keys, values clipped", clip_qkv=0.5),
    _of("nemotron", "nemotron", "squared ReLU, partial rotary, layer norms",
        partial_rotary_factor=0.5, head_dim=32, norm_eps=0.05),
    _of("ernie", "ernie4_5", "interleaved rotary, biases", use_bias=True, head_dim=16),
    _of("ernie-window", "ernie4_5", "a window that its class does not read",
        head_dim=16, sliding_window=WINDOW),
    _of("hunyuan", "hunyuan_v1_dense", "norms after rope", head_dim=16,
        rope_parameters=DEFAULT_ROPE),
    _of("hunyuan-window", "hunyuan_v1_dense", "a window that its class does not read",
        head_dim=16, rope_parameters=DEFAULT_ROPE, sliding_window=WINDOW),
    _of("hunyuan-rope-dynamic", "hunyuan_v1_dense", "dynamic rope with alpha", head_dim=16,
        rope_parameters={**DYNAMIC_ROPE, "alpha": 50.0, "factor": 1.0}),
    _of("lfm2", "lfm2", "short convolutions", layer_types=["conv", "full_attention"],
        norm_eps=0.05, tie_word_embeddings=True),
    _of("lfm2_moe", "lfm2_moe", "short convolutions and experts", **EXPERTS,
        layer_types=["conv", "full_attention"], moe_intermediate_size=32, num_dense_layers=1,
        norm_eps=0.05, tie_word_embeddings=True),
    _of("gpt_oss", "gpt_oss", "sinks, experts, yarn, window in some layers", **EXPERTS,
        head_dim=16, sliding_window=WINDOW, layer_types=MIX,
        rope_parameters={**YARN_ROPE, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}),
    # Architectures that the builder takes for others of the same arithmetic.
    _of("glm", "glm", "interleaved partial rotary, biases", head_dim=32, attention_bias=True,
        partial_rotary_factor=0.5),
    _of("helium", "helium", "interleaved rotary", head_dim=16),
    _of("seed_oss", "seed_oss", "biases, head size apart", head_dim=32, attention_bias=True,
        attention_out_bias=True),
    _of("cwm", "cwm", "window in some layers", head_dim=16, sliding_window=WINDOW,
        layer_types=MIX, bos_token_id=257, rope_parameters=LLAMA3_ROPE),
    # Architectures that the builder does not know.
    _of("gpt2", "gpt2", "learned positions", n_embd=64, n_inner=96, n_layer=2, n_head=4,
        n_positions=CONTEXT, tie_word_embeddings=True),
    _of("gpt_neo", "gpt_neo", "local attention", num_layers=2, num_heads=4,
        attention_types=[[["global", "local"], 1]], window_size=WINDOW),
    _of("gpt_neox", "gpt_neox", "parallel blocks, partial rotary"),
    _of("gptj", "gptj", "interleaved partial rotary", n_embd=64, n_inner=96, n_layer=2, n_head=4,
        n_positions=CONTEXT, rotary_dim=8),
    _of("gpt_bigcode", "gpt_bigcode", "one key head, learned positions", n_embd=64, n_inner=96,
        n_layer=2, n_head=4, n_positions=CONTEXT),
    _of("starcoder2", "starcoder2", "biases, layer norms, window", sliding_window=WINDOW,
        use_bias=True),
    _of("falcon", "falcon", "one key head, parallel blocks", ffn_hidden_size=96,
        num_ln_in_parallel_attn=1, bias=True),
    _of("bloom", "bloom", "alibi", n_layer=2, n_head=4),
    _of("mpt", "mpt", "alibi", d_model=64, n_layers=2, n_heads=4, max_seq_len=CONTEXT),
    _of("stablelm", "stablelm", "partial rotary, layer norms", partial_rotary_factor=0.25,
        use_qkv_bias=True),
    _of("cohere", "cohere", "logit scale, interleaved rotary", logit_scale=0.25,
        tie_word_embeddings=True),
    _of("cohere2", "cohere2", "window in some layers", logit_scale=0.25, head_dim=16,
        sliding_window=WINDOW, layer_types=MIX, tie_word_embeddings=True),
    _of("opt", "opt", "learned positions with an offset", ffn_dim=96, word_embed_proj_dim=64),
    _of("olmo2", "olmo2", "norms after the blocks"),
    _of("olmo3", "olmo3", "window in some layers", sliding_window=WINDOW, layer_types=MIX),
    _of("glm4", "glm4", "four norms a layer", head_dim=16),
    _of("exaone4", "exaone4", "window in some layers, no rope in full ones",
        sliding_window=WINDOW, layer_types=MIX),
    _of("arcee", "arcee", "squared ReLU"),
    _of("apertus", "apertus", "xIELU"),
    _of("qwen2_moe", "qwen2_moe", "shared experts", **EXPERTS, moe_intermediate_size=32,
        shared_expert_intermediate_size=32),
    _of("qwen3_moe", "qwen3_moe", "experts", **EXPERTS, moe_intermediate_size=32, head_dim=16),
    _of("mixtral", "mixtral", "experts, window", **EXPERTS, sliding_window=WINDOW),
    _of("granitemoe", "granitemoe", "experts, multipliers", **EXPERTS, embedding_multiplier=3.0,
        attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=2.5),
    _of("deepseek_v3", "deepseek_v3", "latent attention, experts", num_key_value_heads=4,
        q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
        n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
        moe_intermediate_size=32, first_k_dense_replace=1),
)  # fmt: skip
"""All of them; names are unique."""

BY_NAME: Mapping[str, Architecture] = {one.name: one for one in ARCHITECTURES}


def config_of(architecture: Architecture) -> Any:
    """The configuration of a tiny model, with the name of its class."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = AutoConfig.for_model(architecture.kind, **{**SIZES, **architecture.changes})
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[architecture.kind]]
    return config


def model_of(architecture: Architecture, seed: int = 0) -> Any:
    """A model with every parameter drawn from ``seed``, in the type of the architecture."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config_of(architecture)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            # Parameters alone: buffers, as the rotary frequencies, are no weights.
            parameter.data = parameter.data.to(getattr(torch, architecture.dtype))
    return model


def rows(seed: int = 0) -> list[list[int]]:
    """Token ids of :data:`LENGTHS`, letters alone."""
    import numpy as np

    random = np.random.default_rng(seed)
    return [random.integers(1, 250, length).tolist() for length in LENGTHS]
