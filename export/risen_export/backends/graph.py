"""Change the builder's graph where clients or the bundle's size need it, without running it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from risen_export.bundles.manifest import DATA, GRAPH
from risen_plugin.kit.files import put

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto


@contextlib.contextmanager
def changed(folder: Path) -> Iterator[ModelProto]:
    """The graph in ``folder``, to be changed in place; its weights stay where they are."""
    import onnx

    model = onnx.load(str(folder / GRAPH), load_external_data=False)
    yield model
    onnx.save(model, str(folder / GRAPH))


def write_cache_dimension(model: ModelProto, size: int) -> None:
    """Write the last dimension of every key-value tensor, the head size, as a number.

    The builder leaves it symbolic (``kv_cache_dim``); transformers.js and optimum read it.
    """
    for value in [*model.graph.input, *model.graph.output]:
        last = value.type.tensor_type.shape.dim[-1]
        if last.dim_param == "kv_cache_dim":
            last.dim_value = size


def share_int8_embedding(folder: Path) -> bool:
    """Make the graph read a tied embedding from the int8 output layer; True if it could.

    The builder stores a tied embedding once in fp32 and in int4, but in int8 it adds an fp32 copy
    of it, which can be the larger half of a small model. onnxruntime's GatherBlockQuantized reads
    8 bits as well. To be dropped when the builder does it itself.
    """
    import onnx_ir as ir

    model = ir.load(folder / GRAPH)
    head = _output_layer(model.graph)
    lookup = next((node for node in model.graph if _looks_up_tokens(node)), None)
    if head is None or lookup is None:
        return False
    weights, scales, table = head.inputs[1], head.inputs[2], lookup.inputs[0]
    zeros = head.inputs[3] if len(head.inputs) > 3 else None
    if weights is None or scales is None or table is None:
        return False
    columns, rows = head.attributes["K"].as_int(), head.attributes["N"].as_int()
    block = head.attributes["block_size"].as_int()
    if columns % block or not table.is_initializer():
        return False
    shape = ir.Value(name="model.embed_tokens.shape", const_value=ir.tensor([rows, columns]))
    model.graph.register_initializer(shape)
    flat = ir.node("Reshape", [weights, shape], name="/model/embed_tokens/Reshape")
    flat.outputs[0].name = "/model/embed_tokens/Reshape/output_0"
    added, offsets = [flat], []
    if zeros is not None:
        blocks = ir.Value(
            name="model.embed_tokens.blocks", const_value=ir.tensor([rows, columns // block])
        )
        model.graph.register_initializer(blocks)
        square = ir.node("Reshape", [zeros, blocks], name="/model/embed_tokens/zeros/Reshape")
        square.outputs[0].name = "/model/embed_tokens/zeros/Reshape/output_0"
        added.append(square)
        offsets.append(square.outputs[0])
    gather = ir.node(
        "GatherBlockQuantized",
        [flat.outputs[0], lookup.inputs[1], scales, *offsets],
        {"bits": 8, "block_size": block, "gather_axis": 0, "quantize_axis": 1},
        domain="com.microsoft",
        name="/model/embed_tokens/GatherBlockQuantized",
    )
    gather.outputs[0].name = "/model/embed_tokens/GatherBlockQuantized/output_0"
    gather.outputs[0].type = lookup.outputs[0].type
    gather.outputs[0].shape = lookup.outputs[0].shape
    model.graph.insert_before(lookup, [*added, gather])
    ir.convenience.replace_all_uses_with(lookup.outputs[0], gather.outputs[0])
    model.graph.remove(lookup, safe=True)
    del model.graph.initializers[str(table.name)]
    # The weights are still read from the old file, so the new one is written beside it. Small
    # tensors stay in the graph: shape inference cannot read an external shape.
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        ir.save(model, Path(beside) / GRAPH, external_data=DATA)
        for name in (DATA, GRAPH):
            put(Path(beside) / name, folder / name)
    return True


def _output_layer(graph: ir.Graph) -> ir.Node | None:
    """The int8 product that the logits come from, through scaling (Granite) and capping (Gemma)."""
    logits = next(value for value in graph.outputs if value.name == "logits")
    node = logits.producer()
    while node is not None and node.op_type in ("Mul", "Div", "Tanh", "Add", "Cast"):
        above = node.inputs[0]
        node = None if above is None else above.producer()
    if node is None or node.op_type != "MatMulNBits":
        return None
    return node if node.attributes["bits"].as_int() == 8 else None


def _looks_up_tokens(node: object) -> bool:
    import onnx_ir as ir

    return (
        isinstance(node, ir.Node)
        and node.op_type == "Gather"
        and any(value is not None and value.name == "input_ids" for value in node.inputs)
    )
