"""Write the graph that an engine runs: it computes logits of the tokens that are asked for alone.

The output layer of a small model with a large vocabulary is a quarter of its work, and of a prompt
only the last token's logits are wanted. Only the structure is written: the weights are shared with
the graph that it was made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from risen_export.backends.padding import before_output_layer
from risen_export.bundles.manifest import ENGINE_GRAPH, GRAPH

if TYPE_CHECKING:
    import onnx_ir as ir

ASKED = "logits_at"
"""The input that names the tokens: (N, 2), row and place of each; the logits are (N, 1, V)."""


def write_engine_graph(folder: Path, name: str = ENGINE_GRAPH) -> bool:
    """Write the graph for engines beside the one in ``folder``; False where that cannot be done."""
    import onnx_ir as ir

    model = ir.load(folder / GRAPH)
    graph = model.graph
    hidden = before_output_layer(graph)
    if hidden.is_graph_output():
        return False
    readers = [(node, index) for node, index in hidden.uses() if node.op_type != "Shape"]
    asked = ir.Value(
        name=ASKED, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["asked", 2])
    )
    graph.inputs.append(asked)
    axis = ir.Value(name="risen.asked.axis", const_value=ir.tensor([1], name="risen.asked.axis"))
    graph.register_initializer(axis)
    value = hidden
    for kind, other in (("GatherND", asked), ("Unsqueeze", axis)):
        node = ir.node(kind, [value, other], name=f"/risen/asked/{kind}")
        value = node.outputs[0]
        value.name, value.type = f"{node.name}/output_0", hidden.type
        graph.append(node)
    for reader, index in readers:
        reader.replace_input_with(index, value)
    _forget_shapes(value)
    graph.sort()
    ir.save(model, folder / name)
    return True


def _forget_shapes(value: ir.Value) -> None:
    """Leave open how many rows there are in all that is computed from a value."""
    import onnx_ir as ir

    waiting = [value]
    while waiting:
        for node, _ in waiting.pop().uses():
            for output in node.outputs:
                if output.shape is not None and len(output.shape) == 3:
                    output.shape = ir.Shape(["asked", 1, output.shape[-1]])
                waiting.append(output)
