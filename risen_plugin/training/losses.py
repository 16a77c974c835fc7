"""Losses of a model as it is now, on probe rows and on answers; without gradients.

The likelihood of an answer is one of them: the default quality by which a gate chooses. Callers are
inside the clean room, which puts evaluation mode back.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from risen_plugin.contracts import Completion, Failed, Message, Prompt, text_of
from risen_plugin.errors import DataError
from risen_plugin.instructions.rows import check_probe_row
from risen_plugin.rewards.scores import Scores
from risen_plugin.training.answering import IGNORED, Encoded, same_modes
from risen_plugin.training.asking import Asking, in_precision, prompt_ids, rendered, template_of
from risen_plugin.training.protocols import Model, Tokenizer


def probe_loss(model: Model, rows: Sequence[Encoded], *, batch_size: int, pad_id: int = 0) -> float:
    """Mean negative log-likelihood per labelled token, in nats, over encoded probe rows."""
    return mean_loss(row_losses(model, rows, batch_size=batch_size, pad_id=pad_id))


def mean_loss(losses: Sequence[tuple[float, int]]) -> float:
    """The mean per token of (nats, tokens) of each row."""
    return sum(nats for nats, _ in losses) / max(1, sum(tokens for _, tokens in losses))


@torch.no_grad()
def row_losses(
    model: Model, rows: Sequence[Encoded], *, batch_size: int, pad_id: int = 0
) -> list[tuple[float, int]]:
    """The negative log-likelihood of each row's labelled tokens, in nats, and how many they are."""
    model.eval()
    device = next(model.parameters()).device
    losses = [(0.0, 0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = [rows[index] for index in chosen]
        longest = max(len(ids) for ids, _ in batch)
        ids = [row + [pad_id] * (longest - len(row)) for row, _ in batch]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row, _ in batch]
        labels = [lab + [IGNORED] * (longest - len(lab)) for _, lab in batch]
        wanted = torch.tensor(labels, device=device)[:, 1:]  # (B, T - 1)
        logits = model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
        ).logits[:, :-1]  # (B, T - 1, V)
        labelled = wanted != IGNORED
        by_token = torch.zeros(labelled.shape, dtype=torch.float64, device=device)
        by_token[labelled] = nn.functional.cross_entropy(
            logits[labelled].float(), wanted[labelled], reduction="none"
        ).double()
        for index, nats, tokens in zip(
            chosen, by_token.sum(dim=1).tolist(), labelled.sum(dim=1).tolist(), strict=True
        ):
            losses[index] = (nats, tokens)
    return losses


def encode_probe(
    tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]], longest: int
) -> list[Encoded]:
    """Token ids and labels of probe rows, cut to ``longest`` tokens.

    Understood are ``input_ids`` (with ``labels`` or masks, as trainers prepare them), ``prompt``
    and ``completion``, ``messages``, and ``text``. A row's ``tools`` and ``chat_template_kwargs``
    go to the chat template, as in TRL's ``SFTTrainer``.

    :raises DataError: for any other row, naming its columns, or if no token is left to probe.
    """
    encoded: list[Encoded] = []
    for index, row in enumerate(rows):
        check_probe_row(row, index)
        try:
            encoded.append(_encode(tokenizer, row, index))
        except DataError as error:
            raise DataError(f"probe row {index}: {error}") from error
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(f"probe row {index} cannot be read: {error}") from error
    cut = [(ids[:longest], labels[:longest]) for ids, labels in encoded]
    if not any(label != IGNORED for _, labels in cut for label in labels[1:]):
        raise DataError("the probe has no row with a token to predict; give it more rows")
    return cut


def _encode(tokenizer: Tokenizer, row: Mapping[str, Any], index: int) -> Encoded:
    if "input_ids" in row:
        ids = [int(token) for token in row["input_ids"]]
        if row.get("labels") is not None:
            return ids, [int(label) for label in row["labels"]]
        mask = row.get("completion_mask") or row.get("assistant_masks") or row.get("attention_mask")
        learned = [1] * len(ids) if mask is None else mask
        return ids, [token if keep else IGNORED for token, keep in zip(ids, learned, strict=True)]
    template = template_of(row)
    if "prompt" in row and "completion" in row:
        head = prompt_ids(tokenizer, row["prompt"], template)
        if isinstance(row["prompt"], str):
            end = tokenizer.eos_token or ""
            whole = prompt_ids(tokenizer, row["prompt"] + row["completion"] + end)
        else:
            whole = _conversation(tokenizer, [*row["prompt"], *row["completion"]], template)
        # A template may render an answer's beginning otherwise than it invites one.
        pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(head, whole, strict=False))
        shared = sum(1 for _ in pairs)
        return whole, [IGNORED] * shared + whole[shared:]
    if "messages" in row:
        ids = _conversation(tokenizer, row["messages"], template)
        return ids, list(ids)
    ids = list(tokenizer(row["text"])["input_ids"])
    return ids, list(ids)


def _conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], template: Mapping[str, Any]
) -> list[int]:
    text = rendered(tokenizer, messages, **template)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def plain_query(prompt: Prompt, query: Prompt | None) -> Prompt:
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
    :param asking: how a phase asks it.
    :param entry: makes ``model`` the one at phase entry while it is open.
    :param longest: tokens that the model can read; longer texts are cut off.
    :param batch_size: rows read at once.
    """

    def __init__(
        self,
        model: Model,
        asking: Asking,
        entry: Callable[[], AbstractContextManager[Any]],
        *,
        longest: int,
        batch_size: int = 16,
    ) -> None:
        self.model = model
        self.asking = asking
        self.entry = entry
        self.longest = longest
        self.batch_size = batch_size

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        columns: Mapping[str, Any],
    ) -> Scores:
        queries = columns.get("query") or [None] * len(prompts)
        encoded = [
            self._encode(plain_query(prompt, query), completion)
            for prompt, query, completion in zip(prompts, queries, completions, strict=True)
        ]
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row][0]))
        scores: Scores = [None] * len(encoded)
        precise = in_precision(self.model, self.asking.precision)
        with same_modes(self.model), torch.no_grad(), precise, self.entry():
            self.model.eval()
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                for row, value in zip(
                    chosen, self._means([encoded[row] for row in chosen]), strict=True
                ):
                    scores[row] = value if math.isfinite(value) else Failed(f"it is {value}")
        return scores

    def _encode(self, query: Prompt, completion: Completion) -> tuple[list[int], int]:
        """Token ids, and how many of them at the end are the answer's."""
        tokenizer = self.asking.tokenizer
        asked = self.asking.prompt_ids(query)
        ids = tokenizer(text_of(completion), add_special_tokens=False)["input_ids"]
        answer = [*ids, tokenizer.eos_token_id][: max(1, self.longest - len(asked))]
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
            predicted = logits[row, end - answer - 1 : end - 1].float()  # (answer, V)
            loss = nn.functional.cross_entropy(predicted, tokens[row, end - answer : end])
            means.append(-float(loss))
        return means
