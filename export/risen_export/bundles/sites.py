"""Where a graph takes adapters: its sites, and the note of them that the graph itself carries.

A site is one matrix product of the graph. It has two inputs for the factors of an adapter, which
are empty unless somebody feeds them. This module neither changes nor runs a graph.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from risen_plugin.errors import ExportError

NOTE = "risen_adapter_sites"
"""The key of the note in the metadata of the graph."""


@dataclass(frozen=True)
class Part:
    """The rows ``start`` to ``stop`` of what one linear module of the model puts out."""

    module: str
    start: int
    stop: int

    @property
    def width(self) -> int:
        """How many numbers the part puts out."""
        return self.stop - self.start


@dataclass(frozen=True)
class Site:
    """One product of the graph, and the modules whose outputs it computes side by side.

    :param name: such as ``model.layers.0.attn.qkv_proj``.
    :param inputs: numbers that it takes in for each token.
    """

    name: str
    inputs: int
    parts: tuple[Part, ...]

    @property
    def outputs(self) -> int:
        """Numbers that it puts out for each token."""
        return sum(part.width for part in self.parts)

    @property
    def down(self) -> str:
        """The graph's input for the first factor, (1 or batch, inputs, rank)."""
        return f"{self.name}.lora_A"

    @property
    def up(self) -> str:
        """The graph's input for the second factor, (1 or batch, rank, outputs), scaled."""
        return f"{self.name}.lora_B"


def to_text(sites: Sequence[Site]) -> str:
    """The note for a graph; :func:`from_text` reads it."""
    rows = [
        [site.name, site.inputs, [[part.module, part.start, part.stop] for part in site.parts]]
        for site in sites
    ]
    return json.dumps(rows, separators=(",", ":"))


def of_graph(graph: Path) -> list[Site]:
    """The sites that a graph names which cannot be opened here, such as one for another device.

    :raises ExportError: if its note cannot be read, or the package onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise ExportError(
            f"{graph} cannot run here, and looking into it needs onnx: pip install onnx"
        ) from error
    model = onnx.load(str(graph), load_external_data=False)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    return from_text(notes[NOTE], str(graph)) if NOTE in notes else []


def from_text(text: str, whose: str) -> list[Site]:
    """The sites that a graph's note names.

    :param whose: the graph, for the error.
    :raises ExportError: if it is no such note.
    """
    try:
        return [
            Site(str(name), int(inputs), tuple(Part(str(m), int(a), int(b)) for m, a, b in parts))
            for name, inputs, parts in json.loads(text)
        ]
    except (ValueError, TypeError) as error:
        raise ExportError(
            f"{whose} names its places for adapters in a way that cannot be read; "
            "export the bundle again"
        ) from error
