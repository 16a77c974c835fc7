"""Read a saved LoRA adapter and fit it to the sites of a graph, with numpy alone.

What only merging can do justice to is refused: anything that is more than ``x A B`` added to what
linear modules put out. Scales (``lora_alpha``, rsLoRA, patterns) are folded into B.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from risen_export.bundles.sites import Site
from risen_plugin.errors import ExportError, near_path, one_line

Array = npt.NDArray[np.float32]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<which>[AB])\.weight")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_MERGE = "merge it instead: risen export {} OUT"
# Settings that say where and how the factors were trained, which A and B themselves tell.
_HARMLESS = frozenset(
    (
        *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path"),
        *("revision", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha"),
        *("lora_dropout", "fan_in_fan_out", "use_rslora", "init_lora_weights", "eva_config"),
        *("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
        *("megatron_core", "loftq_config", "qalora_group_size", "runtime_config"),
        "ensure_weight_tying",
    )
)
# What the rest of the settings train, in the words of a message.
_MORE = {
    "use_dora": "is a DoRA adapter, which rescales the base's own weights",
    "modules_to_save": "trained whole modules (modules_to_save)",
    "trainable_token_indices": "trained rows of the embedding (trainable_token_indices)",
    "bias": "trained biases (bias)",
    "lora_bias": "trained biases (lora_bias)",
    "target_parameters": "targets parameters that no linear module has (target_parameters)",
    "layer_replication": "repeats layers of the base (layer_replication)",
}
_UNASKED: tuple[Any, ...] = (None, False, "none", [], {})
# Beginnings that leave the base's weights as they are; PiSSA, OLoRA and others rewrite them.
_PLAIN_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to one linear module.

    :param a: (rank, inputs).
    :param b: (outputs, rank), the scale in it.
    """

    a: Array
    b: Array

    @property
    def norm(self) -> float:
        """The Frobenius norm of what merging would add to the module's weight."""
        # ||BA||^2 is the sum of (B'B) * (AA'), which are rank by rank.
        inner = (self.b.T.astype(np.float64) @ self.b) * (self.a.astype(np.float64) @ self.a.T)
        return math.sqrt(max(float(inner.sum()), 0.0))


@dataclass(frozen=True)
class Lora:
    """A saved adapter.

    :param path: its folder.
    :param factors: by the module's name in the base model.
    :param base: the base model that it names, and ``revision`` that model's.
    """

    path: Path
    factors: dict[str, Factors]
    base: str | None
    revision: str | None

    @property
    def rank(self) -> int:
        """The largest rank of a module."""
        return max(int(one.a.shape[0]) for one in self.factors.values())

    @property
    def targets(self) -> list[str]:
        """The kinds of module that it changes, such as ``q_proj``."""
        return sorted({name.rpartition(".")[2] for name in self.factors})


def find(path: Path) -> Path:
    """The folder of the adapter that ``path`` names: itself, the one in it, or a run's newest.

    :raises ExportError: if there is none, or more than one.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        hint = near_path(path, folders=True) or "; give the folder of a run or of a saved adapter"
        raise ExportError(f"{path} {what}{hint}")
    if (path / CONFIG).is_file():
        return path
    inside = [child for child in sorted(path.iterdir()) if (child / CONFIG).is_file()]
    kept = [child for child in inside if not _CHECKPOINT.fullmatch(child.name)]
    steps = {int(m[1]): c for c in inside if (m := _CHECKPOINT.fullmatch(c.name))}
    if len(kept) > 1:
        names = ", ".join(str(child) for child in kept)
        raise ExportError(f"{path} holds several adapters; name one of them: {names}")
    if not kept and not steps:
        raise ExportError(
            f"{path} holds no adapter: there is no {CONFIG} in it or in one of its checkpoints; "
            f"a whole model is exported: risen export {path} OUT"
        )
    return kept[0] if kept else steps[max(steps)]


def read(folder: Path) -> Lora:
    """The adapter saved in ``folder``.

    :raises ExportError: if it cannot be read, is more than LoRA on linear modules, holds NaN or
        infinity, or changes nothing.
    """
    config = _config(folder)
    more = beyond(config)
    if more is not None:
        raise ExportError(f"adapter {folder} {more}, so it cannot be kept apart; {_hint(folder)}")
    tensors = _tensors(folder)
    found: dict[str, dict[str, Array]] = {}
    for name, tensor in tensors.items():
        match = _FACTOR.fullmatch(name.removeprefix(_PREFIX))
        if match is None or tensor.ndim != 2:
            raise ExportError(
                f"adapter {folder} trained {name.removeprefix(_PREFIX)}, which is no LoRA factor "
                f"of a linear module, so it cannot be kept apart; {_hint(folder)}"
            )
        if not np.isfinite(tensor).all():
            kind = "NaN" if np.isnan(tensor).any() else "infinity"
            raise ExportError(
                f"adapter {folder}: weight {name} holds {kind}; take an earlier checkpoint, and "
                "look at the run's losses"
            )
        found.setdefault(match["module"], {})[match["which"]] = tensor
    factors = {name: _factors(name, pair, config, folder) for name, pair in found.items()}
    if not any(one.b.any() and one.a.any() for one in factors.values()):
        raise ExportError(
            f"adapter {folder} changes nothing: all of its products are zero; was it trained?"
        )
    base = config.get("base_model_name_or_path")
    return Lora(folder, factors, str(base) if base else None, config.get("revision"))


def beyond(config: Mapping[str, Any]) -> str | None:
    """What an adapter's settings ask for that cannot be kept apart, in words; None if nothing."""
    kind = str(config.get("peft_type"))
    if kind != "LORA":
        return f"is of the kind {kind} and not LORA"
    for key, value in config.items():
        if value not in _UNASKED and key not in _HARMLESS:
            return _MORE.get(key, f"has the setting {key}, which changes how it computes")
    beginning = config.get("init_lora_weights", True)
    if beginning not in _PLAIN_BEGINNINGS:
        return f"began by rewriting the base's weights (init_lora_weights {beginning!r})"
    return None


def scale(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """What PEFT multiplies the product of a module's factors by."""
    patterns: Mapping[str, Any] = config.get("alpha_pattern") or {}
    # As PEFT looks it up: a key is a regular expression for the end of the name.
    key = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
    alpha = float(config.get("lora_alpha", 8) if key is None else patterns[key])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def pack(lora: Lora, sites: Sequence[Site]) -> dict[str, Array]:
    """The inputs of the graph that make it compute the adapter.

    A product that computes several modules side by side gets their factors side by side: the
    ranks follow each other, and B is zero where a rank belongs to another module.

    :raises ExportError: if the graph has no place for a module, or one of another size.
    """
    _check_fit(lora, sites)
    inputs: dict[str, Array] = {}
    for site in sites:
        parts = [(part, lora.factors.get(part.module)) for part in site.parts]
        rank = sum(factors.a.shape[0] for _, factors in parts if factors is not None)
        if not rank:
            continue
        down = np.zeros((1, site.inputs, rank), dtype=np.float32)
        up = np.zeros((1, rank, site.outputs), dtype=np.float32)
        row = column = 0
        for part, factors in parts:
            if factors is not None:
                ranks = slice(row, row + factors.a.shape[0])
                down[0, :, ranks] = factors.a.T
                up[0, ranks, column : column + part.width] = factors.b[part.start : part.stop].T
                row = ranks.stop
            column += part.width
        inputs[site.down], inputs[site.up] = down, up
    return inputs


def _check_fit(lora: Lora, sites: Sequence[Site]) -> None:
    sizes: dict[str, tuple[int, int]] = {}
    for site in sites:
        for part in site.parts:
            _, outputs = sizes.get(part.module, (site.inputs, 0))
            sizes[part.module] = (site.inputs, outputs + part.width)
    kinds = {name.rpartition(".")[2] for name in sizes}
    for name, factors in lora.factors.items():
        size = (factors.a.shape[1], factors.b.shape[0])
        if name not in sizes and name.rpartition(".")[2] in kinds:
            raise ExportError(
                f"adapter {lora.path} was trained on another model: the bundle's has no {name}"
            )
        if name not in sizes:
            raise ExportError(
                f"adapter {lora.path} changes {name}, which the bundle's graph cannot switch "
                f"(it can {', '.join(sorted(kinds))}); {_hint(lora.path)}"
            )
        if size != sizes[name]:
            raise ExportError(
                f"adapter {lora.path} was trained on another model: {name} takes {size[0]} "
                f"numbers to {size[1]} there, and {sizes[name][0]} to {sizes[name][1]} here"
            )


def _factors(
    module: str, pair: Mapping[str, Array], config: Mapping[str, Any], folder: Path
) -> Factors:
    a, b = pair.get("A"), pair.get("B")
    if a is None or b is None or a.shape[0] != b.shape[1]:
        raise ExportError(
            f"adapter {folder} is not whole: the factors of {module} do not belong together; "
            "copy it again"
        )
    return Factors(a, b * np.float32(scale(module, a.shape[0], config)))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path} does not hold a JSON object")
    return content


def _tensors(folder: Path) -> dict[str, Array]:
    """The weights of an adapter in fp32; bf16, which numpy lacks, is widened bit by bit."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / _PICKLED).is_file()
        raise ExportError(
            f"adapter {folder} is saved as {_PICKLED}, a pickle, which is not read; save it again: "
            "model.save_pretrained(...)"
            if pickled
            else f"adapter {folder} has no {WEIGHTS}; save it again: model.save_pretrained(...)"
        )
    import safetensors

    try:
        rows = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (OSError, safetensors.SafetensorError) as error:
        raise ExportError(f"{path} cannot be read: {one_line(error)}") from error
    return {name: _array(name, entry, path) for name, entry in rows}


def _array(name: str, entry: Mapping[str, Any], path: Path) -> Array:
    kinds = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "BF16": np.uint16}
    if entry["dtype"] not in kinds:
        raise ExportError(f"{path}: weight {name} is of the type {entry['dtype']}, not a float")
    flat = np.frombuffer(entry["data"], dtype=kinds[entry["dtype"]])
    if entry["dtype"] == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(entry["shape"]).astype(np.float32)


def _hint(path: Path) -> str:
    return _MERGE.format(path)
