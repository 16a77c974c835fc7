"""What onnxruntime-genai's model builder makes a right graph of, as a table of facts.

Pure: a configuration in, a reason against it out, before any weight is loaded. Each fact was seen
with onnxruntime-genai 0.18 on a tiny model (``python -m benchmarks.exported_architectures``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from risen_export.bundles.variants import PRECISIONS

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Support:
    """How the builder takes one class of transformers, and how its graph is mended.

    :param windows: the class has layers that look back a window only.
    :param epsilon: the field with the epsilon of its norms, or the number that the class has
        fixed; None if it is ``rms_norm_eps``.
    :param builds_as: the class that the builder takes it for, where it does not know its own.
    :param needs_yarn: the builder makes tables for YaRN alone.
    :param two_tables: full and sliding layers rotate differently.
    :param centred_norms: its norms subtract the mean, and the builder's do not.
    :param scaled_embedding: embeddings are multiplied by the root of their size.
    :param rope_is_asked_for: it rotates only if ``position_embedding_type`` says so.
    :param rotates_apart: the graph rotates outside of the attention, in any number of dimensions.
    :param longrope: the graph has the tables of both sides of the switch.
    :param fused: its class has one matrix for queries, keys and values, or for gate and up.
    :param rotated_share: the only share of a head's dimensions that the builder rotates.
    :param no_integers: why int8 and int4 are not built; None if they are.
    """

    windows: bool = False
    epsilon: str | float | None = None
    builds_as: str | None = None
    needs_yarn: bool = False
    two_tables: bool = False
    centred_norms: bool = False
    scaled_embedding: bool = False
    rope_is_asked_for: bool = False
    rotates_apart: bool = False
    longrope: bool = False
    fused: bool = False
    rotated_share: float | None = None
    no_integers: str | None = None


SUPPORTED: Mapping[str, Support] = {
    "CwmForCausalLM": Support(windows=True, builds_as="MistralForCausalLM"),
    "Ernie4_5ForCausalLM": Support(),
    "Gemma2ForCausalLM": Support(windows=True, scaled_embedding=True),
    "Gemma3ForCausalLM": Support(windows=True, two_tables=True, scaled_embedding=True),
    "GemmaForCausalLM": Support(scaled_embedding=True),
    "GlmForCausalLM": Support(builds_as="ChatGLMModel", fused=True, rotated_share=0.5),
    "GptOssForCausalLM": Support(
        windows=True,
        needs_yarn=True,
        no_integers="the builder quantizes its experts from the MXFP4 checkpoint alone, which a "
        "merged model does not have",
    ),
    "GraniteForCausalLM": Support(),
    "GraniteMoeHybridForCausalLM": Support(rope_is_asked_for=True, fused=True),
    "HeliumForCausalLM": Support(builds_as="Ernie4_5ForCausalLM"),
    "HunYuanDenseV1ForCausalLM": Support(rotates_apart=True),
    "Lfm2ForCausalLM": Support(),
    "Lfm2MoeForCausalLM": Support(),
    "LlamaForCausalLM": Support(),
    "MinistralForCausalLM": Support(windows=True, builds_as="MistralForCausalLM"),
    "MistralForCausalLM": Support(windows=True),
    "NemotronForCausalLM": Support(epsilon="norm_eps"),
    "OlmoForCausalLM": Support(epsilon=1e-5, centred_norms=True),
    "Phi3ForCausalLM": Support(windows=True, longrope=True, fused=True),
    "PhiForCausalLM": Support(epsilon="layer_norm_eps"),
    "Qwen2ForCausalLM": Support(windows=True),
    "Qwen3ForCausalLM": Support(windows=True),
    "SeedOssForCausalLM": Support(builds_as="LlamaForCausalLM"),
    "SmolLM3ForCausalLM": Support(windows=True),
}
"""Classes of transformers that are built, by name."""

UNFIT: Mapping[str, str] = {
    "PhimoeForCausalLM": "the builder makes it for CUDA in int4 alone",
    "Phi3SmallForCausalLM": "its class is not part of transformers",
    "Phi3VForCausalLM": "its class is not part of transformers",
    "Phi4MMForCausalLM": "its class is not part of transformers",
    "ChatGLMModel": "its class is not part of transformers",
    "ChatGLMForConditionalGeneration": "its class is not part of transformers",
    "InternLM2ForCausalLM": "its class is not part of transformers",
    "VideoChatFlashQwenForCausalLM": "its class is not part of transformers",
}
"""Classes that the builder names, and why no graph of them can be had here."""

_ACTIVATIONS = frozenset(
    ("silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "relu2")
)
_FIXED_ROPES = frozenset(
    ("default", "linear", "dynamic", "yarn", "llama3", "ntk_alpha", "proportional")
)
"""Kinds of rope whose tables are the same for every length up to the context."""


def refusal(config: Config, target: str = "cpu", precision: str = "fp32") -> str | None:
    """Why the builder makes no right graph of such a model; None if it does.

    :param config: the whole configuration, its defaults filled in.
    :param target: where the graph is to run, ``cpu`` or ``cuda``.
    :return: words that go on after the name of the architecture and a colon.
    """
    architecture = config["architectures"][0]
    if architecture in UNFIT:
        return UNFIT[architecture]
    support = SUPPORTED.get(architecture)
    if support is None:
        return "onnxruntime-genai's model builder does not build it"
    if precision.startswith("int") and support.no_integers:
        return f"{support.no_integers}; export it in fp32"
    reasons = [
        *_blocks(config, precision),
        *(why for rule in _RULES for why in rule(config, support)),
    ]
    return reasons[0] if reasons else None


def _blocks(config: Config, precision: str) -> Iterator[str]:
    """The builder packs the zero points of two int4 blocks, and fails on one that is left over."""
    options = PRECISIONS[precision].options
    if PRECISIONS[precision].family != "int4" or options.get("block_size") != "32":
        return
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head = config.get("head_dim") or hidden // heads
    for size in (hidden, heads * head, config.get("intermediate_size") or hidden):
        if -(-size // 32) % 2:
            yield (
                f"{precision} takes sizes of an even number of blocks of 32, not {size}; choose "
                "int8 or int4-128"
            )
    if hidden % 32 and config.get("tie_word_embeddings") and "matmul_mixed_precision" in options:
        yield f"{precision} takes a tied embedding of a multiple of 32, not {hidden}; choose int8"


def _layers(config: Config, support: Support) -> Iterator[str]:
    """Layers that the builder does not make, or takes for others."""
    kinds = set(config.get("layer_types") or ())
    if unknown := kinds & {"mamba", "linear_attention", "chunked_attention"}:
        yield f"{sorted(unknown)[0]} layers are not built"
    if support.needs_yarn and kinds:
        expected = ["sliding_attention", "full_attention"] * len(config["layer_types"])
        if list(config["layer_types"]) != expected[: len(config["layer_types"])]:
            yield "only a window in every other layer, from the first on, is built (layer_types)"
    if "shared_intermediate_size" in config and config.get("num_local_experts"):
        yield "its experts are left out of the graph (num_local_experts)"
    if config.get("norm_topk_prob") is False:
        yield "only experts with norm_topk_prob are built"


def _attention(config: Config, support: Support) -> Iterator[str]:
    """Ways of attending that the builder ignores."""
    if config.get("use_bidirectional_attention") or config.get("is_causal") is False:
        yield "attention to later tokens is not built (use_bidirectional_attention)"
    if config.get("qk_layernorm"):
        yield "norms of queries and keys are left out of its graph (qk_layernorm)"
    step = 8 if support.rotates_apart else 16
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if head % step:
        yield f"onnxruntime's attention takes heads of a multiple of {step}, not {head}"


def _rotation(config: Config, support: Support) -> Iterator[str]:
    """Rope settings without a fixed table, or with dimensions that the attention does not take."""
    found = config.get("rope_parameters") or {}
    kinds = [each for each in found.values() if isinstance(each, Mapping)] or [found]
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for each in kinds:
        kind = each.get("rope_type", "default")
        if kind not in _FIXED_ROPES and not (kind == "longrope" and support.longrope):
            yield f"rope of type {kind} is not built"
        share = each.get("partial_rotary_factor", 1.0)
        if support.rotated_share not in (None, share):
            yield f"partial_rotary_factor {share} is built as {support.rotated_share}"
        rotated = int(head * share)
        if rotated % 16 and not support.rotates_apart:
            yield f"onnxruntime's attention rotates a multiple of 16 dimensions, not {rotated}"


def _convolution(config: Config, support: Support) -> Iterator[str]:
    if config.get("conv_bias"):
        yield "biases of its convolutions are left out of the graph (conv_bias)"


def _feed_forward(config: Config, support: Support) -> Iterator[str]:
    activation = config.get("hidden_act") or config.get("hidden_activation") or "silu"
    if activation not in _ACTIVATIONS:
        yield f"activation {activation} is not built"
    if config["architectures"][0] == "NemotronForCausalLM" and config.get("mlp_bias"):
        yield "biases of its feed-forward layers are left out of the graph (mlp_bias)"


def _vocabulary(config: Config, support: Support) -> Iterator[str]:
    """The builder knows the output layer by its size, and takes another of that size for it."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    keys = config.get("num_key_value_heads") or heads
    head = config.get("head_dim") or hidden // heads
    named = (config.get("intermediate_size"), config.get("shared_intermediate_size"))
    wide = {size for size in named if size}
    sizes = {hidden, heads * head, keys * head} | wide
    if support.fused:
        sizes |= {(heads + 2 * keys) * head} | {2 * size for size in wide}
    if "conv" in (config.get("layer_types") or ()):
        sizes.add(3 * hidden)
    if config["vocab_size"] in sizes:
        yield (
            f"its vocabulary is as large as another layer's output ({config['vocab_size']}), which "
            "the builder takes for the output layer; pad the vocabulary (resize_token_embeddings)"
        )


_RULES: tuple[Callable[[Config, Support], Iterator[str]], ...] = (
    _layers,
    _attention,
    _rotation,
    _convolution,
    _feed_forward,
    _vocabulary,
)
