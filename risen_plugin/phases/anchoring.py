"""The anchors of a phase: plain prompts, and what the model at phase entry answers to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from risen_plugin.builtin.generators.sources import open_source
from risen_plugin.config import AnchorConfig
from risen_plugin.contracts import Prompt
from risen_plugin.errors import ConfigError
from risen_plugin.phases.context import PhaseContext
from risen_plugin.training.anchoring import Anchors, anchored
from risen_plugin.training.answering import answers
from risen_plugin.training.asking import Asking
from risen_plugin.training.outside import Outside

_AT_ONCE = 8  # rows whose logits are computed together


def anchor_prompts(config: AnchorConfig, *, chats: bool) -> list[Prompt]:
    """The prompts of anchors: texts as a message of a user's where the model chats.

    :raises DataError: if the file cannot be read.
    :raises ConfigError: for a row that is none and has no ``prompt``.
    """
    there = config.prompts
    path = None if isinstance(there, Sequence) and not isinstance(there, str) else str(there)
    listed = None if path is not None else there
    source = open_source(path, None, "train", listed)  # type: ignore[arg-type]
    made: list[Prompt] = []
    for where, row in source:
        prompt: Any = row.get("prompt") if isinstance(row, dict) else row
        if not prompt or not isinstance(prompt, str | list):
            raise ConfigError(f"anchor.prompts: {where} is no prompt, and has no 'prompt' in it")
        is_text = isinstance(prompt, str)
        made.append([{"role": "user", "content": prompt}] if is_text and chats else prompt)
    if not made:
        raise ConfigError(f"anchor.prompts: '{path}' has no prompts; give some, or 'plain'")
    return made


def make_anchors(
    context: PhaseContext,
    asking: Asking,
    label: str,
    *,
    steps: int,
    seed: int,
    outside: Outside | None,
) -> Anchors | None:
    """The anchors that the steps of a phase take, by the model as it enters; None without any.

    Each process makes the ones that it reads itself.

    :param label: of the progress bar.
    """
    config, processes = context.config.anchor, context.processes
    if config is None:
        return None
    chats = getattr(context.tokenizer, "chat_template", None) is not None
    prompts = anchor_prompts(config, chats=chats)
    random.Random(seed).shuffle(prompts)
    mine = processes.share(prompts[: steps * config.rows])
    short = replace(
        asking,
        grpo={**asking.grpo, "max_completion_length": min(config.tokens, asking.answer_tokens)},
    )
    made = answers(
        context.model,
        short,
        mine,
        batch_size=context.config.guard.batch_size,
        progress=None if context.quiet else label,
        outside=outside,
    )
    answered = [
        (short.prompt_ids(prompt), list(ids[: config.tokens]))
        for prompt, ids in zip(mine, made.ids, strict=True)
    ]
    return Anchors(
        anchored(
            context.model,
            [both for both in answered if both[1]],
            likeliest=config.likeliest,
            batch_size=_AT_ONCE,
            precision=asking.precision,
        ),
        each_step=max(1, config.rows // processes.count),
        weight=config.weight,
    )
