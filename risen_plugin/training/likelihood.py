"""The default quality of an answer: how likely the model at phase entry found it.

The model in training gives it, with what the phase has taught it switched off, so no second model
is kept in memory. Draws no random number and leaves the model's modes as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from risen_plugin.contracts import Failed, text_of
from risen_plugin.rewards.scores import Scores
from risen_plugin.training.answering import prompt_ids
from risen_plugin.training.protocols import Tokenizer


def plain_query(prompt: Any, query: Any) -> Any:
    """What was asked without the constraints: the row's ``query``, or else the prompt.

    A text for a chat prompt takes the place of its last message.
    """
    if query is None:
        return prompt
    if isinstance(query, str) and not isinstance(prompt, str):
        return [*prompt[:-1], {**prompt[-1], "content": query}]
    return query


class Likelihood:
    """Mean log-likelihood per token of answers, their end included, in nats.

    :param model: the model in training.
    :param entry: makes ``model`` the one at phase entry while it is open.
    :param longest: tokens that the model can read; what is longer is cut off.
    :param batch_size: rows read at once.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        entry: Callable[[], AbstractContextManager[Any]],
        *,
        longest: int,
        batch_size: int = 16,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.entry = entry
        self.longest = longest
        self.batch_size = batch_size

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
    ) -> Scores:
        queries = columns.get("query") or [None] * len(prompts)
        encoded = [
            self._encode(plain_query(prompt, query), completion)
            for prompt, query, completion in zip(prompts, queries, completions, strict=True)
        ]
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row][0]))
        scores: Scores = [None] * len(encoded)
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            with torch.no_grad(), self.entry():
                self.model.eval()
                for start in range(0, len(order), self.batch_size):
                    chosen = order[start : start + self.batch_size]
                    for row, value in zip(
                        chosen, self._means([encoded[row] for row in chosen]), strict=True
                    ):
                        scores[row] = value if math.isfinite(value) else Failed(f"it is {value}")
        finally:
            for module, training in modes:
                module.training = training
        return scores

    def _encode(self, query: Any, completion: Any) -> tuple[list[int], int]:
        """Token ids, and how many of them at the end are the answer's."""
        asked = prompt_ids(self.tokenizer, query)
        told = self.tokenizer(text_of(completion), add_special_tokens=False)["input_ids"]
        answer = [*told, self.tokenizer.eos_token_id][: max(1, self.longest - len(asked))]
        return [*asked, *answer], len(answer)

    def _means(self, rows: Sequence[tuple[list[int], int]]) -> list[float]:
        device = next(self.model.parameters()).device
        longest = max(len(ids) for ids, _ in rows)
        padded = [ids + [0] * (longest - len(ids)) for ids, _ in rows]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]
        tokens = torch.tensor(padded, device=device)  # (B, T), padded on the right
        logits = self.model(
            input_ids=tokens, attention_mask=torch.tensor(mask, device=device), use_cache=False
        ).logits  # (B, T, V)
        means = []
        for row, (ids, answer) in enumerate(rows):
            end = len(ids)
            found = logits[row, end - answer - 1 : end - 1].float()  # (answer, V)
            loss = nn.functional.cross_entropy(found, tokens[row, end - answer : end])
            means.append(-float(loss))
        return means
