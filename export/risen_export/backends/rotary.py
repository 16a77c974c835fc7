"""Take rotary tables from the model's own class, and put them into a builder's graph.

Builders read a configuration's rope settings anew, and get some wrong: linear scaling is ignored,
YaRN without betas divides by zero. The class itself says which frequencies it uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto
    from transformers import PreTrainedConfig

ONE_FOR_ALL = ""
"""Key of the frequencies where all layers have the same."""
TABLES = {
    "cos_cache": ONE_FOR_ALL,
    "sin_cache": ONE_FOR_ALL,
    "cos_cache_global": "full_attention",
    "sin_cache_global": "full_attention",
    "cos_cache_local": "sliding_attention",
    "sin_cache_local": "sliding_attention",
}
"""Initializers of the builder's graphs, and the type of the layers that read them."""


@dataclass(frozen=True)
class Rope:
    """Frequencies (R/2,) in radians per token for R rotated dimensions, and the tables' factor."""

    frequencies: torch.Tensor
    factor: float

    @property
    def width(self) -> int:
        """R, the rotated dimensions of a head."""
        return 2 * len(self.frequencies)

    def tables(self, length: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Cosines and sines (length, R/2), computed as the class does it."""
        import torch

        positions = torch.arange(length, dtype=torch.float32)
        angles = torch.outer(positions, self.frequencies.float())
        return (angles.cos() * self.factor).numpy(), (angles.sin() * self.factor).numpy()


def ropes_of(config: PreTrainedConfig) -> dict[str, Rope]:
    """The frequencies of a model, by the type of its layers; empty if it rotates nothing.

    The class is built without memory for weights, its rotary module for real.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            return _read(type(module)(config=config))
    return {}


def _read(module: Any) -> dict[str, Rope]:
    names = {
        name.removesuffix("inv_freq").removesuffix("_")
        for name, _ in module.named_buffers()
        if name.endswith("inv_freq") and not name.endswith("original_inv_freq")
    }
    return {
        name: Rope(
            getattr(module, f"{name}_inv_freq" if name else "inv_freq"),
            float(getattr(module, f"{name}_attention_scaling" if name else "attention_scaling")),
        )
        for name in names
    }


def write_tables(model: ModelProto, folder: Path, ropes: Mapping[str, Rope]) -> None:
    """Overwrite the tables of a graph and of its data in ``folder``; their sizes stay.

    :raises ValueError: if a table has another number of dimensions than the class rotates.
    """
    import onnx

    for tensor in model.graph.initializer:
        rope = ropes.get(TABLES.get(tensor.name, "none"))
        if rope is None:
            continue
        length, half = tensor.dims
        if 2 * half != rope.width:
            raise ValueError(f"{tensor.name} rotates {2 * half} dimensions, not {rope.width}")
        values = rope.tables(length)[tensor.name.startswith("sin")]
        raw = values.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).tobytes()
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _overwrite(folder, tensor, raw)
        else:
            tensor.raw_data = raw


def _overwrite(folder: Path, tensor: Any, raw: bytes) -> None:
    where = {entry.key: entry.value for entry in tensor.external_data}
    if int(where.get("length", len(raw))) != len(raw):
        raise ValueError(f"{tensor.name} takes {where['length']} bytes, not {len(raw)}")
    with (folder / where["location"]).open("r+b") as file:
        file.seek(int(where.get("offset", 0)))
        file.write(raw)
