"""Answers of the model at phase entry, by which its forward KL to a later model is measured.

Forward KL(entry || later) on the task at hand predicts forgetting. It is a mean over the entry
model's own answers, so they are sampled once, and their losses are taken again whenever the KL is
wanted: it is the rise of the loss per token, and no second model is kept. The answers have a seed
of their own and leave the random state as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from risen_plugin.contracts import Row
from risen_plugin.training.answering import Encoded, answered, end_ids, prompt_ids

_AS_IT_FINDS_THEM: dict[str, Any] = {
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
"""What a model's own generation settings would change of its distribution, switched off."""


@torch.no_grad()
def sampled_answers(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    count: int,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
) -> list[Encoded]:
    """``count`` answers sampled as the model finds them likely, going round the prompts.

    Token ids as they were drawn, the end included; labels are those of the answer.
    """
    if not rows or not count:
        return []
    model.eval()
    asked = [prompt_ids(tokenizer, rows[place % len(rows)]["prompt"]) for place in range(count)]
    ends = end_ids(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=True,
        temperature=1.0,
        **_AS_IT_FINDS_THEM,
        remove_invalid_values=True,  # a broken model is for the losses to show
        eos_token_id=ends,
        pad_token_id=pad,
        disable_compile=True,
    )
    made: list[Encoded] = []
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for start in range(0, count, batch_size):
            batch = asked[start : start + batch_size]
            longest = max(map(len, batch))
            ids = [[pad] * (longest - len(prompt)) + prompt for prompt in batch]
            mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch]
            drawn = model.generate(
                input_ids=torch.tensor(ids, device=model.device),  # (B, T), padded on the left
                attention_mask=torch.tensor(mask, device=model.device),
                generation_config=config,
            )[:, longest:]
            for prompt, answer in zip(batch, drawn.tolist(), strict=True):
                made.append(answered(prompt, _to_end(answer, ends)))
    return made


def _to_end(answer: list[int], ends: Sequence[int]) -> list[int]:
    """The answer with its first end, without the padding behind it."""
    places = [place for place, token in enumerate(answer) if token in ends]
    return answer[: places[0] + 1] if places else answer
