"""The few places where releases of transformers and TRL differ, behind one name each."""

from __future__ import annotations

import dataclasses
from typing import Any


def checkpoints_activations(args: Any) -> bool:
    """Whether these training arguments ask for gradient (activation) checkpointing.

    transformers 5 renames ``gradient_checkpointing`` to ``activation_checkpointing``.
    """
    new = getattr(args, "activation_checkpointing", None)
    return bool(getattr(args, "gradient_checkpointing", False) if new is None else new)


def checkpointing_setting(config: type, wanted: bool) -> dict[str, bool]:
    """The setting that turns it on or off in a training-arguments class, without a warning."""
    names = {entry.name for entry in dataclasses.fields(config)}
    new = "activation_checkpointing" in names
    return {"activation_checkpointing" if new else "gradient_checkpointing": wanted}
