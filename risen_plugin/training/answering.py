"""Measure a model as it stands: greedy answers to instructions, loss on probe rows.

Greedy and without gradients, so a measurement draws no random number. Callers are inside the
clean room, which puts evaluation mode and padding back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import GenerationConfig

from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError, DataError
from risen_plugin.instructions.probe_rows import check_probe_row

_NO_LIMIT = 1_000_000

_IGNORED = -100
Encoded = tuple[list[int], list[int]]
"""Token ids and labels of one probe row; labels that are ignored are -100."""


def prompt_ids(tokenizer: Any, prompt: Any) -> list[int]:
    """Token ids of a prompt as the model sees it: text as it is, chat through the template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    check_chat(tokenizer)
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def check_chat(tokenizer: Any) -> None:
    """Refuse chat messages for a tokenizer that has no chat template.

    :raises ConfigError: saying what to do.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "there are chat messages to read, but the tokenizer has no chat template; set "
            "tokenizer.chat_template, or give prompts as plain text"
        )


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token id that ends an answer, as TRL collects them."""
    declared = model.generation_config.eos_token_id
    ids = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.insert(0, tokenizer.eos_token_id)
    return ids


@torch.no_grad()
def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: str | None = None,
) -> list[Any]:
    """Greedy answers in the prompts' order; chat messages for chat prompts, text for text.

    :param progress: what a progress bar says; None shows none.
    """
    model.eval()
    encoded = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(encoded[index]))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=end_ids(model, tokenizer),
        pad_token_id=pad,
        disable_compile=True,
    )
    texts: dict[int, str] = {}
    bar = tqdm(total=len(order), desc=progress, unit="row", leave=False, disable=progress is None)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        longest = max(len(encoded[index]) for index in chosen)
        rows = [[pad] * (longest - len(encoded[i])) + encoded[i] for i in chosen]
        mask = [[0] * (longest - len(encoded[i])) + [1] * len(encoded[i]) for i in chosen]
        made = model.generate(
            input_ids=torch.tensor(rows, device=model.device),  # (B, T), padded on the left
            attention_mask=torch.tensor(mask, device=model.device),
            generation_config=config,
        )[:, longest:]
        for index, text in zip(
            chosen, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True
        ):
            texts[index] = text
        bar.update(len(chosen))
    bar.close()
    return [_as_given(prompts[index], texts[index]) for index in range(len(prompts))]


def answers_to(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: str | None = None,
) -> list[Any]:
    """Greedy answers to the prompts of ``rows``."""
    return answers(
        model,
        tokenizer,
        [row["prompt"] for row in rows],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )


def probe_loss(
    model: nn.Module, rows: Sequence[Encoded], *, batch_size: int, pad_id: int = 0
) -> float:
    """Mean negative log-likelihood per labelled token, in nats, over encoded probe rows."""
    return mean_loss(row_losses(model, rows, batch_size=batch_size, pad_id=pad_id))


def mean_loss(losses: Sequence[tuple[float, int]]) -> float:
    """The mean per token of (nats, tokens) of each row."""
    return sum(nats for nats, _ in losses) / max(1, sum(tokens for _, tokens in losses))


@torch.no_grad()
def row_losses(
    model: nn.Module, rows: Sequence[Encoded], *, batch_size: int, pad_id: int = 0
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
        labels = [lab + [_IGNORED] * (longest - len(lab)) for _, lab in batch]
        wanted = torch.tensor(labels, device=device)[:, 1:]  # (B, T - 1)
        logits = model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
        ).logits[:, :-1]  # (B, T - 1, V)
        kept = wanted != _IGNORED
        by_token = torch.zeros(kept.shape, dtype=torch.float64, device=device)
        by_token[kept] = nn.functional.cross_entropy(
            logits[kept].float(), wanted[kept], reduction="none"
        ).double()
        for index, nats, tokens in zip(
            chosen, by_token.sum(dim=1).tolist(), kept.sum(dim=1).tolist(), strict=True
        ):
            losses[index] = (nats, tokens)
    return losses


def answered(prompt: list[int], answer: list[int]) -> Encoded:
    """Token ids of a prompt and its answer, labelled in the answer alone."""
    return [*prompt, *answer], [_IGNORED] * len(prompt) + answer


def encode_probe(tokenizer: Any, rows: Sequence[Mapping[str, Any]], longest: int) -> list[Encoded]:
    """Token ids and labels of probe rows, cut to ``longest`` tokens.

    Understood are ``input_ids`` (with ``labels`` or masks, as trainers prepare them), ``prompt``
    and ``completion``, ``messages``, and ``text``.

    :raises DataError: for any other row, naming its columns, or if no token is left to probe.
    """
    encoded: list[Encoded] = []
    for index, row in enumerate(rows):
        check_probe_row(row, index)
        try:
            encoded.append(_encode(tokenizer, row, index))
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(f"probe row {index} cannot be read: {error}") from error
    cut = [(ids[:longest], labels[:longest]) for ids, labels in encoded]
    if not any(label != _IGNORED for _, labels in cut for label in labels[1:]):
        raise DataError("the probe has no row with a token to predict; give it more rows")
    return cut


def _encode(tokenizer: Any, row: Mapping[str, Any], index: int) -> Encoded:
    if "input_ids" in row:
        ids = [int(token) for token in row["input_ids"]]
        if row.get("labels") is not None:
            return ids, [int(label) for label in row["labels"]]
        mask = row.get("completion_mask") or row.get("assistant_masks") or row.get("attention_mask")
        learned = [1] * len(ids) if mask is None else mask
        return ids, [token if keep else _IGNORED for token, keep in zip(ids, learned, strict=True)]
    if "prompt" in row and "completion" in row:
        head = prompt_ids(tokenizer, row["prompt"])
        if isinstance(row["prompt"], str):
            end = tokenizer.eos_token or ""
            whole = prompt_ids(tokenizer, row["prompt"] + row["completion"] + end)
        else:
            whole = _conversation(tokenizer, [*row["prompt"], *row["completion"]])
        return whole, [_IGNORED] * len(head) + whole[len(head) :]
    if "messages" in row:
        ids = _conversation(tokenizer, row["messages"])
        return ids, list(ids)
    ids = list(tokenizer(row["text"])["input_ids"])
    return ids, list(ids)


def _conversation(tokenizer: Any, messages: Sequence[Any]) -> list[int]:
    check_chat(tokenizer)
    text = tokenizer.apply_chat_template(list(messages), tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _as_given(prompt: Any, text: str) -> Any:
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def longest_prompt(model: Any, answer_tokens: int, label: str = "grpo") -> int:
    """Most tokens a prompt may have so that an answer of ``answer_tokens`` fits the context.

    :raises ConfigError: if the answers alone fill the context.
    """
    config = model.config.get_text_config()
    context = int(getattr(config, "max_position_embeddings", None) or _NO_LIMIT)
    if answer_tokens >= context:
        raise ConfigError(
            f"{label}.max_completion_length = {answer_tokens} fills the model's context of "
            f"{context} tokens; lower it"
        )
    return context - answer_tokens
