"""Make the graph of an exporter that follows the model's own code one that a bundle can hold.

Such a graph makes the present from the past and the new tokens, so the past grows with each run.
Here its inputs and outputs get the names of the contract, its weights go into one file, and a
``genai_config.json`` says how it is fed. Compiling and running it are left to others.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.bundles.manifest import DATA, GRAPH
from risen_plugin.errors import ExportError
from risen_plugin.kit.files import write_json

if TYPE_CHECKING:
    import onnx_ir as ir

_INPUTS = ("input_ids", "attention_mask", "position_ids")
_CACHE = re.compile(
    r"(?:(?:input|output)\.)?(?:past_key_values|present)\.(?:layers\.)?(\d+)\.(key|value)s?"
)
_INLINE = 1024  # bytes of a tensor that stays in the graph, where shape inference reads it


def name_values(graph: ir.Graph) -> None:
    """Give inputs and outputs the names ``past_key_values.N.key`` and ``present.N.key``.

    The first axis of each is named ``batch_size``, the axes that grow with the sequence after what
    they hold, whatever the exporter called them.

    :raises ExportError: if the graph has an input or output of another meaning.
    """
    import onnx_ir as ir

    for values, cache in ((graph.inputs, "past_key_values"), (graph.outputs, "present")):
        for value in values:
            found = _CACHE.fullmatch(str(value.name))
            if found:
                value.name = f"{cache}.{found[1]}.{found[2]}"
            elif value.name not in (*_INPUTS, "logits"):
                raise ExportError(f"the graph has '{value.name}', which a bundle does not feed")
            shape = value.shape
            if shape is None:
                raise ExportError(f"the graph does not say the shape of '{value.name}'")
            length = {"attention_mask": "total_sequence_length"}.get(str(value.name))
            if found:
                length = "past_sequence_length" if cache != "present" else "total_sequence_length"
            axis = 2 if found else 1
            value.shape = ir.Shape(
                [
                    "batch_size"
                    if n == 0
                    else (length or "sequence_length")
                    if n == axis
                    else _number(size)
                    for n, size in enumerate(shape)
                ]
            )


def _number(size: Any) -> Any:
    """An axis of fixed size as a number, which a trace may write as the text of a symbol."""
    text = str(getattr(size, "value", size))
    return int(text) if text.isdigit() else size


def save(model: ir.Model, folder: Path) -> None:
    """Write ``model.onnx`` and all weights, each once, to ``model.onnx.data``."""
    import onnx_ir as ir

    model.graph.doc_string = model.doc_string = None
    for node in model.graph.all_nodes():  # stack traces hold the paths of this machine
        node.doc_string = None
        node.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.metadata_props.clear()
    folder.mkdir(parents=True, exist_ok=True)
    ir.save(model, folder / GRAPH, external_data=DATA, size_threshold_bytes=_INLINE)


def hand_over(kept: Path, folder: Path) -> None:
    """Copy the graph in ``kept`` to ``folder``.

    No link: a bundle is laid out by changing it where it is, and onnx refuses linked weights.
    """
    for name in (GRAPH, DATA):
        shutil.copyfile(kept / name, folder / name)


def layers_of(graph: ir.Graph) -> list[tuple[int, int]]:
    """(heads, head size) of the keys of each layer, in order.

    :raises ExportError: if the cache of a layer has no fixed size.
    """
    sizes = []
    shapes = {str(value.name): value.shape for value in graph.inputs}
    for layer in range(sum(name.endswith(".key") for name in shapes)):
        shape = shapes.get(f"past_key_values.{layer}.key")
        heads, size = (None, None) if shape is None else (shape[1], shape[3])
        if not isinstance(heads, int) or not isinstance(size, int):
            raise ExportError(f"the graph does not say the size of the keys of layer {layer}")
        sizes.append((heads, size))
    return sizes


def describe(folder: Path, config: Mapping[str, Any], graph: ir.Graph) -> None:
    """Write ``genai_config.json``: the names of the graph, and that past and present are apart."""
    sizes = layers_of(graph)
    inputs = {str(value.name): str(value.name) for value in graph.inputs}
    decoder = {
        "session_options": {"provider_options": []},
        "filename": GRAPH,
        "head_size": sizes[0][1],
        "hidden_size": int(first(config, "hidden_size", "n_embd", "d_model")),
        "num_attention_heads": int(
            first(config, "num_attention_heads", "n_head", "n_heads", "num_heads")
        ),
        "num_hidden_layers": len(sizes),
        "num_key_value_heads": sizes[0][0],
        "inputs": {
            **{name: name for name in _INPUTS if name in inputs},
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    context = context_of(config)
    ends = config.get("eos_token_id")
    begin = config.get("bos_token_id")
    content = {
        "model": {
            **({} if begin is None else {"bos_token_id": begin}),
            "context_length": context,
            "decoder": decoder,
            "eos_token_id": ends,
            "pad_token_id": _pad(config, ends),
            "type": "decoder",
            "vocab_size": int(config["vocab_size"]),
        },
        "search": {
            "do_sample": False,
            "max_length": context,
            "min_length": 0,
            "past_present_share_buffer": False,
        },
    }
    write_json(folder / "genai_config.json", content, ascii_only=False)


def context_of(config: Mapping[str, Any]) -> int:
    """The longest sequence of a model, in tokens; 2048 where its configuration does not say.

    Models without learned positions (alibi) may name none; 2048 is what they were trained on.
    """
    names = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")
    return int(first(config, *names, default=2048))


def first(config: Mapping[str, Any], *names: str, default: Any = None) -> Any:
    """The value of the first name that the configuration has.

    :raises ExportError: if it has none, and there is no default.
    """
    for name in names:
        if config.get(name) is not None:
            return config[name]
    if default is None:
        raise ExportError(f"config.json names none of {', '.join(names)}")
    return default


def _pad(config: Mapping[str, Any], ends: Any) -> Any:
    pad = config.get("pad_token_id")
    if pad is None:
        pad = ends[0] if isinstance(ends, list) and ends else ends
    return 0 if pad is None or isinstance(pad, list) else pad


def read_config(model: Path) -> dict[str, Any]:
    """The configuration of a merged model."""
    content: dict[str, Any] = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return content
