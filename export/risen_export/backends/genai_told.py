"""What the model builder is told of a configuration, so that its graph is that of the class.

The builder reads fields by their names, whether or not the model's class reads them, and takes
others for what they are in the class it was written for. Pure: a configuration as plain values in,
what has to be other in it out. Tables of the rotary embedding are written afterwards (``rotary``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from risen_export.backends.genai_support import SUPPORTED, Support

GONE = object()
"""The value of a field that the builder must not find."""
_PLAIN: Mapping[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
"""Rope settings that the builder takes from every class; its tables are then overwritten."""
_LEAST_WIDTH = 16
"""Rotated dimensions of the tables of a model that rotates nothing, which are then not used."""
READ_UNASKED = (
    "attn_logit_softcapping",
    "compression_ratio",
    "ffn_hidden_size",
    "final_logit_softcapping",
    "hidden_activation",
    "layer_types",
    "moe_intermediate_size",
    "multi_query_group_num",
    "num_experts",
    "num_experts_per_tok",
    "num_local_experts",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "peft_type",
    "quantization_config",
    "rms_norm_eps",
    "rope_embedding_base",
    "rope_position_scale",
    "rope_scaling",
    "seq_length",
    "sliding_window",
    "swiglu_limit",
    "text_config",
)
"""Fields that the builder takes from any configuration that has them.

Many configurations carry fields of the model that they were made from: a ``sliding_window`` in
Llama, Granite or Gemma would become a window, and be wrong from there on.
"""


class Rotation(Protocol):
    """Rotated dimensions of a head, and the factor of the rotary tables."""

    @property
    def width(self) -> int: ...
    @property
    def factor(self) -> float: ...


def told(
    config: Mapping[str, Any], declared: Collection[str], ropes: Mapping[str, Rotation]
) -> dict[str, Any]:
    """The fields that are to be set, or :data:`GONE`, before the builder reads the configuration.

    :param config: the whole configuration, its defaults filled in.
    :param declared: the fields of the configuration's class.
    :param ropes: rotations by the type of layers; empty if nothing is rotated.
    """
    support = SUPPORTED[config["architectures"][0]]
    leftover = [name for name in READ_UNASKED if name in config and name not in declared]
    return {
        **dict.fromkeys(leftover, GONE),
        **_windows(config, declared, support),
        **_numbers(config, support),
        **_rope(config, ropes, support),
        **({"no_rope_layers": [1] * len(flags)} if (flags := config.get("no_rope_layers")) else {}),
        **({"architectures": [support.builds_as]} if support.builds_as else {}),
    }


def _windows(
    config: Mapping[str, Any], declared: Collection[str], support: Support
) -> dict[str, Any]:
    """The layers with a window, named where only the class implies them (Mistral, Phi-3)."""
    if not support.windows or "layer_types" in declared:
        return {}
    if not config.get("sliding_window"):
        return {}
    return {"layer_types": ["sliding_attention"] * int(config["num_hidden_layers"])}


def _numbers(config: Mapping[str, Any], support: Support) -> dict[str, Any]:
    """The epsilon of the norms under the only name that the builder knows."""
    if support.epsilon is None:
        return {}
    value = config[support.epsilon] if isinstance(support.epsilon, str) else support.epsilon
    return {"rms_norm_eps": value}


def _rope(
    config: Mapping[str, Any], ropes: Mapping[str, Rotation], support: Support
) -> dict[str, Any]:
    """Rope settings that the builder accepts and that give tables of the right size."""
    found: Mapping[str, Any] = config.get("rope_parameters") or {}
    context = int(config["max_position_embeddings"])
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rotation = next(iter(ropes.values()), None)
    width = _LEAST_WIDTH if rotation is None else rotation.width
    changes: dict[str, Any] = {"partial_rotary_factor": 1.0 if width == head else width / head}
    if rotation is not None and found.get("rope_type") == "longrope":
        # Both tables have one factor, which the builder computes from other fields.
        factors = dict.fromkeys(("short_mscale", "long_mscale"), rotation.factor)
        return {**changes, "rope_parameters": {**found, **factors, "type": "longrope"}}
    changes |= {"rope_parameters": dict(_PLAIN), "rope_theta": _PLAIN["rope_theta"]}
    if support.needs_yarn:
        changes["rope_parameters"] = _any_yarn(context)
    if "original_max_position_embeddings" in config:
        changes["original_max_position_embeddings"] = context
    if support.two_tables:
        changes["rope_local_base_freq"] = _PLAIN["rope_theta"]
    return changes


def _any_yarn(context: int) -> dict[str, Any]:
    """Numbers that pass the assertion of a builder that knows YaRN alone (GPT-OSS)."""
    return {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 2.0,
        "beta_fast": context / (2 * math.pi * 10000.0**0.25),
        "beta_slow": context / (2 * math.pi * 10000.0**0.5),
        "original_max_position_embeddings": context,
    }
