"""The adapters that an engine knows: added, replaced and removed while it runs.

Each has a version, which goes up when it is replaced. Rows that run keep what they began with. Rows
of one step may have different adapters: then the factors of all rows lie side by side, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from risen_export.bundles.lora import Array
from risen_export.bundles.sites import Site
from risen_plugin.errors import DataError, near_miss


@dataclass(frozen=True)
class Loaded:
    """One version of an adapter.

    :param inputs: of the graph, by name: factors with a leading axis of 1.
    """

    name: str
    version: int
    inputs: Mapping[str, Array]

    @property
    def key(self) -> tuple[str, int]:
        """What keys and values depend on."""
        return self.name, self.version


class Registry:
    """Adapters by name.

    :param sites: where the graph takes them.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = {name: site for site in sites for name in (site.down, site.up)}
        self._loaded: dict[str, Loaded] = {}
        self._versions: dict[str, int] = {}
        self._bound: dict[tuple[Any, ...], Mapping[str, Any]] = {}

    @property
    def versions(self) -> dict[str, int]:
        """The version of each adapter."""
        return {name: one.version for name, one in self._loaded.items()}

    def put(self, name: str, inputs: Mapping[str, Array]) -> Loaded:
        """Add an adapter, or replace one of that name.

        :param inputs: of the graph, (1, inputs, rank) and (1, rank, outputs).
        :raises DataError: if the graph has no such inputs, or of another size.
        """
        for key, value in inputs.items():
            site = self._sites.get(key)
            if site is None:
                raise DataError(f"adapter '{name}' is for another graph, which takes {key}")
            axis, size = (1, site.inputs) if key == site.down else (2, site.outputs)
            if value.ndim != 3 or value.shape[0] != 1 or value.shape[axis] != size:
                raise DataError(
                    f"adapter '{name}' is for another graph: its {key} has the shape {value.shape}"
                )
        version = self._versions.get(name, 0) + 1
        self._versions[name] = version
        kept = {key: np.ascontiguousarray(value, np.float32) for key, value in inputs.items()}
        self._loaded[name] = Loaded(name, version, kept)
        return self._loaded[name]

    def remove(self, name: str) -> None:
        """Forget an adapter; rows that run with it go on.

        :raises DataError: if there is none of that name.
        """
        del self._loaded[self.get(name).name]

    def get(self, name: str) -> Loaded:
        """The newest version of an adapter.

        :raises DataError: if there is none of that name.
        """
        found = self._loaded.get(name)
        if found is None:
            raise DataError(f"there is no adapter '{name}'{near_miss(name, self._loaded) or ''}")
        return found

    def bound(self, rows: Sequence[Loaded | None]) -> Mapping[str, Any]:
        """The inputs of the graph for rows in their order; none where all are the base.

        What was made for the same rows is made once.
        """
        keys = tuple(None if one is None else one.key for one in rows)
        if not any(keys):
            return {}
        same = (keys[0],) if len(set(keys)) == 1 else keys
        if same not in self._bound:
            # Two sets are kept: that of the step, and that of the prompt read between two steps.
            while len(self._bound) > 1:
                self._bound.pop(next(iter(self._bound)))
            chosen = rows[:1] if len(same) == 1 else rows
            self._bound[same] = _as_values(self._side_by_side(chosen))
        return self._bound[same]

    def _side_by_side(self, rows: Sequence[Loaded | None]) -> dict[str, Array]:
        stacked: dict[str, Array] = {}
        for name, site in self._sites.items():
            given = [None if one is None else one.inputs.get(name) for one in rows]
            if all(one is None for one in given):
                continue
            axis = 2 if name == site.down else 1
            rank = max(one.shape[axis] for one in given if one is not None)
            shape = (site.inputs, rank) if name == site.down else (rank, site.outputs)
            whole = np.zeros((len(rows), *shape), dtype=np.float32)
            for line, one in enumerate(given):
                if one is not None:
                    whole[line, : one.shape[1], : one.shape[2]] = one[0]
            stacked[name] = whole
        return stacked


def _as_values(inputs: Mapping[str, Array]) -> dict[str, Any]:
    import onnxruntime

    make = onnxruntime.OrtValue.ortvalue_from_numpy
    return {name: make(one) for name, one in inputs.items()}
