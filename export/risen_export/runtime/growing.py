"""Run a graph whose present is its past and the new tokens, step by step.

Such a graph follows the model's own code, with one mask and one count of positions for all layers.
Rows are padded on the LEFT, as ``generate`` pads them: then the tokens of a row stand side by side
in the cache, and a window counts tokens and no holes. Right padding would leave a hole behind each
short prompt, over which windows and learned biases of distance count on. Callers see right-padded
rows all the same, as with :class:`risen_export.runtime.session.KeyValueCache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from risen_plugin.errors import ExportError, one_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
_PAST, _PRESENT = "past_key_values.", "present."


class GrowingCache:
    """The state of a batch of rows between two steps.

    :param rows: B, the rows of the batch.
    :param capacity: most tokens of a row, prompt and answer together. With 0 there is no cache and
        only one :meth:`prefill` makes sense.
    """

    def __init__(self, session: InferenceSession, rows: int, capacity: int) -> None:
        self._session = session
        self._keeps = bool(capacity)
        inputs = {value.name: value for value in session.get_inputs()}
        self._positions = "position_ids" in inputs
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        self._past: dict[str, Any] = {
            name: np.zeros((rows, value.shape[1], 0, value.shape[3]), types[value.type])
            for name, value in inputs.items()
            if name.startswith(_PAST)
        }
        self._mask: Ids = np.zeros((rows, 0), dtype=np.int64)

    def prefill(self, ids: Ids, lengths: Ids) -> Logits:
        """Read right-padded prompts ``ids`` (B, T) of ``lengths`` (B,); their logits (B, T, V).

        Logits behind the end of a row mean nothing.
        """
        width = ids.shape[1]
        columns = np.arange(width) - (width - lengths[:, None])  # (B, T), below 0 is padding
        self._mask = (columns >= 0).astype(np.int64)
        shifted = np.take_along_axis(ids, columns.clip(min=0), axis=1)
        logits = self._run(shifted * self._mask, columns.clip(min=0))
        for line in np.flatnonzero(lengths < width):
            logits[line] = np.roll(logits[line], int(lengths[line]) - width, axis=0)
        return logits

    def step(self, tokens: Ids) -> Logits:
        """Append one token to each row, (B,); the logits that follow it, (B, V)."""
        positions = self._mask.sum(axis=1, keepdims=True)
        self._mask = np.pad(self._mask, ((0, 0), (0, 1)), constant_values=1)
        return self._run(tokens[:, None], positions)[:, 0]

    def select(self, lines: Sequence[int]) -> None:
        """Go on with these lines of the batch only, in this order."""
        chosen = list(lines)
        mask = self._mask[chosen]
        unused = int(
            mask.any(axis=0).argmax()
        )  # columns that are padding in every row that is left
        self._mask = mask[:, unused:]
        for name, value in self._past.items():
            whole = value if isinstance(value, np.ndarray) else value.numpy()
            self._past[name] = np.ascontiguousarray(whole[chosen, :, unused:])

    def _run(self, ids: Ids, positions: Ids) -> Logits:
        try:
            return self._logits(ids, positions)
        except Exception as error:
            # onnxruntime's exceptions share no base class, but they live in its modules.
            if not isinstance(error, RuntimeError) and "onnxruntime" not in type(error).__module__:
                raise
            raise ExportError(f"onnxruntime cannot run the graph: {one_line(error)}") from error

    def _logits(self, ids: Ids, positions: Ids) -> Logits:
        feeds: dict[str, Any] = {
            "input_ids": np.ascontiguousarray(ids, dtype=np.int64),
            "attention_mask": np.ascontiguousarray(self._mask),
            **({"position_ids": np.ascontiguousarray(positions)} if self._positions else {}),
        }
        binding = self._session.io_binding()
        for name, value in {**feeds, **self._past}.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, value)
            else:
                binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits", "cpu")
        if self._keeps:
            for name in self._past:
                binding.bind_output(name.replace(_PAST, _PRESENT), "cpu")
        self._session.run_with_iobinding(binding)
        logits, *present = binding.get_outputs()
        kept: list[OrtValue] = present
        if self._keeps:  # handed on as they are; only select copies them
            self._past = dict(zip(self._past, kept, strict=True))
        return logits.numpy().astype(np.float32, copy=False)  # type: ignore[no-any-return]
