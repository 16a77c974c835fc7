"""Feed a graph as Hugging Face clients do: concatenated caches, padding on either side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

STEPS = 16
"""Decoding steps after the prefill."""


def open_graph(path: Path) -> Any:
    """A session of plain onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def logits_after(
    session: Any, rows: Sequence[Sequence[int]], forced: npt.NDArray[np.int64], *, left: bool
) -> npt.NDArray[np.float32]:
    """Logits (B, 1 + steps, V) after the prompts and after each forced token (B, steps)."""
    width, lengths = max(map(len, rows)), np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for line, row in enumerate(rows):
        cells = slice(width - len(row), width) if left else slice(0, len(row))
        ids[line, cells], mask[line, cells] = row, 1
    caches = {
        value.name: np.zeros((len(rows), value.shape[1], 0, value.shape[3]), dtype=np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past_key_values.")
    }
    positions = any(value.name == "position_ids" for value in session.get_inputs())
    wanted = ["logits", *(name.replace("past_key_values", "present") for name in caches)]
    last = np.full(len(rows), width - 1) if left else lengths - 1
    seen = []
    for step in range(forced.shape[1] + 1):
        feeds = {"input_ids": ids, "attention_mask": mask, **caches}
        if positions:
            feeds["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
        logits, *present = session.run(wanted, feeds)
        seen.append(logits[np.arange(len(rows)), last])
        if step < forced.shape[1]:
            caches = dict(zip(caches, present, strict=True))
            ids, last = forced[:, step : step + 1], np.zeros(len(rows), dtype=np.int64)
            mask = np.concatenate([mask, np.ones((len(rows), 1), dtype=np.int64)], axis=1)
    return np.stack(seen, axis=1)
