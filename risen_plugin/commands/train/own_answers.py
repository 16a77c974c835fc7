"""A probe made of the model's own answers before RISEN, for runs without probe rows.

The loss on these answers shows how far the model has moved from them. Where rows have the plain
``query``, the probe takes the answers to the queries, since nothing about them should change.
Elsewhere it takes those answers to the held-out instructions that follow them already, since a
right answer should stay right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from risen_plugin.contracts import Row, is_blank, text_of

if TYPE_CHECKING:
    import torch

    from risen_plugin.callback import RisenCallback
    from risen_plugin.training.protocols import Model, Tokenizer

_MOST = 128  # rows that are answered where the guard's are chosen for each phase
_FEWEST = 8  # passing answers, below which all of them are taken


class OwnAnswers:
    """Rows of a probe, made when they are first read, which needs a bound model."""

    def __init__(self, *, quiet: bool = False, precision: torch.dtype | None = None) -> None:
        self.quiet = quiet
        self.precision = precision
        self._bound: tuple[RisenCallback, Model, Tokenizer] | None = None

    def bind(self, callback: RisenCallback, model: Model, tokenizer: Tokenizer) -> None:
        """Set the callback with the instructions, and the model that answers them."""
        self._bound = callback, model, tokenizer

    def rows(self) -> list[Row]:
        """The held-out rows that the model answers."""
        assert self._bound is not None
        callback = self._bound[0]
        held_out = callback.run_state.instructions.held_out
        # What is set apart for the guard may be much more than it will ask for.
        most = max(1, _MOST - len(held_out.report)) if callback.config.guard.is_auto else None
        return [*held_out.guard[:most], *held_out.report]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """One row with prompt and completion per answer; where all are blank, the prompts."""
        from risen_plugin.config import effective_grpo
        from risen_plugin.rewards.adherence import grade, verdicts
        from risen_plugin.training.answering import answers
        from risen_plugin.training.asking import Asking
        from risen_plugin.training.clean_room import clean_room
        from risen_plugin.training.losses import plain_query

        assert self._bound is not None
        callback, model, tokenizer = self._bound
        config, rows = callback.config, self.rows()
        prompts = [plain_query(row["prompt"], row.get("query")) for row in rows]
        asking = Asking(tokenizer, effective_grpo(config.grpo), self.precision)
        with clean_room(model, tokenizer):
            made = answers(
                model,
                asking,
                prompts,
                batch_size=config.guard.batch_size,
                progress=None if self.quiet else "probe: its own answers",
            )
        usable = [not is_blank(text_of(answer)) for answer in made.completions]
        if not all(row.get("query") for row in rows):
            rewards = callback.run_state.parts.rewards
            passed = verdicts(rewards, grade(rewards, rows, made.completions, made.ids))
            right = [bool(p) and u for p, u in zip(passed, usable, strict=True)]
            usable = right if sum(right) >= _FEWEST else usable
        if not any(usable):
            return ({"text": text_of(prompt)} for prompt in prompts)
        return (
            {"prompt": prompt, "completion": answer, "chat_template_kwargs": asking.template}
            for prompt, answer, use in zip(prompts, made.completions, usable, strict=True)
            if use
        )

    def __deepcopy__(self, memo: object) -> OwnAnswers:
        return self  # it holds the model

    def __repr__(self) -> str:
        return "the model's own answers"
