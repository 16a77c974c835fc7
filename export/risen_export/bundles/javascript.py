"""Lay a variant out so that transformers.js opens it by its defaults, its weights stored once.

transformers.js looks for ``onnx/model<suffix>.onnx`` and for the weights beside it, in
``onnx/model<suffix>.onnx_data``. onnxruntime refuses weights that lie above a graph's folder, so
they move there, and ``model.onnx`` names them from where it is; only the graph's structure is
written twice. All other clients open ``model.onnx`` as before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from risen_export.bundles.manifest import GRAPH
from risen_plugin.kit.files import write_json

if TYPE_CHECKING:
    import onnx

FOLDER = "onnx"
SETTINGS = "transformers.js_config"
# transformers.js's names of what it calls dtypes, with the ending of their files. It has none for
# bf16, nor for 8-bit weights among fp16 activations.
_SUFFIXES = {"fp32": "", "fp16": "_fp16", "int8": "_int8", "q4": "_q4", "q4f16": "_q4f16"}
_DTYPES = {
    "fp32": "fp32",
    "int8": "int8",
    "int4": "q4",
    "cuda-fp16": "fp16",
    "cuda-int4": "q4f16",
}


def dtype_of(variant: str) -> str | None:
    """transformers.js's word for a variant (``q4`` for ``int4-mixed``); None if it has none."""
    words = variant.split("-")
    return _DTYPES.get("-".join(words[: 2 if words[0] == "cuda" else 1]))


def share_with_javascript(folder: Path) -> str | None:
    """Move the weights of the variant in ``folder`` to where transformers.js looks for them.

    ``config.json`` then says which dtype it is, so that no option is needed. A variant without a
    dtype of that library, or with weights in several files, stays as it is.

    :return: the name of the weights' file from ``folder``; None if nothing was moved.
    """
    import onnx

    dtype = dtype_of(folder.name)
    if dtype is None:
        return None
    model = onnx.load(str(folder / GRAPH), load_external_data=False)
    places = {entry.value for entry in _locations(model.graph)}
    if len(places) != 1:
        return None
    (written,) = places
    if not (folder / written).is_file() or "/" in written:
        return None
    graph = f"model{_SUFFIXES[dtype]}.onnx"
    data = f"{graph}_data"
    (folder / FOLDER).mkdir()
    (folder / written).rename(folder / FOLDER / data)
    for path, location in ((FOLDER + "/" + graph, data), (GRAPH, f"{FOLDER}/{data}")):
        for entry in _locations(model.graph):
            entry.value = location
        onnx.save(model, str(folder / path))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config[SETTINGS] = {"dtype": dtype, "use_external_data_format": {graph: 1}}
    write_json(folder / "config.json", config, ascii_only=False)
    return f"{FOLDER}/{data}"


def _locations(graph: onnx.GraphProto) -> Iterator[onnx.StringStringEntryProto]:
    """The entries that name a file of weights, in the graph and in those inside of its nodes."""
    for tensor in graph.initializer:
        yield from (entry for entry in tensor.external_data if entry.key == "location")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _locations(inner)
            yield from (entry for entry in attribute.t.external_data if entry.key == "location")
