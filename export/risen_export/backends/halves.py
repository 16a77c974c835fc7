"""Store 8-bit weights as two halves of 4 bits each, which onnxruntime multiplies quickly on a CPU.

Its CPU provider has a quick kernel for 4-bit weights beside fp32 activations and none for 8-bit
ones, which it unpacks anew for each token: a step of a 135 M model took 349 ms in place of 12. A
weight of 8 bits is ``16 * high + low``, its zero point too, so that two products of 4 bits are the
same product: nothing is rounded again, and nothing grows. To be dropped when onnxruntime has the
kernel.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from risen_export.bundles.manifest import DATA, GRAPH
from risen_export.bundles.sizes import HIGH
from risen_plugin.kit.files import put

if TYPE_CHECKING:
    import onnx_ir as ir

Bytes = npt.NDArray[np.uint8]
_PRODUCT, _LOOKUP = "MatMulNBits", "GatherBlockQuantized"
_ROUNDS = 4  # the accuracy level at which activations are rounded, which has a kernel of 8 bits


def halve_int8(folder: Path) -> bool:
    """Halve the 8-bit weights of the graph in ``folder``; False if it has none of the slow kind."""
    import onnx_ir as ir

    model = ir.load(folder / GRAPH)
    graph = model.graph
    slow = [node for node in graph if _is_slow(node)]
    if not slow:
        return False
    pen = _Pen(graph)
    for node in slow:
        pen.halve(node, weight=1)
    for node in [node for node in graph if node.op_type == _LOOKUP and _bits(node) == 8]:
        # The table of a tied embedding is the output layer's weight in another shape.
        pen.halve(node, weight=0)
    pen.drop_unused()
    graph.sort()
    # The weights are still read from the old file, so the new one is written beside it.
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        ir.save(model, Path(beside) / GRAPH, external_data=DATA)
        for name in (DATA, GRAPH):
            put(Path(beside) / name, folder / name)
    return True


def pack(values: Bytes) -> Bytes:
    """Numbers below 16 two to a byte along the last axis, the first in the low half."""
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    packed: Bytes = values[..., 0::2] | (values[..., 1::2] * np.uint8(16))
    return packed


def bits_of(values: Bytes, shift: int) -> Bytes:
    """Four bits of each number, from the bit ``shift`` on."""
    bits: Bytes = (values // np.uint8(2**shift)) % np.uint8(16)
    return bits


def _is_slow(node: ir.Node) -> bool:
    """Whether a node multiplies weights of 8 bits with activations that are not rounded."""
    if node.op_type != _PRODUCT or _bits(node) != 8:
        return False
    level = node.attributes.get("accuracy_level")
    return level is None or level.as_int() != _ROUNDS


def _bits(node: ir.Node) -> int:
    found = node.attributes.get("bits")
    return 4 if found is None else found.as_int()


class _Pen:
    """Halves nodes of a graph; weights that several of them share are halved once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._old: list[ir.Node] = []
        self._made: dict[str, ir.Value] = {}

    def halve(self, node: ir.Node, *, weight: int) -> None:
        """Compute what a node does as ``16 * high + low``; the low half keeps its name.

        :param weight: the place of the 8-bit weights among its inputs.
        """
        import onnx_ir as ir

        whole = node.outputs[0]
        sixteen = self._constant("risen.sixteen", np.array(16, np.float32))
        parts = {}
        for shift, name in ((4, "high"), (0, "low")):
            half = ir.node(
                node.op_type,
                self._inputs(node, weight, shift, name),
                {**{key: one.value for key, one in node.attributes.items()}, "bits": 4},
                domain=node.domain,
                name=str(node.name) if name == "low" else f"{node.name}{HIGH}",
            )
            parts[name] = self._put(node, half, f"{whole.name}/{name}")
        scaled = ir.node("Mul", [parts["high"], sixteen], name=f"{node.name}/scaled")
        scaled_out = self._put(node, scaled, f"{whole.name}/scaled")
        added = ir.node("Add", [parts["low"], scaled_out], name=f"{node.name}/whole")
        name, whole.name = str(whole.name), f"{whole.name}/unhalved"
        final = self._put(node, added, name)
        ir.convenience.replace_all_uses_with(whole, final, replace_graph_outputs=True)
        self._old.append(node)

    def drop_unused(self) -> None:
        """Remove the nodes that were halved, and what only they have read."""
        above: list[ir.Value] = []
        for node in self._old:
            above += [value for value in node.inputs if value is not None]
            self._graph.remove(node, safe=True)
        for value in above:
            maker = value.producer()
            if value.uses():
                continue
            if maker is not None and maker.graph is not None:
                above += [one for one in maker.inputs if one is not None]
                self._graph.remove(maker, safe=True)
            elif value.is_initializer():
                self._graph.initializers.pop(str(value.name), None)

    def _inputs(self, node: ir.Node, weight: int, shift: int, name: str) -> list[ir.Value | None]:
        """The inputs of one half: weights and zero points halved, the rest as they are."""
        import onnx_ir as ir

        inputs = list(node.inputs)
        source = _origin(inputs[weight])
        rows, blocks, size = _shape(source)
        half = self._half(source, (rows, blocks, size), shift, name)
        zeros = inputs[3] if len(inputs) > 3 else None
        if zeros is not None:
            zero = self._half(_origin(zeros), (rows, blocks), shift, name)
        else:
            # The middle of 8 bits is 16 * 8 + 0.
            middle = np.full((rows, blocks), 8 if shift else 0, np.uint8)
            zero = self._constant(f"{source.name}.middle_{name}", pack(middle))
        if weight == 0:
            flat = self._constant(f"{source.name}.halved", np.array([rows, blocks * size // 2]))
            shaped = ir.node("Reshape", [half, flat], name=f"{node.name}/{name}/Reshape")
            half = self._put(node, shaped, f"{shaped.name}/output_0")
            half.type, half.shape = source.type, ir.Shape([rows, blocks * size // 2])
        return [*(half if place == weight else one for place, one in enumerate(inputs[:3])), zero]

    def _half(self, source: ir.Value, shape: tuple[int, ...], shift: int, name: str) -> ir.Value:
        """Four bits of each number of an initializer, packed along the last axis."""
        import onnx_ir as ir

        key = f"{source.name}_{name}"
        if key not in self._made:
            tensor = source.const_value
            assert tensor is not None

            def made() -> ir.TensorProtocol:
                values: Bytes = tensor.numpy().reshape(shape).astype(np.uint8, copy=False)
                return ir.tensor(pack(bits_of(values, shift)), name=key)

            size = ir.Shape([*shape[:-1], -(-shape[-1] // 2)])
            lazy = ir.LazyTensor(made, ir.DataType.UINT8, size, name=key)
            self._made[key] = self._register(key, lazy, size)
        return self._made[key]

    def _constant(self, name: str, value: npt.NDArray[Any]) -> ir.Value:
        import onnx_ir as ir

        if name not in self._made:
            made = ir.tensor(value, name=name)
            self._made[name] = self._register(name, made, ir.Shape(value.shape))
        return self._made[name]

    def _register(self, name: str, tensor: ir.TensorProtocol, shape: ir.Shape) -> ir.Value:
        import onnx_ir as ir

        value = ir.Value(
            name=name,
            const_value=tensor,
            type=ir.TensorType(tensor.dtype),
            shape=shape,
        )
        self._graph.register_initializer(value)
        return value

    def _put(self, before: ir.Node, node: ir.Node, name: str) -> ir.Value:
        """Add a node whose output is of the kind of another's; its output."""
        whole = before.outputs[0]
        value = node.outputs[0]
        value.name, value.type, value.shape = name, whole.type, whole.shape
        self._graph.insert_before(before, [node])
        return value


def _origin(value: ir.Value | None) -> ir.Value:
    """The initializer that a value is a reshaped view of."""
    while value is not None and not value.is_initializer():
        maker = value.producer()
        assert maker is not None
        value = maker.inputs[0]
    assert value is not None
    return value


def _shape(weight: ir.Value) -> tuple[int, int, int]:
    """Rows, blocks of a row, and weights of a block."""
    assert weight.const_value is not None
    rows, blocks, size = weight.const_value.numpy().shape
    return rows, blocks, size
