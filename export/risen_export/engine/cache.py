"""The keys and values of all rows, one buffer for each layer, allocated once.

A slot is one place along the first axis. The rows that take a step together lie in the first slots,
since a graph reads and writes a leading part of the buffer in place; so rows are moved when others
leave. Convolutions keep a state in place of keys and values, which moves with its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from risen_export.runtime.session import TYPES
from risen_plugin.errors import ExportError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


@dataclass(frozen=True)
class Shapes:
    """The inputs of a graph that hold what it has read.

    :param keys: name to type and shape (KV, D) of each buffer of keys or values.
    :param states: name to type and shape of the state of each convolution.
    """

    keys: Mapping[str, tuple[type[np.generic], tuple[int, int]]]
    states: Mapping[str, tuple[type[np.generic], tuple[int, ...]]]

    @classmethod
    def of(cls, session: InferenceSession) -> Shapes:
        """Those of an opened graph.

        :raises ExportError: if it keeps numbers for which numpy has no arrays.
        """
        keys, states = {}, {}
        for value in session.get_inputs():
            if value.name.startswith("past"):
                kind = TYPES.get(value.type)
                if kind is None:
                    raise ExportError(
                        f"the graph keeps {value.type}, for which numpy has no arrays; run it "
                        "with onnxruntime-genai"
                    )
                if value.name.startswith("past_key_values."):
                    keys[value.name] = kind, (int(value.shape[1]), int(value.shape[3]))
                else:
                    states[value.name] = kind, tuple(int(size) for size in value.shape[1:])
        return cls(keys, states)

    @property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token."""
        return sum(
            np.dtype(kind).itemsize * heads * size for kind, (heads, size) in self.keys.values()
        )


class Cache:
    """Keys, values and states of ``slots`` rows of ``capacity`` tokens.

    :raises ExportError: if there is no memory for them.
    """

    def __init__(self, shapes: Shapes, slots: int, capacity: int) -> None:
        try:
            self.keys: dict[str, npt.NDArray[Any]] = {
                name: np.zeros((slots, heads, capacity, size), kind)
                for name, (kind, (heads, size)) in shapes.keys.items()
            }
        except (MemoryError, ValueError) as error:  # numpy's words for too much and far too much
            raise ExportError(
                f"there is no memory for {slots} answers of {capacity} tokens; take fewer rows or "
                "a shorter context"
            ) from error
        self.states: dict[str, npt.NDArray[Any]] = {
            name: np.zeros((slots, *shape), kind) for name, (kind, shape) in shapes.states.items()
        }
        self.capacity = capacity

    @property
    def bytes(self) -> int:
        """All that it may fill."""
        return sum(one.nbytes for one in (*self.keys.values(), *self.states.values()))

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first tokens of a slot to another."""
        for buffer in self.keys.values():
            buffer[target, :, :tokens] = buffer[source, :, :tokens]

    def swap(self, one: int, other: int, tokens: int) -> None:
        """Exchange two slots, of which at most the first tokens matter."""
        for buffer in self.keys.values():
            held = buffer[one, :, :tokens].copy()
            buffer[one, :, :tokens] = buffer[other, :, :tokens]
            buffer[other, :, :tokens] = held
        for state in self.states.values():
            state[[one, other]] = state[[other, one]]

    def clear_state(self, slot: int) -> None:
        """Begin a row anew; keys and values beyond its length are never read."""
        for state in self.states.values():
            state[slot] = 0
