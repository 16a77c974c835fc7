"""The parts of other libraries' objects that this package uses, as it uses them."""

from __future__ import annotations

from typing import Any, Protocol


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
