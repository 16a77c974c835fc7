"""The parts of other libraries' objects that this package uses, as it uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn


class Model(Protocol):
    """A causal language model of transformers, or PEFT's around one."""

    training: bool

    @property
    def config(self) -> Any: ...

    @property
    def generation_config(self) -> Any: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]: ...

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...

    def generate(self, *args: Any, **kwargs: Any) -> Any: ...

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any: ...


class AdaptedModel(Model, Protocol):
    """A model with an adapter that is trained, as PEFT makes it."""

    @property
    def peft_config(self) -> dict[str, Any]: ...

    @property
    def active_adapter(self) -> str: ...

    def disable_adapter(self) -> AbstractContextManager[None]: ...

    def add_adapter(self, *args: Any, **kwargs: Any) -> None: ...

    def merge_adapter(self, *args: Any, **kwargs: Any) -> Any: ...


class Tokenizer(Protocol):
    """A tokenizer of transformers, or of another library that has these."""

    chat_template: Any

    @property
    def eos_token(self) -> Any: ...

    @property
    def eos_token_id(self) -> Any: ...

    @property
    def pad_token_id(self) -> Any: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any: ...

    def batch_decode(self, *args: Any, **kwargs: Any) -> Any: ...

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any: ...
