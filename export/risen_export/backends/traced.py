"""The exporter ``transformers``: the model's own code, traced by transformers' ONNX exporter.

It follows every class of transformers whose cache holds keys and values alone. One graph serves
prompts and steps: it is traced with several new tokens on a past of several, both of any length, so
that an empty past is a prompt. ``export_for_generation`` would write the weights twice, and its
fusions of prompts are silently wrong where rows are padded on the left.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.backends import concatenating, rounding
from risen_export.bundles.manifest import GRAPH
from risen_export.quiet import quiet
from risen_plugin.errors import ExportError

if TYPE_CHECKING:
    import onnx_ir as ir
    from transformers import DynamicCache, PreTrainedModel

_NEEDED = ("onnxruntime", "onnx", "onnx_ir", "onnxscript")
_STATES = ("linear_attention", "mamba", "mamba2", "conv", "recurrent", "hybrid", "moe", "ssm")
"""Kinds of layers, in ``layer_types``, whose state is no keys and values."""
_STATEFUL = (
    "mamba",
    "mamba2",
    "falcon_mamba",
    "falcon_h1",
    "jamba",
    "bamba",
    "zamba",
    "zamba2",
    "rwkv",
    "xlstm",
    "recurrent_gemma",
    "nemotron_h",
)
"""Model types that keep such a state without saying so in ``layer_types``."""
# Distinct sizes, none of them 0 or 1: torch.export would take an axis of those for a fixed one, and
# two axes of one size for the same axis.
_ROWS, _PAST, _NEW = 2, 3, 5


@dataclass(frozen=True)
class TransformersExporter:
    """transformers' own ONNX exporter: slower graphs, for nearly every decoder of transformers."""

    def refuses(self, config: Mapping[str, Any], target: str, precision: str) -> str | None:
        """Why no right graph comes of such a model, in one line; None if one does."""
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            packages = " ".join(name.replace("_", "-") for name in missing)
            return f"it needs the packages of the cpu extra: pip install {packages}"
        if importlib.util.find_spec("transformers.exporters") is None:
            return "the installed transformers has no exporters; pip install -U transformers"
        if target != "cpu":
            return f"it builds for cpu alone, not for {target}"
        if precision not in rounding.PRECISIONS:
            return f"it builds {', '.join(rounding.PRECISIONS)}, not {precision}"
        return unfit(config)

    def __call__(
        self,
        *,
        model: str,
        out: str,
        target: str,
        precision: str,
        scratch: str,
        show_log: bool = False,
        **context: Any,
    ) -> None:
        """Trace the model, round its weights where that is asked for, and write the graph.

        The traced graph stays in ``scratch`` for the next precision.
        """
        config, kept = concatenating.read_config(Path(model)), Path(scratch, "traced")
        with quiet(show=show_log):
            if not (kept / GRAPH).is_file():
                program = trace(_load(model))
                concatenating.name_values(program.graph)
                concatenating.save(program, kept)
                del program
            rounding.deliver(kept, Path(out), config, precision)


def unfit(config: Mapping[str, Any]) -> str | None:
    """Why the arithmetic of a model cannot be traced; None if it can.

    >>> unfit({"rope_parameters": {"rope_type": "dynamic"}})
    "its rotary table changes with the length of the sequence (rope type 'dynamic'), and a trace..."
    """
    kind = str(config.get("model_type"))
    if config.get("is_encoder_decoder"):
        return "it is an encoder-decoder model"
    layers = config.get("layer_types")
    states = sorted(set(layers if isinstance(layers, list) else ()) & set(_STATES))
    if states or kind in _STATEFUL:
        return (
            f"layers of the kind '{states[0] if states else kind}' keep a state that is no keys "
            "and values, which a bundle does not feed"
        )
    for rope in _ropes(config):
        if rope in ("dynamic", "longrope"):
            return (
                f"its rotary table changes with the length of the sequence (rope type '{rope}'), "
                "and a trace holds one table"
            )
    return None


def _ropes(config: Mapping[str, Any]) -> list[str]:
    """The rope types of a configuration, of all kinds of layers, old names and new ones."""
    found: list[str] = []
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.get(name)
        if not isinstance(rope, Mapping):
            continue
        each = [one for one in rope.values() if isinstance(one, Mapping)] or [rope]
        found += [str(one.get("rope_type") or one.get("type") or "default") for one in each]
    return found


def _load(folder: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()  # type: ignore[no-any-return]


def trace(model: PreTrainedModel) -> ir.Model:
    """The graph of a model in memory, its weights shared with it.

    :raises ExportError: if the model keeps another state than keys and values.
    """
    # A lazy module, of which mypy sees no names.
    from transformers.exporters import OnnxConfig, OnnxExporter  # type: ignore[attr-defined]

    inputs = example(model)
    exported = OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True))
    program: ir.Model = exported.program
    return program


def example(model: PreTrainedModel) -> dict[str, Any]:
    """Inputs of one step over several new tokens, (B, T), with a past of another length."""
    import torch

    ids = torch.arange(_ROWS * (_PAST + _NEW)).reshape(_ROWS, -1) % 17
    cache = _past(model, ids[:, :_PAST])
    inputs: dict[str, Any] = {
        "input_ids": ids[:, _PAST:].contiguous(),
        "attention_mask": torch.ones_like(ids),
        "past_key_values": cache,
        "use_cache": True,
    }
    if "position_ids" in inspect.signature(model.forward).parameters:
        positions = torch.arange(_PAST, _PAST + _NEW).expand(_ROWS, _NEW)
        inputs["position_ids"] = positions.contiguous()
    return inputs


def _past(model: PreTrainedModel, ids: Any) -> DynamicCache:
    """Keys and values of a few tokens, every layer with all of them, windows or not."""
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache()  # without a configuration, which would cut layers with a window
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    other = [layer for layer in cache.layers if type(layer) is not DynamicLayer]
    if other or not cache.layers:
        what = type(other[0]).__name__ if other else "nothing"
        raise ExportError(
            f"{type(model).__name__} keeps {what} between two steps, not keys and values, which a "
            "bundle does not feed"
        )
    return cache
