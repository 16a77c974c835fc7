"""Give a graph the inputs through which adapters are switched while it runs.

Beside each linear projection of a layer comes a branch: what goes in, times A, times B, added to
what comes out. A and B are initializers that whoever runs the graph may override; they have rank 0
by default, so that the graph computes the base model. Only the graph's structure is written: its
weights stay in their file as they are, in whatever precision.

The leading axis of A and B is 1, or the batch: then each row has an adapter of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from risen_export.bundles.sites import NOTE, Part, Site, to_text
from risen_plugin.errors import ExportError
from risen_plugin.kit.files import put

if TYPE_CHECKING:
    import onnx

Size = tuple[int, int]
"""The numbers that a linear module takes in and puts out, for each token."""

_PRODUCT = re.compile(r"/(?P<path>model/layers\.\d+/\w+/(?P<name>\w+))/MatMul(?:_\w+)?")
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
# What the builder calls another way than the model's class.
_ALIASES = {
    "o_proj": ("dense", "out_proj"),
    "gate_proj": ("w1",),
    "up_proj": ("w3",),
    "down_proj": ("w2",),
}
_ROWS = "adapter_rows"


@dataclass(frozen=True)
class Product:
    """A matrix product of the graph: its node's name, and the sizes of its weight."""

    node: str
    inputs: int
    outputs: int

    @property
    def path(self) -> str:
        """Its site's name, such as ``model.layers.0.attn.q_proj``."""
        match = _PRODUCT.fullmatch(self.node)
        assert match is not None
        return match["path"].replace("/", ".")

    @property
    def layer(self) -> int:
        """The layer that it is in, from 0."""
        return _layer(self.path)

    @property
    def name(self) -> str:
        """The last word of its path, such as ``q_proj``."""
        return self.path.rpartition(".")[2]


def plan(products: Sequence[Product], linears: Mapping[str, Size]) -> list[Site]:
    """The sites of a graph: which product computes which linear modules of the model.

    A product for which no module is found, by layer, name and sizes, gets no site, and an adapter
    that targets such a module is refused later.

    :param linears: the model's linear modules by name, with their sizes.
    """
    modules: dict[tuple[int, str], list[str]] = {}
    for name in linears:
        if re.search(r"\.\d+\.", name):
            modules.setdefault((_layer(name), name.rpartition(".")[2]), []).append(name)
    # A name that a layer has more than once belongs to experts, which no product computes alone.
    only = {key: names[0] for key, names in modules.items() if len(names) == 1}
    widths = {(product.layer, product.name): product.outputs for product in products}
    sites = []
    for product in products:
        parts = _parts(product, only, linears, widths)
        fits = all(linears[part.module][0] == product.inputs for part in parts)
        if parts and fits and sum(part.width for part in parts) == product.outputs:
            sites.append(Site(product.path, product.inputs, tuple(parts)))
    return sites


def _parts(
    product: Product,
    modules: Mapping[tuple[int, str], str],
    linears: Mapping[str, Size],
    widths: Mapping[tuple[int, str], int],
) -> list[Part]:
    """The modules, or rows of one, whose outputs the product computes."""
    layer = product.layer
    for name in (product.name, *_ALIASES.get(product.name, ())):
        if (layer, name) in modules:
            module = modules[layer, name]
            return [Part(module, 0, linears[module][1])]
    split = [modules.get((layer, name)) for name in _FUSED.get(product.name, ())]
    if split and None not in split:
        return [Part(module, 0, linears[module][1]) for module in split if module is not None]
    for whole, names in _FUSED.items():
        if product.name in names and (layer, whole) in modules:
            before = names[: names.index(product.name)]
            if all((layer, name) in widths for name in before):
                start = sum(widths[layer, name] for name in before)
                return [Part(modules[layer, whole], start, start + product.outputs)]
    return []


def add(graph: Path, linears: Mapping[str, Size]) -> list[Site]:
    """Add a branch to every projection of ``graph`` that computes one of ``linears``.

    :raises ExportError: if it computes none of them in a way that is known.
    """
    import onnx

    model = onnx.load(str(graph), load_external_data=False)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {
        product: node
        for node in model.graph.node
        if (product := _product(node, weights)) is not None
    }
    sites = {site.name: site for site in plan(list(nodes), linears)}
    if not sites:
        raise ExportError(
            "the graph has no projections that adapters could be added to; "
            "merge the adapter: --adapters merge"
        )
    after = {
        node.name: (sites[product.path], _type_of(node, weights))
        for product, node in nodes.items()
        if product.path in sites
    }
    written = []
    for node in model.graph.node:
        written.append(node)
        if node.name in after:
            site, kind = after[node.name]
            written += _branch(node, site, kind)
            _declare(model.graph, site)
    # Nodes are messages of the graph, so they are copied before it is emptied.
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in written]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    onnx.helper.set_model_props(model, {**_props(model), NOTE: to_text(list(sites.values()))})
    beside = graph.with_name(f".{graph.name}.tmp")
    onnx.save(model, str(beside))
    put(beside, graph)
    return list(sites.values())


def _branch(node: onnx.NodeProto, site: Site, kind: int) -> list[onnx.NodeProto]:
    """The nodes that add ``x A B`` to what ``node`` computes; its output's name stays."""
    import onnx
    from onnx import helper

    output, base, factors, made = node.output[0], f"{node.output[0]}/base", [], []
    for factor in (site.down, site.up):
        factors.append(factor)
        if kind != onnx.TensorProto.FLOAT:
            # One file of an adapter serves graphs of every precision.
            factors[-1] = f"{factor}/cast"
            made.append(helper.make_node("Cast", [factor], [factors[-1]], factors[-1], to=kind))
    down, up = f"{site.name}/lora_A/output_0", f"{site.name}/lora_B/output_0"
    node.output[0] = base
    return [
        *made,
        helper.make_node("MatMul", [node.input[0], factors[0]], [down], f"{site.name}/lora_A"),
        helper.make_node("MatMul", [down, factors[1]], [up], f"{site.name}/lora_B"),
        helper.make_node("Add", [base, up], [output], f"{site.name}/lora_Add"),
    ]


def _declare(graph: onnx.GraphProto, site: Site) -> None:
    """The factors of a site as initializers of rank 0 that are inputs too."""
    from onnx import TensorProto, helper

    rank = f"{site.name}.rank"
    for name, empty, shape in (
        (site.down, (1, site.inputs, 0), (_ROWS, site.inputs, rank)),
        (site.up, (1, 0, site.outputs), (_ROWS, rank, site.outputs)),
    ):
        graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, empty, b"", raw=True))
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _product(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> Product | None:
    """What a node multiplies by, if it is a projection of a layer."""
    if _PRODUCT.fullmatch(node.name) is None:
        return None
    if node.op_type == "MatMul" and node.input[1] in weights:
        inputs, outputs = weights[node.input[1]].dims
        return Product(node.name, inputs, outputs)
    if node.op_type == "MatMulNBits":
        sizes = {attribute.name: attribute.i for attribute in node.attribute}
        return Product(node.name, sizes["K"], sizes["N"])
    return None


def _type_of(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> int:
    """The type of number that a product computes in: that of its weight, or of its scales."""
    place = 1 if node.op_type == "MatMul" else 2
    return int(weights[node.input[place]].data_type)


def _props(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _layer(name: str) -> int:
    match = re.search(r"\.(\d+)\.", name)
    assert match is not None
    return int(match[1])
