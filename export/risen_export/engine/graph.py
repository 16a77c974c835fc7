"""Run the builder's graph on parts of one cache: prompts piece by piece, rows token by token.

GroupQueryAttention writes new keys and values in place when past and present are the same memory.
Views of the cache and the weights of adapters are bound once for each number of rows, so that a
step copies nothing and binds only what is new in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from risen_export.engine.cache import Cache
from risen_plugin.errors import ExportError, one_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding

_ASKED = "logits_at"  # row and place of each token whose logits are computed
Logits = npt.NDArray[np.float32]
Weights = Mapping[str, Any]
"""Inputs of a graph that compute adapters, as onnxruntime takes them; none for the base."""


class Graph:
    """One graph on a cache.

    :param rows: most rows of a step.
    :ivar asks: whether it computes only the logits that it is asked for; else those of all tokens.
    """

    def __init__(self, session: InferenceSession, cache: Cache, rows: int) -> None:
        self.session = session
        self._cache = cache
        self._rows = rows
        self._inputs = {value.name for value in session.get_inputs()}
        self.asks = _ASKED in self._inputs
        self._bindings: dict[tuple[int, int], IOBinding] = {}
        self._weights: Weights = {}
        # Where a step leaves its logits; its size is known after the first one.
        self._logits: Logits | None = None

    def read(self, slot: int, ids: Sequence[int], start: int, weights: Weights) -> Logits:
        """Read tokens of one row that has read ``start``; the logits (V,) after the last."""
        count = len(ids)
        logits = self._run(
            slot,
            np.asarray(ids, dtype=np.int64)[None],
            np.ones((1, start + count), dtype=np.int64),
            np.arange(start, start + count, dtype=np.int64)[None],
            weights,
            asked=[[0, count - 1]],
        )
        last: Logits = logits[0, -1].astype(np.float32)
        return last

    def step(self, tokens: Sequence[int], lengths: Sequence[int], weights: Weights) -> Logits:
        """Read one token in each of the first slots; the logits (B, V) that follow.

        They stay as they are until the next step.

        :param lengths: tokens that each row has read before, (B,).
        """
        before = np.asarray(lengths, dtype=np.int64)
        mask = (np.arange(int(before.max()) + 1) <= before[:, None]).astype(np.int64)
        ids = np.asarray(tokens, dtype=np.int64)[:, None]
        asked = [[line, 0] for line in range(len(ids))]
        logits = self._run(0, ids, mask, before[:, None], weights, asked=asked, keep=True)
        return logits[:, 0].astype(np.float32, copy=False)

    def _run(
        self,
        first: int,
        ids: npt.NDArray[np.int64],
        mask: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
        weights: Weights,
        *,
        asked: list[list[int]],
        keep: bool = False,
    ) -> npt.NDArray[Any]:
        binding = self._binding(first, len(ids), weights)
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            _ASKED: np.asarray(asked, dtype=np.int64),
        }
        for name, value in feeds.items():
            if name in self._inputs:
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name, state in self._cache.states.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(state[first : first + len(ids)]))
            binding.bind_output(name.replace("past", "present"), "cpu")
        if keep and self._logits is not None:
            import onnxruntime

            place = onnxruntime.OrtValue.ortvalue_from_numpy(self._logits[: len(ids)])
            binding.bind_ortvalue_output("logits", place)
        else:
            binding.bind_output("logits", "cpu")
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ExportError(f"onnxruntime cannot run the graph: {one_line(error)}") from error
        if keep and self._logits is not None and not self._cache.states:
            return self._logits[: len(ids)]
        outputs = binding.get_outputs()[len(self._cache.keys) :]
        for state, output in zip(self._cache.states.values(), outputs[:-1], strict=True):
            state[first : first + len(ids)] = output.numpy()
        logits: npt.NDArray[Any] = outputs[-1].numpy()
        if keep:
            self._logits = np.empty((self._rows, 1, logits.shape[-1]), logits.dtype)
        return logits

    def _binding(self, first: int, count: int, weights: Weights) -> IOBinding:
        """Slots of the cache and weights as onnxruntime takes them, without a copy.

        Bindings are kept for the latest weights alone: they would hold on to those before.
        """
        import onnxruntime

        if weights is not self._weights and (weights or self._weights):
            self._bindings.clear()
        self._weights = weights
        found = self._bindings.get((first, count))
        if found is None:
            found = self._bindings[first, count] = self.session.io_binding()
            for name, weight in weights.items():
                found.bind_ortvalue_input(name, weight)
            for name, buffer in self._cache.keys.items():
                view = onnxruntime.OrtValue.ortvalue_from_numpy(buffer[first : first + count])
                found.bind_ortvalue_input(name, view)
                found.bind_ortvalue_output(name.replace("past_key_values", "present"), view)
        return found
