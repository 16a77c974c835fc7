"""Round the weights of a finished graph to 8 or 4 bits, by onnxruntime's own quantizer.

Each block of 32 (or 128) weights gets a scale; activations stay fp32 unless the precision says
otherwise. For graphs of exporters that write fp32 alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from risen_export.backends import concatenating, graph
from risen_export.backends.halves import halve_int8
from risen_export.bundles.manifest import DATA, GRAPH
from risen_plugin.kit.files import put

if TYPE_CHECKING:
    import onnx_ir as ir


Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class _Rounding:
    """How a precision rounds.

    :param bits: of a weight.
    :param block: weights that share a scale.
    :param accuracy_level: 0 multiplies in fp32; 4 rounds activations to int8.
    """

    bits: int
    block: int = 32
    accuracy_level: int = 0


_HOW: Mapping[str, _Rounding | None] = {
    "fp32": None,
    "int8": _Rounding(8),
    "int8-fast": _Rounding(8, accuracy_level=4),
    "int4": _Rounding(4),
    "int4-fast": _Rounding(4, accuracy_level=4),
    "int4-128": _Rounding(4, 128),
}
PRECISIONS = tuple(_HOW)
"""The precisions that a finished graph can be rounded to."""


def deliver(kept: Path, folder: Path, config: Mapping[str, Any], precision: str) -> None:
    """Write the fp32 graph in ``kept`` to ``folder`` in ``precision``, described for a runtime.

    :param config: the contents of the model's ``config.json``.
    """
    import onnx_ir as ir

    program = ir.load(kept / GRAPH)
    concatenating.describe(folder, config, program.graph)
    if _HOW[precision] is None:
        concatenating.hand_over(kept, folder)
    else:
        tied = bool(config.get("tie_word_embeddings"))
        round_weights(program, folder, precision, tied=tied)


def round_weights(model: ir.Model, folder: Path, precision: str, *, tied: bool) -> None:
    """Write ``model``, which is changed, with rounded weights to ``folder``.

    :param precision: of :data:`PRECISIONS`, and not fp32.
    :param tied: whether the output layer is the transposed embedding; int8 then stores it once.
    """
    how = _HOW[precision]
    if how is None:
        raise ValueError(f"{precision} rounds nothing")
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    prepare(model)
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        exact, rounded = Path(beside, "exact"), Path(beside, "rounded")
        concatenating.save(model, exact)
        quantizer = MatMulNBitsQuantizer(
            onnx.load(str(exact / GRAPH)),
            algo_config=DefaultWeightOnlyQuantConfig(
                block_size=how.block,
                is_symmetric=True,
                accuracy_level=how.accuracy_level,
                op_types_to_quantize=("MatMul",),
                bits=how.bits,
            ),
        )
        quantizer.process()
        rounded.mkdir()
        made: Any = quantizer.model  # its constructor makes an ONNXModel of what it is given
        made.save_model_to_file(str(rounded / GRAPH), True)
        for name in (DATA, GRAPH):
            put(rounded / name, folder / name)
    if how.bits == 8 and tied:
        graph.share_int8_embedding(folder)
    halve_int8(folder)


def prepare(model: ir.Model) -> None:
    """Bring the weights into the form that is rounded: the constant right side of a MatMul.

    A ``Gemm`` becomes a MatMul and an Add; a weight that the graph transposes or takes apart
    (tied embeddings, experts) is written as it is used.
    """
    _fold_weights(model)
    _unfold_gemms(model)


def _fold_weights(model: ir.Model) -> None:
    """Write weights that a graph transposes or takes apart as they are used.

    The trace leaves a tied output layer as the transposed embedding, and experts as one tensor
    that is split; neither is the constant that the quantizer looks for.
    """
    import numpy as np
    import onnx_ir as ir

    for node in list(model.graph):
        folds = _FOLDED.get(node.op_type)
        values = [value.const_value if value is not None else None for value in node.inputs]
        if folds is None or not values or any(value is None for value in values):
            continue
        parts = folds(node, *(value.numpy() for value in values if value is not None))
        for output, part in zip(node.outputs, parts, strict=True):
            name = f"{node.inputs[0].name}_{node.op_type}_{output.name}"  # type: ignore[union-attr]
            weight = ir.Value(
                name=name, const_value=ir.tensor(np.ascontiguousarray(part), name=name)
            )
            weight.type, weight.shape = output.type, ir.Shape(part.shape)
            model.graph.register_initializer(weight)
            ir.convenience.replace_all_uses_with(output, weight)
        model.graph.remove(node, safe=True)
    _drop_unused(model)


def _transposed(node: ir.Node, weight: Array) -> list[Array]:
    attribute = node.attributes.get("perm")
    return [weight.transpose(list(attribute.as_ints()) if attribute else None)]


def _split(node: ir.Node, weight: Array, sizes: Array | None = None) -> list[Array]:
    import numpy as np

    attribute = node.attributes.get("axis")
    axis = attribute.as_int() if attribute else 0
    if sizes is None:
        return np.array_split(weight, len(node.outputs), axis)
    return np.split(weight, np.cumsum(sizes)[:-1].tolist(), axis)


def _squeezed(node: ir.Node, weight: Array, axes: Array | None = None) -> list[Array]:
    return [weight.squeeze(None if axes is None else tuple(axes.tolist()))]


_FOLDED: Mapping[str, Callable[..., list[Array]]] = {
    "Transpose": _transposed,
    "Split": _split,
    "Squeeze": _squeezed,
}


def _unfold_gemms(model: ir.Model) -> None:
    """Make a MatMul and an Add of each Gemm whose weight is a constant."""
    import numpy as np
    import onnx_ir as ir

    graph = model.graph
    for node in list(graph):
        if node.op_type != "Gemm" or not _is_plain(node):
            continue
        x, weight, bias = (*node.inputs, None)[:3]
        assert weight is not None
        if node.attributes.get("transB") and node.attributes["transB"].as_int():
            name = f"{weight.name}_transposed_{node.outputs[0].name}"
            turned = np.ascontiguousarray(weight.const_value.numpy().T)  # type: ignore[union-attr]
            weight = ir.Value(name=name, const_value=ir.tensor(turned, name=name))
            weight.dtype = ir.DataType.FLOAT
            weight.shape = ir.Shape(turned.shape)
            graph.register_initializer(weight)
        product = ir.node("MatMul", [x, weight])
        new = [product] if bias is None else [product, ir.node("Add", [product.outputs[0], bias])]
        old, result = node.outputs[0], new[-1].outputs[0]
        for one in new:
            one.outputs[0].type, one.outputs[0].shape = old.type, old.shape
        product.outputs[0].name = f"{old.name}_product"
        graph.insert_before(node, new)
        written, is_output = old.name, old.is_graph_output()
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=is_output)
        graph.remove(node, safe=True)
        result.name = written
    _drop_unused(model)


def _is_plain(node: ir.Node) -> bool:
    """Whether a Gemm is a product with a constant and at most a bias."""
    attributes, weight = node.attributes, node.inputs[1]
    scales = [attributes[name].as_float() for name in ("alpha", "beta") if name in attributes]
    turned = "transA" in attributes and attributes["transA"].as_int() == 1
    return (
        weight is not None
        and weight.const_value is not None
        and not turned
        and all(scale == 1.0 for scale in scales)
    )


def _drop_unused(model: ir.Model) -> None:
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]
