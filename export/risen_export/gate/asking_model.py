"""Ask the merged model: the one place of the gate that needs torch.

The answers come from the exact graph, since onnxruntime is the quicker one, and the model reads
them in one pass. Where it finds each token of an answer the likeliest, its own greedy answer is
that very one, by induction over the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from risen_export.gate.measures import spread
from risen_export.gate.probe import Row
from risen_export.gate.reference import Reference, taken
from risen_export.quiet import quiet
from risen_plugin.errors import ExportError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAME = 1e-4
"""Largest difference, relative to the logits' spread, of a model that was saved and read again."""


def load(folder: Path, *, show_log: bool = False) -> PreTrainedModel:
    """The merged model from the folder that it was saved to, its weights read from the disk."""
    import torch
    from transformers import AutoModelForCausalLM

    with quiet(show=show_log):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    return model


def logits_of(model: PreTrainedModel, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """Logits (T, V) of one row."""
    import torch

    with torch.no_grad():
        logits: npt.NDArray[np.float32] = (
            model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float().numpy()
        )
    return logits


def fingerprint(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    """The last logits of some rows, (N, V), to know the model again by."""
    return np.stack([logits_of(model, row)[-1] for row in rows])


def check_fingerprint(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], before: npt.NDArray[np.float32]
) -> None:
    """Refuse a model that answers otherwise than it did before it was saved.

    :raises ExportError: if it does.
    """
    after = fingerprint(model, rows)
    difference = float(np.abs(after - before).max()) / max(spread(before), 1e-30)
    if not difference <= SAME:
        raise ExportError(
            "the model that was saved for the export is not the merged one: its logits differ by "
            f"{difference:.2g} of their spread; nothing was published"
        )


def ask(
    model: PreTrainedModel,
    rows: Sequence[Row],
    scratch: Path,
    *,
    ends: frozenset[int],
    context: int | None,
) -> Reference:
    """Read every row with the model.

    :param scratch: a folder for its logits, which are too many to hold.
    :raises ExportError: if the model cannot read a row.
    """

    def read(ids: Sequence[int]) -> npt.NDArray[np.float32]:
        try:
            return logits_of(model, ids)
        except Exception as error:
            raise ExportError(
                f"the model cannot read a row of {len(ids)} tokens: {one_line(error)}"
            ) from error

    return taken(read, rows, ends=ends, context=context, scratch=scratch)
