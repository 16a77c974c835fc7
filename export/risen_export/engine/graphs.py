"""The graphs of one variant on one cache: that of the base, and that which takes adapters."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from risen_export.bundles import lora
from risen_export.bundles.adapters import listed, root_of
from risen_export.bundles.manifest import ADAPTED_GRAPH, ENGINE_GRAPH, GRAPH
from risen_export.engine.adapters import Loaded, Registry
from risen_export.engine.cache import Cache, Shapes
from risen_export.engine.graph import Graph, Logits
from risen_export.engine.rows import Answer
from risen_export.runtime import adapters as files
from risen_export.runtime.session import open_session
from risen_plugin.errors import ExportError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class Graphs:
    """Runs rows, each with its adapter.

    Places for adapters that nobody uses cost time, so their graph is opened when the first adapter
    is loaded, and used where a row has one.

    :param folder: of the variant.
    """

    def __init__(self, folder: Path, threads: int | None) -> None:
        self._folder = folder
        self._threads = threads
        self._session = self._opened(ENGINE_GRAPH)
        self.shapes = Shapes.of(self._session)
        self._files = files.Adapters(folder)
        self._registry = Registry([])
        self._adapted: Graph | None = None
        self._taking: InferenceSession | None = None
        self._opening = threading.Lock()

    def allocate(self, rows: int, capacity: int) -> Cache:
        """The cache that the graphs work on from now on."""
        self._rows = rows
        self._cache = Cache(self.shapes, rows, capacity)
        self._graph = Graph(self._session, self._cache, rows)
        return self._cache

    def read(self, row: Answer, ids: Sequence[int]) -> Logits:
        """Read further tokens of a row; the logits (V,) after the last."""
        weights = self._registry.bound([row.adapter])
        return self._graph_for([row]).read(row.slot, ids, row.computed, weights)

    def step(self, rows: Sequence[Answer]) -> Logits:
        """Read the last token of rows in the first slots, in their order; logits (B, V)."""
        return self._graph_for(rows).step(
            [row.ids[-1] for row in rows],
            [row.computed for row in rows],
            self._registry.bound([row.adapter for row in rows]),
        )

    @property
    def versions(self) -> dict[str, int]:
        """The loaded adapters with their versions."""
        return self._registry.versions

    def load(self, name: str, source: str | Path | Mapping[str, lora.Array]) -> int:
        """Add an adapter, or replace one; its version.

        :param source: the name of an adapter of the bundle, the folder of a saved PEFT adapter, or
            inputs of the graph.
        :raises ExportError: if the bundle takes no adapters, or it cannot be read.
        :raises DataError: if it was made for another graph.
        """
        session = self._with_adapters().session
        if isinstance(source, Path):
            sites = files.sites_of(session, self._folder)
            inputs: Mapping[str, lora.Array] = lora.pack(lora.read(lora.find(source)), sites)
        elif isinstance(source, str):
            values = self._files.values(source, lambda: session)
            inputs = {key: value.numpy() for key, value in values.items()}
        else:
            inputs = source
        return self._registry.put(name, inputs).version

    def remove(self, name: str) -> None:
        """Forget an adapter; rows that run with it go on.

        :raises DataError: if there is none of that name.
        """
        self._registry.remove(name)

    def adapter(self, name: str) -> Loaded:
        """The newest version of an adapter; one of the bundle is loaded when it is asked for.

        :raises DataError: if there is none of that name.
        """
        if name not in self._registry.versions and name in listed(root_of(self._folder)):
            self.load(name, name)
        return self._registry.get(name)

    def open_adapted(self) -> InferenceSession:
        """The session that takes adapters, opened once; from any thread, beside running steps."""
        with self._opening:
            if self._taking is None:
                self._taking = self._opened(ADAPTED_GRAPH)
            return self._taking

    def _with_adapters(self) -> Graph:
        if self._adapted is None:
            session = self.open_adapted()
            sites = files.sites_of(session, self._folder)
            if not sites:
                self._taking = None  # its memory would be held for nothing
                raise ExportError(
                    f"{self._folder} takes no adapters: they were merged when it was exported; "
                    "export it with --adapters separate"
                )
            self._registry = Registry(sites)
            self._adapted = Graph(session, self._cache, self._rows)
        return self._adapted

    def _opened(self, name: str) -> InferenceSession:
        """A session of a graph for engines, or of that for everyone in a bundle without them."""
        graph = self._folder / name
        return open_session(graph if graph.is_file() else self._folder / GRAPH, self._threads)

    def _graph_for(self, rows: Sequence[Answer]) -> Graph:
        if self._adapted is None or all(row.adapter is None for row in rows):
            return self._graph
        return self._adapted
