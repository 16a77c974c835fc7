"""The way of sampling that comes along, offered by the same hook as those of anybody else.

Imported wherever a callback is made, so it is light: the rest is loaded when a phase begins.
"""

from __future__ import annotations

from risen_plugin.hookspecs import Register, hookimpl
from risen_plugin.plugins.offers import Later


@hookimpl
def risen_register_rollouts(register: Register) -> None:
    """Offer the engine on onnxruntime."""
    register("onnx", Later("risen_export.rollouts.sampler:OnnxRollout"))
