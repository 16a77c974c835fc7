"""Answers of a model as it is now: the greedy ones by which it is measured, and sampled ones.

Greedy answers draw no random number; sampled ones have a seed of their own and leave the random
state as it was. Neither takes gradients. Callers are inside the clean room, which puts evaluation
mode and padding back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig

from risen_plugin.contracts import Completion, Prompt, Row, text_of
from risen_plugin.errors import ConfigError
from risen_plugin.training.asking import Asking, as_asked, end_ids
from risen_plugin.training.outside import Outside
from risen_plugin.training.protocols import Model

_NO_LIMIT = 1_000_000

IGNORED = -100
Encoded = tuple[list[int], list[int]]
"""Token ids and labels of one row; labels that are ignored are -100."""


@dataclass(frozen=True)
class Answers:
    """A model's answers, in the order of their prompts.

    :param completions: as rewards get them.
    :param ids: the token ids of each, its end included where it came to one.
    """

    completions: Sequence[Completion] = ()
    ids: Sequence[list[int]] = ()


def longest_prompt(model: Model, answer_tokens: int, label: str = "grpo") -> int:
    """Most tokens a prompt may have so that an answer of ``answer_tokens`` fits the context.

    :raises ConfigError: if the answers alone fill the context.
    """
    config = model.config.get_text_config()
    context = int(getattr(config, "max_position_embeddings", None) or _NO_LIMIT)
    if context < 0:  # XLNet's way of saying that it has no limit
        context = _NO_LIMIT
    if answer_tokens >= context:
        raise ConfigError(
            f"{label}.max_completion_length = {answer_tokens} fills the model's context of "
            f"{context} tokens; lower it"
        )
    return context - answer_tokens


@torch.no_grad()
def answers(
    model: Model,
    asking: Asking,
    prompts: Sequence[Prompt],
    *,
    batch_size: int,
    progress: str | None = None,
    outside: Outside | None = None,
) -> Answers:
    """Greedy answers to ``prompts``.

    :param progress: the label of a progress bar; None shows none.
    :param outside: answers in the place of the model.
    """
    model.eval()
    asked = [asking.prompt_ids(prompt) for prompt in prompts]
    if outside is not None:
        answered = outside.greedy(model, asked, asking.answer_tokens)
        return Answers(asking.read(prompts, asked, answered), answered)
    order = sorted(range(len(prompts)), key=lambda index: len(asked[index]))
    config, ends = asking.greedy(model), end_ids(model, asking.tokenizer)
    made: dict[int, list[int]] = {}
    bar = tqdm(total=len(order), desc=progress, unit="row", leave=False, disable=progress is None)
    with as_asked(model, asking.precision):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            drawn = _generate(model, [asked[index] for index in chosen], config)
            made |= zip(chosen, (_to_end(ids, ends) for ids in drawn.tolist()), strict=True)
            bar.update(len(chosen))
    bar.close()
    ids = [made[index] for index in range(len(prompts))]
    return Answers(asking.read(prompts, asked, ids), ids)


def answers_to(
    model: Model,
    asking: Asking,
    rows: Sequence[Row],
    *,
    batch_size: int,
    progress: str | None = None,
    outside: Outside | None = None,
) -> Answers:
    """Greedy answers to the prompts of ``rows``."""
    prompts = [row["prompt"] for row in rows]
    return answers(
        model, asking, prompts, batch_size=batch_size, progress=progress, outside=outside
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
    asking: Asking,
    prompts: Sequence[Prompt],
    *,
    batch_size: int,
    outside: Outside | None = None,
) -> list[str]:
    """Greedy answers, as texts, of a model that goes on training in the mode that it is in."""
    with same_modes(model):
        made = answers(model, asking, prompts, batch_size=batch_size, outside=outside)
    return [text_of(answer) for answer in made.completions]


@torch.no_grad()
def sampled_answers(
    model: Model,
    asking: Asking,
    rows: Sequence[Row],
    *,
    count: int,
    batch_size: int,
    seed: int,
    outside: Outside | None = None,
) -> list[Encoded]:
    """``count`` answers sampled from the model's own distribution, going round the prompts.

    The forward KL of the model to a later one is measured by them: it is a mean over the model's
    own answers, so they are sampled once, and their losses are taken again whenever the KL is
    wanted. It is the rise of the loss per token, and no second model is kept.

    Token ids as they were drawn, the end included; labels are those of the answer.

    :param outside: answers in the place of the model.
    """
    if not rows or not count:
        return []
    model.eval()
    asked = [asking.prompt_ids(rows[place % len(rows)]["prompt"]) for place in range(count)]
    if outside is not None:
        given = outside.drawn(model, asked, seed)
        return [encoded_answer(*both) for both in zip(asked, given, strict=True)]
    config, ends = asking.sampled(model), end_ids(model, asking.tokenizer)
    made: list[Encoded] = []
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), as_asked(model, asking.precision):
        torch.manual_seed(seed)
        for start in range(0, count, batch_size):
            batch = asked[start : start + batch_size]
            drawn = _generate(model, batch, config)
            for prompt, answer in zip(batch, drawn.tolist(), strict=True):
                made.append(encoded_answer(prompt, _to_end(answer, ends)))
    return made


@torch.no_grad()
def sampled_ids(
    model: Model, asking: Asking, prompts: Sequence[list[int]], tokens: int
) -> list[list[int]]:
    """Answers of exactly ``tokens`` tokens to token ids, in one batch; for measuring time."""
    config = asking.sampled(model)
    config.max_new_tokens = config.min_new_tokens = tokens
    devices = [model.device] if model.device.type == "cuda" else []
    with (
        same_modes(model),
        torch.random.fork_rng(devices=devices),
        as_asked(model, asking.precision),
    ):
        model.eval()
        made: list[list[int]] = _generate(model, prompts, config).tolist()
    return made


@dataclass(frozen=True)
class TimedAnswers:
    """Greedy answers in one batch, as far as there was time.

    :param first_s: seconds of reading the prompts, with the first token.
    :param token_s: seconds of each further token, of all answers together.
    :param lengths: tokens of each answer; the most that it may have where it was cut off.
    """

    first_s: float
    token_s: float
    lengths: Sequence[int]


@torch.no_grad()
def timed_answers(
    model: Model, asking: Asking, prompts: Sequence[list[int]], limit_s: float
) -> TimedAnswers:
    """Time greedy answers to token ids.

    :param limit_s: the most that is spent on their further tokens.
    """
    spent: list[float] = []
    made = torch.empty(0)
    with same_modes(model), as_asked(model, asking.precision):
        model.eval()
        for tokens in (1, asking.answer_tokens):
            config = asking.greedy(model)
            config.max_new_tokens = tokens
            config.max_time = sum(spent) + limit_s if spent else None
            began = time.perf_counter()
            made = _generate(model, prompts, config)
            spent.append(time.perf_counter() - began)
    first, whole = spent
    ends, written = end_ids(model, asking.tokenizer), made.shape[1]
    lengths = [
        len(answer) if answer[-1] in ends else asking.answer_tokens
        for ids in made.tolist()
        for answer in [_to_end(ids, ends)]
    ]
    return TimedAnswers(first, max(0.0, whole - first) / max(1, written - 1), lengths)


def encoded_answer(prompt: list[int], answer: list[int]) -> Encoded:
    """Token ids of a prompt and its answer, labelled in the answer alone."""
    return [*prompt, *answer], [IGNORED] * len(prompt) + answer


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
