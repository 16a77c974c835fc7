"""The bytes that a run writes, and the rate of writing: saving a large model takes long.

A checkpoint holds the weights, or the adapter alone, and AdamW's two moments of what is trained.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import TrainingArguments

    from risen_plugin.training.protocols import Model

_SAMPLE = 256 * 2**20
"""Bytes that are written to measure the rate."""


def saved_bytes(model: Model) -> tuple[int, int]:
    """Bytes of the final ``model``, or of its adapter, and of a checkpoint on the way."""
    trained = [p.numel() * p.element_size() for p in model.parameters() if p.requires_grad]
    is_adapter = hasattr(model, "peft_config")
    every = [p.numel() * p.element_size() for p in model.parameters()]
    final = sum(trained if is_adapter else every)
    return final, final + 2 * sum(trained)


def write_rate(model: Model, folder: Path) -> float:
    """Bytes per second at which weights of ``model`` are written to a file in ``folder``.

    Writes up to 256 MB; infinite where the folder takes no file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    chosen: dict[str, torch.Tensor] = {}
    size = 0
    for name, parameter in model.named_parameters():
        size += parameter.numel() * parameter.element_size()
        chosen[name] = parameter.detach()
        if size >= _SAMPLE:
            break
    began = time.perf_counter()
    try:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in chosen.items()},
            folder / "sample.safetensors",
        )
    except (OSError, SafetensorError):
        return math.inf
    return size / max(time.perf_counter() - began, 1e-9)


def save_every(args: TrainingArguments, rows: int) -> float:
    """Steps from one checkpoint to the next; below 1, their share of the run; 0 for none."""
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "steps":
        return float(args.save_steps)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return float(max(1, rows // batch)) if strategy == "epoch" else 0.0
