"""The exporter ``genai``: onnxruntime-genai's model builder, behind the contract of an exporter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_export.backends import genai, genai_support
from risen_export.backends.concatenating import read_config
from risen_export.bundles.variants import PRECISIONS, Variant, read_targets


@dataclass(frozen=True)
class ModelBuilder:
    """onnxruntime-genai's model builder: the fastest graphs, for about 20 families of models."""

    def refuses(self, config: Mapping[str, Any], target: str, precision: str) -> str | None:
        """Why the builder makes no right graph of such a model; None if it makes one."""
        named = config.get("architectures")
        architecture = named[0] if isinstance(named, list) and named else None
        if architecture is None:
            return "config.json names no architectures"
        known = genai.supported()
        if not known:
            return "onnxruntime-genai is not installed; pip install onnxruntime-genai"
        try:
            reason = genai_support.refusal(config, target, precision)
        except KeyError as error:
            return f"config.json names no {error.args[0]}"
        if reason is None and architecture not in known:
            reason = "the installed onnxruntime-genai is too old to build it"
        return reason

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
            Variant(read_targets([target])[0], PRECISIONS[precision]),
            cache=Path(scratch, "builder"),
            tied=bool(read_config(Path(model)).get("tie_word_embeddings")),
            show_log=show_log,
        )
