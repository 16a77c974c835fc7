"""Merge a run's adapters, compile the model to ONNX Runtime, check it and answer from it.

Importing this package loads neither torch nor onnxruntime: each name is loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from risen_export.bundles.opening import check
    from risen_export.bundles.sizes import bytes_by_kind
    from risen_export.engine.engine import Engine
    from risen_export.engine.requests import Completion, Grammar, Piece, Request, Sampling
    from risen_export.engine.settings import EngineSettings
    from risen_export.exporting import Exported, ExportResult, export
    from risen_export.gate.settings import GateSettings
    from risen_export.runtime.adapting import Added, adapt, remove_adapter
    from risen_export.runtime.bundle import Bundle
    from risen_export.verify import Verdict

__all__ = [
    "Added",
    "Bundle",
    "Completion",
    "Engine",
    "EngineSettings",
    "ExportResult",
    "Exported",
    "GateSettings",
    "Grammar",
    "Piece",
    "Request",
    "Sampling",
    "Verdict",
    "adapt",
    "bytes_by_kind",
    "check",
    "export",
    "remove_adapter",
]

_LATER = {
    "Added": "risen_export.runtime.adapting",
    "Bundle": "risen_export.runtime.bundle",
    "Completion": "risen_export.engine.requests",
    "Engine": "risen_export.engine.engine",
    "EngineSettings": "risen_export.engine.settings",
    "Grammar": "risen_export.engine.requests",
    "Piece": "risen_export.engine.requests",
    "Request": "risen_export.engine.requests",
    "Sampling": "risen_export.engine.requests",
    "ExportResult": "risen_export.exporting",
    "Exported": "risen_export.exporting",
    "Verdict": "risen_export.verify",
    "adapt": "risen_export.runtime.adapting",
    "GateSettings": "risen_export.gate.settings",
    "bytes_by_kind": "risen_export.bundles.sizes",
    "check": "risen_export.bundles.opening",
    "export": "risen_export.exporting",
    "remove_adapter": "risen_export.runtime.adapting",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        import importlib

        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
