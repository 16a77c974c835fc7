"""The manifest of a bundle: its files with hashes, sizes by kind, and its precisions.

Reads and writes ``manifest.json``; it neither builds nor runs anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from risen_plugin.errors import ExportError, near_miss, near_path
from risen_plugin.kit.files import sha256
from risen_plugin.record.description import versions_of

if TYPE_CHECKING:
    import onnx

FORMAT = "risen-bundle/1"
MANIFEST = "manifest.json"
GRAPH = "model.onnx"
DATA = "model.onnx.data"
_PACKAGES = (
    "risen-plugin",
    "torch",
    "transformers",
    "peft",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-genai",
    "onnxruntime-genai-cuda",
    "onnx",
    "onnx-ir",
    "tokenizers",
)


class FileEntry(TypedDict):
    """One file of a bundle."""

    bytes: int
    sha256: str


def files_of(folder: Path) -> dict[str, FileEntry]:
    """Every file below ``folder`` but its manifest: its ``bytes`` and ``sha256``."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def versions() -> dict[str, str]:
    """Versions of the packages that a bundle is made with, those installed only."""
    return versions_of(_PACKAGES)


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest of a bundle folder; None if there is none.

    :raises ExportError: if the file is there but is not a manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ExportError(f"{path} is not a bundle's manifest (its format is not '{FORMAT}')")
    return content


def choose_precision(path: Path, precision: str | None) -> Path:
    """The folder to open for ``OUT`` or ``OUT/<precision>``, its files complete by size.

    :raises ExportError: if there is no bundle, no such precision, or a file is missing or cut.
    """
    manifest = read(path) if path.is_dir() else None
    if manifest is not None and "precisions" in manifest:
        offered = list(manifest["precisions"])
        wanted = precision or ("fp32" if "fp32" in offered else offered[0])
        if wanted not in offered:
            raise ExportError(
                f"bundle {path} has no precision '{wanted}'{near_miss(wanted, offered) or '.'} "
                f"It has: {', '.join(offered)}"
            )
        path = path / wanted
        manifest = read(path)
    if manifest is None or not (path / GRAPH).is_file():
        lacks = "there is no such folder"
        if path.exists():
            lacks = f"no {MANIFEST} with a {GRAPH} in it"
        hint = near_path(path, folders=True) or "; make one with: risen export RUN_OR_MODEL OUT"
        raise ExportError(f"{path} is not a bundle: {lacks}{hint}")
    if precision not in (None, manifest["precision"]):
        raise ExportError(f"{path} is {manifest['precision']}, not '{precision}'")
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise ExportError(f"{file} is missing or cut short; copy or export the bundle again")
    return path


def check(path: str | Path) -> list[str]:
    """Files of ``OUT`` or ``OUT/<precision>`` that differ from the manifest's hashes; [] is good.

    :raises ExportError: if there is no manifest.
    """
    folder = Path(path)
    manifest = read(folder)
    if manifest is None:
        raise ExportError(f"{folder} has no {MANIFEST}")
    if "precisions" in manifest:
        bad = []
        for name, entry in manifest["precisions"].items():
            inner = folder / name / MANIFEST
            if not inner.is_file() or sha256(inner) != entry["manifest_sha256"]:
                bad.append(f"{name}/{MANIFEST}")
            else:
                bad += [f"{name}/{file}" for file in check(folder / name)]
        return bad
    return [
        name
        for name, entry in manifest["files"].items()
        if not (folder / name).is_file() or sha256(folder / name) != entry["sha256"]
    ]


def bytes_by_kind(folder: str | Path) -> dict[str, int]:
    """The bytes of an ``OUT/<precision>`` folder by kind; the values sum to its files.

    Kinds: ``int8_weights`` and ``int8_scales`` (the embedding too where it is tied),
    ``embedding_fp32`` (the output layer too where it is tied), ``matrices_fp32``,
    ``vectors_fp32`` (norms and biases), ``rotary_tables``, ``other_tensors``, ``graph``
    (structure and alignment) and ``tokenizer_and_configs``. The manifest itself is not counted.
    """
    import math

    import onnx

    folder = Path(folder)
    model = onnx.load(str(folder / GRAPH), load_external_data=False)
    makers = {name: node for node in model.graph.node for name in node.output}
    looked_up: set[str] = set()
    for node in model.graph.node:
        if "input_ids" in node.input:
            looked_up.update(node.input)
            # A tied embedding is the transposed weight of the output layer.
            for name in node.input:
                looked_up.update(makers[name].input if name in makers else ())
    kinds: dict[str, int] = {}
    for tensor in model.graph.initializer:
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        size = math.prod(tensor.dims) * item
        if tensor.data_type == onnx.TensorProto.INT64:
            continue  # a shape or an axis: part of the graph
        kind = _kind(tensor, looked_up)
        kinds[kind] = kinds.get(kind, 0) + size
    graph = sum(
        (folder / name).stat().st_size for name in (GRAPH, DATA) if (folder / name).exists()
    )
    kinds["graph"] = graph - sum(kinds.values())
    kinds["tokenizer_and_configs"] = sum(
        entry["bytes"] for name, entry in files_of(folder).items() if name not in (GRAPH, DATA)
    )
    return dict(sorted(kinds.items(), key=lambda kind: -kind[1]))


def _kind(tensor: onnx.TensorProto, looked_up: set[str]) -> str:
    import onnx

    floats = tensor.data_type == onnx.TensorProto.FLOAT
    if tensor.data_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8):
        return "int8_weights"
    if not floats:
        return "other_tensors"
    if "_scale" in tensor.name:
        return "int8_scales"
    if tensor.name in ("cos_cache", "sin_cache"):
        return "rotary_tables"
    if tensor.name in looked_up:
        return "embedding_fp32"
    return "matrices_fp32" if len(tensor.dims) > 1 else "vectors_fp32"
