"""Change the model builder's graph where it is another model than the class, without running it.

Each function takes the graph and the whole configuration, and does nothing where nothing is wrong.
To be dropped one by one as the builder does it itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from risen_export.backends.genai_support import SUPPORTED

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_COS, _SIN = 7, 8
"""Inputs of GroupQueryAttention with the rotary tables."""
_NORMS = {
    "SimplifiedLayerNormalization": "LayerNormalization",
    "SkipSimplifiedLayerNormalization": "SkipLayerNormalization",
}


def mend(model: ModelProto, config: Mapping[str, Any]) -> None:
    """Make the graph that of the configuration's class."""
    stop_rotating(model, layers_without_rope(config))
    if SUPPORTED[config["architectures"][0]].centred_norms:
        centre_norms(model)
    if SUPPORTED[config["architectures"][0]].scaled_embedding:
        scale_embedding(model, float(config["hidden_size"]) ** 0.5)
    if config.get("clip_qkv") is not None:
        clip_attention(model, float(config["clip_qkv"]))


def layers_without_rope(config: Mapping[str, Any]) -> frozenset[int]:
    """The layers whose queries and keys are not rotated (SmolLM3, Granite 4)."""
    layers = range(int(config["num_hidden_layers"]))
    if SUPPORTED[config["architectures"][0]].rope_is_asked_for:
        return frozenset(() if config.get("position_embedding_type") == "rope" else layers)
    flags = config.get("no_rope_layers") or [1] * len(layers)
    return frozenset(layer for layer in layers if not flags[layer])


def stop_rotating(model: ModelProto, layers: frozenset[int]) -> None:
    """Take the rotary embedding out of these layers; the builder fails where some have none."""
    for layer, node in enumerate(_attentions(model)):
        if layer not in layers:
            continue
        for attribute in node.attribute:
            if attribute.name == "do_rotary":
                attribute.i = 0
        node.input[_COS] = node.input[_SIN] = ""


def centre_norms(model: ModelProto) -> None:
    """Have norms subtract the mean: the builder makes RMS norms of OLMo's layer norms."""
    for node in model.graph.node:
        node.op_type = _NORMS.get(node.op_type, node.op_type)


def scale_embedding(model: ModelProto, scale: float) -> None:
    """Scale embeddings by the exact number; the builder rounds it to two digits (Gemma)."""
    import onnx

    (node,) = [node for node in model.graph.node if node.name == "/model/embed_tokens/Mul"]
    kind = onnx.helper.tensor_dtype_to_np_dtype(_io_type(model))
    exact = onnx.numpy_helper.from_array(np.array(scale, dtype=kind), "/model/embed_tokens/scale")
    model.graph.initializer.append(exact)
    node.input[1] = exact.name


def clip_attention(model: ModelProto, most: float) -> None:
    """Clip queries, keys and values before they are rotated; the builder does not (OLMo)."""
    import onnx

    kind = onnx.helper.tensor_dtype_to_np_dtype(_io_type(model))
    made: dict[str, NodeProto] = {}
    for node in _attentions(model):
        for place in range(3):
            name = node.input[place]
            if name and name not in made:
                made[name] = onnx.helper.make_node(
                    "Clip", [name, "/clip/least", "/clip/most"], [f"{name}/clipped"], f"{name}/Clip"
                )
            if name:
                node.input[place] = f"{name}/clipped"
    for name, value in (("/clip/least", -most), ("/clip/most", most)):
        tensor = onnx.numpy_helper.from_array(np.array(value, dtype=kind), name)
        model.graph.initializer.append(tensor)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.append(node)
        for output in node.output:
            if output in made:
                model.graph.node.append(made[output])


def _attentions(model: ModelProto) -> list[NodeProto]:
    """The attention of each layer that has one, in the order of layers."""
    return [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]


def _io_type(model: ModelProto) -> int:
    """The type that activations have, as onnx numbers it: that of the cache."""
    cache = next(value for value in model.graph.input if value.name.startswith("past_key_values"))
    return int(cache.type.tensor_type.elem_type)
