"""Run the builder's graph step by step, its past and present sharing one buffer per layer.

GroupQueryAttention writes the new keys in place when past and present are the same memory, so a
step copies no cache. Each row carries its own length; nothing here knows about text or sampling.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from risen_export.bundles.requirements import require_runtime as check_release
from risen_export.bundles.variants import PROVIDERS
from risen_plugin.errors import ExportError, one_line, printable

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue

TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}
"""numpy's types for those of onnxruntime that a cache may be of."""


def require_runtime(requires: Mapping[str, str], folder: Path) -> None:
    """Refuse a bundle that needs a newer onnxruntime than the installed one.

    :param requires: that of its manifest.
    :raises ExportError: with the release that it needs, or if onnxruntime is missing.
    """
    check_release(requires, folder, str(_onnxruntime().__version__))


def threads_of_environment() -> int:
    """The first number of ``OMP_NUM_THREADS``, which may be a list; 0 if it holds none.

    OpenMP takes one number for each level of nesting, and onnxruntime has one level.

    :raises ExportError: if it holds something else.
    """
    written = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not written:
        return 0
    numbers = [part.strip() for part in written.split(",")]
    if not all(re.fullmatch(r"0*[1-9]\d{0,5}", part) for part in numbers):
        raise ExportError(
            f"OMP_NUM_THREADS is '{printable(written[:60])}', and no number of threads; set it to "
            "a number such as 4, or to a list such as 4,2, or unset it"
        )
    return int(numbers[0])


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            "answering from a bundle needs onnxruntime, which is not installed; "
            "pip install onnxruntime"
        ) from error
    return onnxruntime


def require_device(device: str, whose: Path) -> None:
    """Refuse a device that the installed onnxruntime does not run.

    onnxruntime itself would fall back to the CPU and say nothing.

    :param device: ``cpu`` or ``cuda``.
    :param whose: the folder of the variant, for the message.
    :raises ExportError: with what is missing, and what runs here.
    """
    provider = PROVIDERS[device]
    if provider not in _onnxruntime().get_available_providers():
        raise ExportError(
            f"{whose} runs on {device}, and the installed onnxruntime has no {provider}; "
            "pip install onnxruntime-gpu in place of onnxruntime, or open a variant for the CPU"
        )


def open_session(graph: Path, threads: int | None, device: str = "cpu") -> InferenceSession:
    """An ``onnxruntime.InferenceSession`` of a graph on one device, and on no other.

    ``OMP_NUM_THREADS`` is honoured where ``threads`` is None: onnxruntime itself ignores it.

    :param device: ``cpu`` or ``cuda``.
    :raises ExportError: if onnxruntime is missing, has not the device, or refuses the graph.
    """
    require_device(device, graph.parent)
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its messages are in the exception too
    wanted = threads or threads_of_environment()
    if wanted:
        options.intra_op_num_threads = wanted
    try:
        session: InferenceSession = onnxruntime.InferenceSession(
            str(graph), options, providers=[PROVIDERS[device]]
        )
    except Exception as error:
        raise ExportError(f"onnxruntime cannot open {graph}: {one_line(error)}") from error
    if session.get_providers()[0] != PROVIDERS[device]:
        raise ExportError(
            f"onnxruntime could not start {PROVIDERS[device]} for {graph}; its CUDA and cuDNN "
            "libraries may be missing"
        )
    return session


class KeyValueCache:
    """The state of a batch of rows between two steps.

    :param rows: B, the rows of the batch.
    :param capacity: most tokens of a row, prompt and answer together. With 0 there is no cache and
        only one :meth:`prefill` makes sense.
    :param weights: inputs that stay the same from step to step: the factors of an adapter.
    """

    def __init__(
        self,
        session: InferenceSession,
        rows: int,
        capacity: int,
        weights: Mapping[str, OrtValue] | None = None,
    ) -> None:
        self._session = session
        self._weights = weights or {}
        self._capacity = capacity
        inputs = {value.name: value for value in session.get_inputs()}
        odd = sorted({value.type for value in inputs.values()} - TYPES.keys() - {"tensor(int64)"})
        if odd:
            raise ExportError(
                f"the graph takes {odd[0]}, for which numpy has no arrays; run it with "
                "onnxruntime-genai"
            )
        self._positions = "position_ids" in inputs
        try:
            self._buffers: dict[str, npt.NDArray[Any]] = {
                name: np.zeros((rows, value.shape[1], capacity, value.shape[3]), TYPES[value.type])
                for name, value in inputs.items()
                if name.startswith("past_key_values.")
            }
        except (MemoryError, ValueError) as error:  # numpy's words for too much and far too much
            raise ExportError(
                f"there is no memory for {rows} answers of {capacity} tokens; "
                "ask for fewer tokens, or fewer prompts at once"
            ) from error
        # What a convolution remembers of the tokens before; it is not a place per token.
        self._states: dict[str, npt.NDArray[Any]] = {
            name: np.zeros((rows, *value.shape[1:]), TYPES[value.type])
            for name, value in inputs.items()
            if name.startswith("past.")
        }
        self._lengths: npt.NDArray[np.int64] = np.zeros(rows, dtype=np.int64)
        self._width = 0

    def prefill(
        self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Read right-padded prompts ``ids`` (B, T) of ``lengths`` (B,); their logits (B, T, V)."""
        self._lengths = lengths.astype(np.int64)
        self._width = ids.shape[1]
        if self._states and (self._lengths != self._width).any():
            return self._prefill_by_length(ids)
        mask = (np.arange(self._width) < self._lengths[:, None]).astype(np.int64)
        positions = np.broadcast_to(np.arange(self._width, dtype=np.int64), ids.shape)
        return self._run(ids, mask, positions)

    def _prefill_by_length(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Read rows of equal length together: a state would take in the padding of shorter ones."""
        logits: npt.NDArray[np.float32] | None = None
        for length in np.unique(self._lengths):
            lines = np.flatnonzero(self._lengths == length)
            part = KeyValueCache(self._session, len(lines), self._capacity, self._weights)
            some = part.prefill(ids[lines, :length], self._lengths[lines])
            if logits is None:
                logits = np.zeros((*ids.shape, some.shape[-1]), dtype=np.float32)
            logits[lines, :length] = some
            for name, buffer in {**part._buffers, **part._states}.items():
                (self._states if name in self._states else self._buffers)[name][lines] = buffer
        assert logits is not None
        return logits

    def step(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Append one token to each row, (B,); the logits that follow it, (B, V)."""
        positions = self._lengths[:, None]
        self._lengths = self._lengths + 1
        self._width += 1
        mask = (np.arange(self._width) < self._lengths[:, None]).astype(np.int64)
        return self._run(tokens[:, None], mask, positions)[:, 0]

    def select(self, lines: Sequence[int]) -> None:
        """Go on with these lines of the batch only, in this order."""
        self._lengths = self._lengths[list(lines)]
        for name, buffer in self._buffers.items():
            self._buffers[name] = np.ascontiguousarray(buffer[list(lines)])
        for name, state in self._states.items():
            self._states[name] = state[list(lines)]
        # The attention mask is as wide as the longest row that is left.
        self._width = int(self._lengths.max())

    def _run(
        self,
        ids: npt.NDArray[np.int64],
        mask: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        try:
            return self._logits(ids, mask, positions)
        except Exception as error:
            # onnxruntime's exceptions share no base class, but they live in its modules.
            if not isinstance(error, RuntimeError) and "onnxruntime" not in type(error).__module__:
                raise
            raise ExportError(f"onnxruntime cannot run the graph: {one_line(error)}") from error

    def _logits(
        self,
        ids: npt.NDArray[np.int64],
        mask: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        feeds: dict[str, npt.NDArray[Any]] = {
            "input_ids": np.ascontiguousarray(ids, dtype=np.int64),
            "attention_mask": mask,
        }
        if self._positions:
            feeds["position_ids"] = np.ascontiguousarray(positions)
        if not self._capacity:
            feeds |= self._buffers | self._states
            feeds |= {name: value.numpy() for name, value in self._weights.items()}
            logits = self._session.run(["logits"], feeds)[0]
            return logits.astype(np.float32, copy=False)  # type: ignore[no-any-return]
        import onnxruntime

        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        for name, weight in self._weights.items():
            binding.bind_ortvalue_input(name, weight)
        for name, buffer in self._buffers.items():
            shared = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
            binding.bind_ortvalue_input(name, shared)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), shared)
        for name, state in self._states.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(state))
            binding.bind_output(name.replace("past", "present"), "cpu")
        binding.bind_output("logits", "cpu")
        self._session.run_with_iobinding(binding)
        *_, logits = outputs = [
            value.numpy() for value in binding.get_outputs()[-1 - len(self._states) :]
        ]
        self._states = dict(zip(self._states, outputs[:-1], strict=True))
        return logits.astype(np.float32, copy=False)  # type: ignore[no-any-return]
