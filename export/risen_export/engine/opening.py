"""Open a bundle with one of the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from risen_export.bundles.opening import open_folder
from risen_export.engine.engine import Engine
from risen_export.engine.genai import GenaiEngine
from risen_export.engine.settings import EngineSettings
from risen_plugin.errors import DataError

Kind = Literal["onnxruntime", "genai", "auto"]


def open_engine(
    path: str | Path,
    precision: str | None = None,
    settings: EngineSettings | None = None,
    *,
    kind: Kind = "onnxruntime",
    device: str | None = None,
) -> Engine | GenaiEngine:
    """Open ``OUT`` or ``OUT/<precision>``.

    :param kind: ``genai`` for onnxruntime-genai's own engine, which has no adapters and no
        log-probabilities; ``auto`` takes it on CUDA, for throughput.
    :raises DataError: if there is no such kind, or the settings do not fit.
    :raises ExportError: if the bundle cannot be opened.
    """
    if kind not in ("onnxruntime", "genai", "auto"):
        raise DataError(f"there is no engine '{kind}'; choose onnxruntime, genai or auto")
    if kind == "auto":
        _, content = open_folder(Path(path), precision, check_hashes=False)
        kind = "genai" if (device or content["target"]) == "cuda" else "onnxruntime"
    engine = GenaiEngine if kind == "genai" else Engine
    return engine.open(path, precision, settings, device=device)
