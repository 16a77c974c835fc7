"""Leave out of an update what has no part in its gradient: a batch of answers made smaller.

TRL pads all answers of a generation batch to the longest and computes them all. Columns that are
padding in every row add nothing, and where nothing but the advantage weighs a row, a row of
advantage 0 adds nothing: its whole group scored alike. The gradient stays what it was, up to the
rounding of sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_OF_PROMPTS = ("prompt_ids", "prompt_mask")
_OF_ANSWERS = (
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
)
_WHOLE = ("num_items_in_batch",)
_KNOWN = frozenset((*_OF_PROMPTS, *_OF_ANSWERS, *_WHOLE, "advantages"))


def trimmed(inputs: Mapping[str, Any], *, drops_rows: bool) -> dict[str, Any]:
    """TRL's inputs of a loss without columns of padding; and without rows of advantage 0.

    One row and one column always stay. Inputs that hold anything else, such as images, stay whole.

    :param inputs: prompts (B, P), padded on the left; answers (B, T), padded on the right; and
        advantages, (B,) or (B, T).
    :param drops_rows: whether the advantage alone weighs a row.
    """
    if any(value is not None and name not in _KNOWN for name, value in inputs.items()):
        return dict(inputs)
    advantages = inputs["advantages"]
    rows = torch.ones(len(advantages), dtype=torch.bool, device=advantages.device)
    if drops_rows:
        rows = (advantages.reshape(len(advantages), -1) != 0).any(dim=1)
        rows[0] |= ~rows.any()
    stays_whole = bool(rows.all())  # then the same tensors, without a copy
    kept: dict[str, Any] = {
        name: value if stays_whole or name in _WHOLE or value is None else value[rows]
        for name, value in inputs.items()
    }
    first = _padding(kept["prompt_mask"].flip(1))
    last = kept["completion_mask"].shape[1] - _padding(kept["completion_mask"])
    for name in _OF_PROMPTS:
        kept[name] = kept[name][:, first:]
    for name in _OF_ANSWERS:
        if kept.get(name) is not None:
            kept[name] = kept[name][:, :last]
    if kept["advantages"].dim() > 1:
        kept["advantages"] = kept["advantages"][:, :last]
    return kept


def _padding(mask: torch.Tensor) -> int:
    """How many of the last columns are 0 in every row; never all of them."""
    used = torch.nonzero(mask.any(dim=0))
    return mask.shape[1] - (int(used[-1]) + 1 if len(used) else 1)
