"""The exporter ``genai``: onnxruntime-genai's model builder, behind the contract of an exporter."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_export.backends import genai
from risen_export.backends.concatenating import read_config


@dataclass(frozen=True)
class ModelBuilder:
    """onnxruntime-genai's model builder: the fastest graphs, for about 20 families of models."""

    def refuses(self, config: Mapping[str, Any], target: str, precision: str) -> str | None:
        """Why the builder makes no right graph of such a model; None if it makes one."""
        named = config.get("architectures")
        architecture = named[0] if isinstance(named, list) and named else None
        if architecture is None:
            return "its config.json names no architectures"
        known = known_architectures()
        if not known:
            return "onnxruntime-genai is not installed; pip install onnxruntime-genai"
        return None if architecture in known else f"the model builder does not know {architecture}"

    def __call__(
        self,
        *,
        model: str,
        out: str,
        target: str,
        precision: str,
        scratch: str,
        show_log: bool = False,
        **context: Any,
    ) -> None:
        """Write the graph and its ``genai_config.json``; past and present share one buffer."""
        genai.build(
            Path(model),
            Path(out),
            precision,
            cache=Path(scratch, "builder"),
            tied=bool(read_config(Path(model)).get("tie_word_embeddings")),
            show_log=show_log,
        )


@functools.cache
def known_architectures() -> frozenset[str]:
    """The classes of models that the installed builder dispatches on.

    Its source is read: that costs nothing, and importing the builder would load torch.
    """
    spec = importlib.util.find_spec("onnxruntime_genai")
    if spec is None or spec.origin is None:
        return frozenset()
    builder = Path(spec.origin).parent / "models" / "builder.py"
    if not builder.is_file():
        return frozenset()
    text = builder.read_text(encoding="utf-8")
    return frozenset(re.findall(r'architectures\[0\] == "(\w+)"', text))
