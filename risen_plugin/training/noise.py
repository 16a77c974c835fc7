"""Noise of the outer Trainer that a phase is without; the clean room brings it back.

In GRPO an answer's likelihood is taken under the model that sampled it, so what is random in a
forward pass is an error in both: with NEFTune left on (alpha 15, the embedded model) a first step
had a KL of 2.26, and has 0.03 without it.
"""

from __future__ import annotations

from typing import Any

from risen_plugin.training.protocols import Model

_PARTS = ("dropout", "layerdrop", "drop_path", "jitter")
"""In the names of attributes that say how much is dropped, or how far experts are jittered."""


def without_neftune(model: Model) -> None:
    """Take NEFTune's noise off every embedding; only inside the clean room."""
    for module in model.modules():
        hooks: dict[int, Any] = module._forward_hooks
        for number, hook in list(hooks.items()):
            if "neftune" in getattr(hook, "__name__", ""):
                del hooks[number]


def without_dropout(model: Model) -> None:
    """Set all dropout of a model to 0, and all else that is random in it; in the clean room.

    TRL's ``disable_dropout`` (1.16) finds modules alone. Attention reads a number of its module
    (transformers' ``attention_dropout``), as do layers that are skipped and routers that jitter.
    """
    for module in model.modules():
        is_dropout = "dropout" in type(module).__name__.lower()
        for name, value in list(vars(module).items()):
            is_rate = any(part in name for part in _PARTS) or (is_dropout and name == "p")
            if is_rate and isinstance(value, float) and value:
                setattr(module, name, 0.0)
