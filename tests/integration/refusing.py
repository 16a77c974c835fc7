"""What the tests of bad input share: a refusal in one line, and what goes wrong on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risen_plugin import RisenCallback, RisenError

from .test_clean_room import same, weights

Make = Callable[..., Any]


def refused(kind: type[RisenError], act: Callable[[], Any]) -> str:
    """The one line of exactly this error."""
    with pytest.raises(RisenError) as caught:
        act()
    assert type(caught.value) is kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def generator(make_row: Callable[[int], Any]) -> Any:
    """A generator of this many different rows and no end."""

    def mine(*, count: int, seed: int, start: int = 0, **context: Any) -> list[Any]:
        return [make_row(start + index) for index in range(count)]

    return mine


def rewarding(scores: Callable[[int], Any]) -> Any:
    """A reward that returns ``scores(completions)``."""

    def mine(completions: list[Any], **columns: Any) -> Any:
        return scores(len(completions))

    return mine


class Untouched:
    """A Trainer whose model, tokenizer and output folder must stay as they are."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.model = trainer.model
        self.folder = Path(trainer.args.output_dir)
        self.tensors = weights(self.model)
        self.before = self._marks()
        self.files = everything_in(self.folder.parent)

    def _marks(self) -> dict[str, Any]:
        tokenizer = self.trainer.processing_class
        return {
            "flags": [p.requires_grad for p in self.model.parameters()],
            "modules": [(name, type(module)) for name, module in self.model.named_modules()],
            "forward": "forward" in vars(self.model),
            "padding": (tokenizer.padding_side, tokenizer.pad_token, tokenizer.eos_token),
            "template": tokenizer.chat_template,
        }

    def check(self) -> None:
        assert self.trainer.state.global_step == 0
        assert same(self.tensors, weights(self.model))
        assert self._marks() == self.before
        assert everything_in(self.folder.parent) == self.files


def refused_at_the_start(
    trainer: Any, callback: RisenCallback, kind: type[RisenError], attached: bool
) -> str:
    untouched = Untouched(trainer)

    def train() -> None:
        if attached:
            callback.attach(trainer)
        else:
            trainer.add_callback(callback)
        trainer.train()

    said = refused(kind, train)
    untouched.check()
    return said


CAUSAL = {
    "vocab_size": 288,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}


CLASSIFIER = "Qwen2ForSequenceClassification"
