"""Leave somebody else's training run exactly as it was found.

A nested TRL trainer changes a great deal around its model: ``requires_grad`` flags,
``forward``, hooks, configs, tags, dropout, train/eval mode, the tokenizer's padding, the global
random generators and accelerate's shared state. Instead of undoing each by name, the clean room
remembers the attributes of every object that could be touched and puts all of them back.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from risen_plugin.training.protocols import Model, Tokenizer

_CONTAINERS = (dict, list, set)
_LARGEST_COPY = 2**20  # elements of a buffer


class _Attributes:
    """The attributes of one object, and the content of its dicts, lists and sets."""

    def __init__(self, held: object) -> None:
        self.held = held
        self.values = dict(vars(held))
        self.contents = [
            (value, value.copy())
            for value in self.values.values()
            if isinstance(value, _CONTAINERS)
        ]

    def restore(self) -> None:
        attributes = vars(self.held)
        attributes.clear()
        attributes.update(self.values)
        for container, content in self.contents:
            _refill(container, content)


class _Mappings:
    """The content of process-wide dictionaries, by identity, with the lists that they hold."""

    def __init__(self, *mappings: Any) -> None:
        self.mappings = [(mapping, dict(mapping)) for mapping in mappings]
        self.contents = [
            (value, value.copy())
            for _, content in self.mappings
            for value in content.values()
            if isinstance(value, _CONTAINERS)
        ]

    def restore(self) -> None:
        for mapping, content in [*self.mappings, *self.contents]:
            _refill(mapping, content)


class _RandomStates:
    """The global random generators, on every device."""

    def __init__(self) -> None:
        self.states = random_states()

    def restore(self) -> None:
        set_random_states(self.states)


class _Parameters:
    """Flags and gradients of every parameter; the parameters' values are not touched."""

    def __init__(self, model: Model) -> None:
        self.states = [(p, p.requires_grad, p.grad) for p in model.parameters()]

    def restore(self) -> None:
        for parameter, requires_grad, grad in self.states:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


class _Buffers:
    """The values of buffers that are small enough to be copied.

    Larger ones hold the packed weights of a quantized model, which nothing writes; that they are in
    their place again is seen to with the attributes of their module.
    """

    def __init__(self, model: Model) -> None:
        self.values = [
            (buffer, buffer.detach().clone())
            for _, buffer in model.named_buffers()
            if buffer.numel() <= _LARGEST_COPY and buffer.device.type != "meta"
        ]

    def restore(self) -> None:
        with torch.no_grad():
            for buffer, value in self.values:
                buffer.copy_(value)


class _Padding:
    """Padding and truncation inside a fast tokenizer's backend, which calls switch on."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self.backend = getattr(tokenizer, "backend_tokenizer", None)
        if self.backend is not None:
            self.padding = self.backend.padding
            self.truncation = self.backend.truncation

    def restore(self) -> None:
        if self.backend is None:
            return
        self.backend.no_padding()
        self.backend.no_truncation()
        if self.padding is not None:
            self.backend.enable_padding(**self.padding)
        if self.truncation is not None:
            self.backend.enable_truncation(**self.truncation)


@contextmanager
def clean_room(model: Model, tokenizer: Tokenizer | None = None, *others: object) -> Iterator[None]:
    """Put the surroundings of ``model`` back as they were, also after an exception.

    Only values that a caller writes into the parameters themselves stay changed: merging an
    adapter inside the room stays, building and training one is forgotten. ``others`` are
    further objects whose attributes are put back. Inside, attention is :func:`finite_attention`.
    """
    objects: dict[int, object] = {id(module): module for module in model.modules()}
    for module in list(objects.values()):
        for settings in _settings_of(module):
            objects[id(settings)] = settings
    for extra in (tokenizer, *others):
        if extra is not None:
            objects[id(extra)] = extra
    remembered: list[Any] = [_Attributes(held) for held in objects.values()]
    remembered += [_Parameters(model), _Buffers(model)]
    remembered.append(_Padding(tokenizer))
    remembered.append(
        _Mappings(
            AcceleratorState._shared_state,
            PartialState._shared_state,
            GradientState._shared_state,
            os.environ,
        )
    )
    remembered.append(_RandomStates())
    grad_enabled = torch.is_grad_enabled()
    try:
        with finite_attention():
            yield
    finally:
        torch.set_grad_enabled(grad_enabled)
        for part in remembered:
            part.restore()


def _settings_of(module: object) -> Iterator[object]:
    """The configurations of a module: its own, of generation, and of its adapters."""
    adapters = getattr(module, "peft_config", None)
    named = adapters.values() if isinstance(adapters, dict) else ()
    for settings in (
        getattr(module, "config", None),
        getattr(module, "generation_config", None),
        *named,
    ):
        if settings is not None and hasattr(settings, "__dict__"):
            yield settings


def _refill(container: Any, content: Any) -> None:
    if isinstance(container, list):
        container[:] = content
    else:
        container.clear()
        container.update(content)


@contextmanager
def finite_attention() -> Iterator[None]:
    """Leave cuDNN's attention out while inside; PyTorch takes the next best of its kernels.

    Prompts of different lengths are padded on the left, and a padded position then attends to
    nothing. In half precision PyTorch takes cuDNN's attention on recent GPUs, and since PyTorch
    2.11 that one's backward pass answers NaN for such a position wherever the length is 64 beyond
    a multiple of 128 (pytorch/pytorch#196678; met with DPO in huggingface/trl#7181). One GRPO batch
    of that length is enough: the next step samples from a model of NaNs. PyTorch's other kernels
    give zeros there.
    """
    was_on = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was_on)


def random_states() -> dict[str, Any]:
    """Python's, numpy's and torch's random states, in types that weights-only loading accepts."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    version, numbers, following = random.getstate()
    return {
        "python": [version, list(numbers), following],
        "numpy": [kind, [int(key) for key in keys], place, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put back the states that :func:`random_states` returned."""
    version, numbers, following = states["python"]
    random.setstate((version, tuple(numbers), following))
    kind, keys, place, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), place, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
