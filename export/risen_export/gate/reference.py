"""The model's own numbers on the probe's rows, kept in a small file so that they can be repeated.

Reads and writes files with numpy alone; :mod:`risen_export.gate.asking_model` makes one with
torch, and the exact graph makes one where it has been held to the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from risen_export.gate.measures import Likeliest, likeliest, spread, token_losses
from risen_export.gate.probe import Row
from risen_plugin.errors import ExportError
from risen_plugin.kit.files import write_bytes, write_json

FOLDER = "gate"
NUMBERS = "reference.safetensors"
PROBE = "probe.json"
LAST = 32
"""Compared positions at the end of a long row."""


@dataclass(frozen=True)
class Reference:
    """The model on the probe.

    :param rows: prompts with the model's greedy answers, texts, and long rows.
    :param likeliest: per row, of its compared positions: all, and the last ones of a long row.
    :param losses: per row, in nats; of texts alone, else empty.
    :param spread: mean standard deviation of a position's logits.
    :param ends: ids that end an answer.
    :param context: most tokens of a row.
    :param logits: files of the model's logits (P, V) per row, while the export runs.
    """

    rows: Sequence[Row]
    likeliest: Sequence[Likeliest]
    losses: Sequence[npt.NDArray[np.float32]]
    spread: float
    ends: frozenset[int]
    context: int | None
    logits: Sequence[Path] = ()

    def compared(self, index: int) -> slice:
        """The compared positions of a row."""
        return slice(len(self.rows[index].ids) - len(self.likeliest[index]), None)


def taken(
    read: Callable[[Sequence[int]], npt.NDArray[np.float32]],
    rows: Sequence[Row],
    *,
    ends: frozenset[int],
    context: int | None,
    scratch: Path | None = None,
) -> Reference:
    """Read every row, and keep what a reference keeps.

    :param read: the logits (T, V) of ids (T,).
    :param scratch: a folder for the logits themselves, which are too many to hold.
    """
    kept: list[Likeliest] = []
    losses, files, spreads = [], [], []
    for index, row in enumerate(rows):
        logits = read(row.ids)
        is_text = row.kind == "text"
        ids = np.array(row.ids)
        losses.append(token_losses(logits, ids) if is_text else np.zeros(0, np.float32))
        compared = logits[-LAST:] if row.kind == "long" else logits
        kept.append(likeliest(compared))
        spreads.append(spread(compared))
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
            files.append(scratch / f"{index}.npy")
            np.save(files[-1], compared)
    return Reference(rows, kept, losses, float(np.mean(spreads)), ends, context, files)


def save(reference: Reference, folder: Path) -> None:
    """Write :data:`NUMBERS` and :data:`PROBE` into ``folder``."""
    from safetensors.numpy import save as as_bytes

    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "ids": np.concatenate([np.array(row.ids, np.int32) for row in reference.rows]),
        "likeliest_ids": np.concatenate([one.ids for one in reference.likeliest]),
        "likeliest_log_probs": np.concatenate([one.log_probs for one in reference.likeliest]),
        "losses": np.concatenate([*reference.losses, np.zeros(0, np.float32)]),
    }
    # save_file would let nobody but the owner read it.
    write_bytes(folder / NUMBERS, as_bytes(arrays))
    rows = [
        {
            "kind": row.kind,
            "length": len(row.ids),
            "start": row.start,
            "compared": len(reference.likeliest[index]),
            "losses": len(reference.losses[index]),
            "prompt": row.prompt,
            "expected": list(row.expected),
        }
        for index, row in enumerate(reference.rows)
    ]
    content = {
        "rows": rows,
        "logit_spread": reference.spread,
        "ends": sorted(reference.ends),
        "context": reference.context,
    }
    write_json(folder / PROBE, content, ascii_only=False)


def load(folder: Path) -> Reference:
    """Read what :func:`save` wrote.

    :raises ExportError: naming the file that is missing or does not fit.
    """
    from safetensors.numpy import load_file

    path = folder / PROBE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        path = folder / NUMBERS
        arrays = load_file(path)
        return _joined(content, arrays)
    except FileNotFoundError as error:
        raise ExportError(f"{path} is missing; export the model again") from error
    except Exception as error:  # safetensors raises errors of its own
        raise ExportError(
            f"{path} is not a reference of the gate ({type(error).__name__}); export again"
        ) from error


def _joined(content: Mapping[str, Any], arrays: Mapping[str, Any]) -> Reference:
    rows, kept, losses = [], [], []
    ids, most, log_probs = (
        _Pieces(arrays[name]) for name in ("ids", "likeliest_ids", "likeliest_log_probs")
    )
    lost = _Pieces(arrays["losses"])
    for one in content["rows"]:
        rows.append(
            Row(
                tuple(ids.next(one["length"]).tolist()),
                int(one["start"]),
                one["prompt"],
                tuple(one["expected"]),
                str(one["kind"]),
            )
        )
        count = one["compared"]
        kept.append(Likeliest(most.next(count), log_probs.next(count)))
        losses.append(lost.next(one["losses"]))
    return Reference(
        rows,
        kept,
        losses,
        float(content["logit_spread"]),
        frozenset(content["ends"]),
        content["context"],
    )


class _Pieces:
    """Takes an array apart from its beginning."""

    def __init__(self, whole: npt.NDArray[Any]) -> None:
        self._whole = whole
        self._at = 0

    def next(self, count: int) -> npt.NDArray[Any]:
        piece = self._whole[self._at : self._at + count]
        if len(piece) != count:
            raise ValueError("too short")
        self._at += count
        return piece
