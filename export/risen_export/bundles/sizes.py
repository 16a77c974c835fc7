"""The bytes of a bundle's variant by kind: what of it is weights, scales, tables, graph, text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from risen_export.bundles.manifest import GRAPH, listed

if TYPE_CHECKING:
    import onnx


_GRAPHS = (".onnx", ".onnx.data", ".onnx_data")
_QUANTIZED = ("MatMulNBits", "GatherBlockQuantized")
HIGH = "/high"
"""How the node ends that computes with the high halves of 8-bit weights, beside that of the low."""


def bytes_by_kind(folder: str | Path) -> dict[str, int]:
    """The bytes of an ``OUT/<precision>`` folder by kind; the values sum to its files.

    Kinds: ``int8_weights`` and ``int8_scales`` (the embedding too where it is tied), the same with
    ``int4``, ``embedding_fp32`` (the output layer too where it is tied), ``matrices_fp32``,
    ``vectors_fp32`` (norms and biases), these three with ``fp16`` and ``bf16``, ``rotary_tables``,
    ``other_tensors``, ``graph`` (structure and alignment) and ``tokenizer_and_configs``. The
    manifest itself is not counted.
    """
    import math

    import onnx

    folder = Path(folder)
    model = onnx.load(str(folder / GRAPH), load_external_data=False)
    makers = {name: node for node in model.graph.node for name in node.output}
    looked_up: set[str] = set()
    bits: dict[str, int] = {}  # of the weights that a quantized tensor belongs to
    names = {node.name for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type in _QUANTIZED:
            width = next((one.i for one in node.attribute if one.name == "bits"), 4)
            if node.name.endswith(HIGH) or f"{node.name}{HIGH}" in names:
                width = 8  # each half has 4 of them
            bits |= dict.fromkeys(node.input, width)
        if any(name.endswith("input_ids") for name in node.input):
            looked_up.update(node.input)
            # A tied embedding is the transposed weight of the output layer.
            for name in node.input:
                looked_up.update(makers[name].input if name in makers else ())
    kinds: dict[str, int] = {}
    for tensor in model.graph.initializer:
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        size = math.prod(tensor.dims) * item
        if not size or tensor.data_type == onnx.TensorProto.INT64:
            continue  # a place for an adapter, or a shape or an axis: part of the graph
        kind = _kind(tensor, looked_up, bits.get(tensor.name, 8))
        kinds[kind] = kinds.get(kind, 0) + size
    sizes = {name: path.stat().st_size for name, path in listed(folder).items()}
    graphs = sum(size for name, size in sizes.items() if name.endswith(_GRAPHS))
    kinds["graph"] = graphs - sum(kinds.values())
    kinds["tokenizer_and_configs"] = sum(sizes.values()) - graphs
    return dict(sorted(kinds.items(), key=lambda kind: -kind[1]))


def _kind(tensor: onnx.TensorProto, looked_up: set[str], bits: int) -> str:
    import onnx

    floats: dict[int, str] = {
        onnx.TensorProto.FLOAT: "fp32",
        onnx.TensorProto.FLOAT16: "fp16",
        onnx.TensorProto.BFLOAT16: "bf16",
    }
    if tensor.data_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8):
        return f"int{bits}_weights"
    if tensor.data_type not in floats:
        return "other_tensors"
    if "_scale" in tensor.name:
        return f"int{bits}_scales"
    if tensor.name in ("cos_cache", "sin_cache"):
        return "rotary_tables"
    if tensor.name in looked_up:
        return f"embedding_{floats[tensor.data_type]}"
    shape = "matrices" if len(tensor.dims) > 1 else "vectors"
    return f"{shape}_{floats[tensor.data_type]}"
