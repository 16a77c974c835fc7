"""Make a graph of the model builder right for batches that are padded on the left as well.

The builder's GroupQueryAttention takes each row's positions from the row's length, as if its tokens
stood first; Hugging Face clients put the padding first, and the answers were silently wrong. The
graph gets a few nodes that roll each row to the left before the layers, by the padding in front of
it, and the hidden states back before the output layer. Rows padded on the right are not rolled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from risen_export.bundles.manifest import GRAPH

if TYPE_CHECKING:
    import onnx_ir as ir

ROLLED = "risen/rolled_"
"""Before the name of an input: its value with the padding of each row last."""
_KNOWN = ("input_ids", "attention_mask", "position_ids", "past_key_values.")
_ATTENTION = "GroupQueryAttention"
_MATMULS = ("MatMul", "MatMulNBits", "MatMulBnb4", "Gemm")
_WIDEST = 2**63 - 1


def accept_left_padding(folder: Path) -> bool:
    """Change the graph in ``folder`` to take padding on either side; True if it could.

    A graph is left as it is where it has no GroupQueryAttention, since it then reads positions and
    mask as Hugging Face's models do. So is one with a state that is not a key-value cache: a
    convolution's state would take in the padding at the end.
    """
    import onnx_ir as ir

    model = ir.load(folder / GRAPH)
    graph = model.graph
    inputs = {str(value.name): value for value in graph.inputs}
    if not any(node.op_type == _ATTENTION for node in graph):
        return False
    if "input_ids" not in inputs or any(not name.startswith(_KNOWN) for name in inputs):
        return False
    positions = inputs.get("position_ids")
    if positions is not None and (positions.shape is None or len(positions.shape) != 2):
        return False  # positions of images and text, three for each token
    if any(str(value.name).startswith(ROLLED) for node in graph for value in node.outputs):
        return True  # done before
    hidden = before_output_layer(graph)
    ahead, back = _places(graph, inputs["input_ids"], inputs["attention_mask"])
    for name in ("input_ids", "position_ids"):
        if name in inputs:
            _roll(graph, inputs[name], ahead, ROLLED + name)
    _roll(graph, hidden, back, f"{hidden.name}/rolled_back")
    # The weights stay in their file: only the structure is written.
    graph.sort()
    ir.save(model, folder / GRAPH)
    return True


class _Pen:
    """Adds nodes at the start of a graph, and whole numbers as initializers."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph, self._first, self._made = graph, graph[0], 0

    def op(self, kind: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
        import onnx_ir as ir

        node = ir.node(kind, inputs, attributes, name=f"/risen/padding/{kind}_{self._made}")
        self._made += 1
        node.outputs[0].name = f"{node.name}/output_0"
        self._graph.insert_before(self._first, [node])
        return node.outputs[0]

    def number(self, name: str, value: list[int] | int) -> ir.Value:
        import onnx_ir as ir

        tensor = ir.tensor(value, dtype=ir.DataType.INT64, name=f"risen.padding.{name}")
        made = ir.Value(
            name=tensor.name,
            const_value=tensor,
            type=ir.TensorType(ir.DataType.INT64),
            shape=ir.Shape([] if isinstance(value, int) else [len(value)]),
        )
        self._graph.register_initializer(made)
        return made


def _places(graph: ir.Graph, ids: ir.Value, mask: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Where each token of a rolled row comes from, and where it goes back to: (B, T, 1) each.

    The mask's last T columns belong to the tokens of this run; those before are the cache's. In a
    decoding step and with padding on the right the first of them is 1, and nothing moves.
    """
    import onnx_ir as ir

    pen = _Pen(graph)
    width = pen.op("Shape", [ids], start=1, end=2)  # [T]
    tail = pen.op(
        "Slice",
        [mask, pen.op("Neg", [width]), pen.number("ends", [_WIDEST]), pen.number("axis", [1])],
    )  # (B, T)
    # As floats, since ArgMax of whole numbers is missing from CUDA.
    flags = pen.op("Cast", [tail], to=int(ir.DataType.FLOAT))
    shift = pen.op("ArgMax", [flags], axis=1, keepdims=1)  # (B, 1), the first of equals
    zero, one, last = pen.number("zero", 0), pen.number("one", 1), pen.number("last", [-1])
    steps = pen.op("Range", [zero, pen.op("Squeeze", [width]), one])  # (T,)
    # Mod takes the sign of the divisor: -1 mod T is T - 1.
    ahead, back = (
        pen.op("Unsqueeze", [pen.op("Mod", [pen.op(way, [steps, shift]), width]), last])
        for way in ("Add", "Sub")
    )
    return ahead, back


def _roll(graph: ir.Graph, value: ir.Value, places: ir.Value, name: str) -> None:
    """Let all that read ``value`` (B, T, ...) read its cells in the order of ``places``."""
    import onnx_ir as ir

    readers = [
        (node, index)
        for node, index in value.uses()
        if node.op_type != "Shape"  # the same before and after
    ]
    node = ir.node("GatherND", [value, places], {"batch_dims": 1}, name=f"/{name}/GatherND")
    rolled = node.outputs[0]
    rolled.name, rolled.type, rolled.shape = name, value.type, value.shape
    if value.is_graph_output():
        # The output's name is the contract, so the unrolled value takes another one.
        rolled.name, value.name = value.name, f"{value.name}/unrolled"
        graph.outputs[graph.outputs.index(value)] = rolled
    graph.append(node)
    for reader, index in readers:
        reader.replace_input_with(index, rolled)


def before_output_layer(graph: ir.Graph) -> ir.Value:
    """The hidden states (B, T, H) that the output layer reads; the logits themselves if not seen.

    They are far narrower than the logits, so rolling them costs next to nothing.
    """
    logits = next(value for value in graph.outputs if value.name == "logits")
    for node in _upwards(logits):
        if node.op_type in _MATMULS and node.inputs[0] is not None:
            return node.inputs[0] if _has_weight(node.inputs[1]) else logits
    return logits


def _upwards(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes above a value, each once, nearest first."""
    waiting, seen = [value], set()
    while waiting:
        node = waiting.pop(0).producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [above for above in node.inputs if above is not None]


def _has_weight(value: ir.Value | None) -> bool:
    """Whether a matrix is a weight, perhaps transposed, and no activation."""
    while value is not None and not value.is_initializer():
        node = value.producer()
        if node is None or node.op_type not in ("Transpose", "Reshape", "Cast", "DequantizeLinear"):
            return False
        value = node.inputs[0]
    return value is not None
