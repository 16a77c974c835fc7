"""Answers of a model as it is now: the greedy ones by which it is measured, and sampled ones.

Greedy answers draw no random number; sampled ones have a seed of their own and leave the random
state as it was. Neither takes gradients. Callers are inside the clean room, which puts evaluation
mode and padding back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig

from risen_plugin.contracts import Completion, Prompt, Row, text_of
from risen_plugin.errors import ConfigError
from risen_plugin.training.protocols import Model, Tokenizer

_NO_LIMIT = 1_000_000

IGNORED = -100
Encoded = tuple[list[int], list[int]]
"""Token ids and labels of one row; labels that are ignored are -100."""

_OWN_DISTRIBUTION: dict[str, Any] = {
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
"""Generation settings that would change the model's own distribution, switched off."""


def prompt_ids(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    """Token ids of a prompt as the model sees it: text as it is, chat through the template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    check_chat(tokenizer)
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def check_chat(tokenizer: Tokenizer) -> None:
    """Refuse chat messages for a tokenizer that has no chat template.

    :raises ConfigError: with advice.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "there are chat messages to read, but the tokenizer has no chat template; set "
            "tokenizer.chat_template, or give prompts as plain text"
        )


def end_ids(model: Model, tokenizer: Tokenizer) -> list[int]:
    """Every token id that ends an answer, as TRL collects them."""
    declared = model.generation_config.eos_token_id
    ids = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.insert(0, tokenizer.eos_token_id)
    return ids


def longest_prompt(model: Model, answer_tokens: int, label: str = "grpo") -> int:
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


@torch.no_grad()
def answers(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: str | None = None,
) -> list[Completion]:
    """Greedy answers in the prompts' order; chat messages for chat prompts, text for text.

    :param progress: the label of a progress bar; None shows none.
    """
    model.eval()
    encoded = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(encoded[index]))
    config = _generation(model, tokenizer, max_new_tokens=max_new_tokens, do_sample=False)
    texts: dict[int, str] = {}
    bar = tqdm(total=len(order), desc=progress, unit="row", leave=False, disable=progress is None)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        made = _generate(model, [encoded[index] for index in chosen], config)
        for index, text in zip(
            chosen, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True
        ):
            texts[index] = text
        bar.update(len(chosen))
    bar.close()
    return [_in_form_of(prompts[index], texts[index]) for index in range(len(prompts))]


def answers_to(
    model: Model,
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: str | None = None,
) -> list[Completion]:
    """Greedy answers to the prompts of ``rows``."""
    return answers(
        model,
        tokenizer,
        [row["prompt"] for row in rows],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )


@contextmanager
def same_modes(model: Model) -> Iterator[None]:
    """Put each module back into its training or evaluation mode at the end."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def texts_in_training(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """Greedy answers, as texts, of a model that goes on training in the mode that it is in."""
    with same_modes(model):
        made = answers(
            model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size
        )
    return [text_of(answer) for answer in made]


@torch.no_grad()
def sampled_answers(
    model: Model,
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    *,
    count: int,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
) -> list[Encoded]:
    """``count`` answers sampled from the model's own distribution, going round the prompts.

    The forward KL of the model to a later one is measured by them: it is a mean over the model's
    own answers, so they are sampled once, and their losses are taken again whenever the KL is
    wanted. It is the rise of the loss per token, and no second model is kept.

    Token ids as they were drawn, the end included; labels are those of the answer.
    """
    if not rows or not count:
        return []
    model.eval()
    asked = [prompt_ids(tokenizer, rows[place % len(rows)]["prompt"]) for place in range(count)]
    config = _generation(
        model,
        tokenizer,
        max_new_tokens=max_new_tokens,
        do_sample=True,
        temperature=1.0,
        **_OWN_DISTRIBUTION,
        remove_invalid_values=True,  # a broken model is for the losses to show
    )
    ends = end_ids(model, tokenizer)
    made: list[Encoded] = []
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for start in range(0, count, batch_size):
            batch = asked[start : start + batch_size]
            drawn = _generate(model, batch, config)
            for prompt, answer in zip(batch, drawn.tolist(), strict=True):
                made.append(encoded_answer(prompt, _to_end(answer, ends)))
    return made


def encoded_answer(prompt: list[int], answer: list[int]) -> Encoded:
    """Token ids of a prompt and its answer, labelled in the answer alone."""
    return [*prompt, *answer], [IGNORED] * len(prompt) + answer


def _generation(model: Model, tokenizer: Tokenizer, **settings: Any) -> GenerationConfig:
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return GenerationConfig(
        **settings,
        eos_token_id=end_ids(model, tokenizer),
        pad_token_id=pad,
        disable_compile=True,
    )


def _generate(model: Model, prompts: Sequence[list[int]], config: GenerationConfig) -> torch.Tensor:
    """The token ids that follow each prompt, (B, T); ended answers are padded."""
    longest = max(map(len, prompts))
    pad: Any = config.pad_token_id
    ids = [[pad] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    made: torch.Tensor = model.generate(
        input_ids=torch.tensor(ids, device=model.device),  # (B, T), padded on the left
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=config,
    )
    return made[:, longest:]


def _to_end(answer: list[int], ends: Sequence[int]) -> list[int]:
    """The answer with its first end, without the padding behind it."""
    places = [place for place, token in enumerate(answer) if token in ends]
    return answer[: places[0] + 1] if places else answer


def _in_form_of(prompt: Prompt, text: str) -> Completion:
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
