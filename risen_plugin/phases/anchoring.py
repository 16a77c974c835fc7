"""The anchors of a phase: plain prompts, and what the model at phase entry answers to them."""

from __future__ import annotations

import random
from dataclasses import replace

from risen_plugin.builtin.generators.anchor_prompts import anchor_prompts
from risen_plugin.phases.context import PhaseContext
from risen_plugin.training.anchoring import Anchors, anchored
from risen_plugin.training.answering import answers
from risen_plugin.training.asking import Asking
from risen_plugin.training.outside import Outside

_AT_ONCE = 8  # rows whose logits are computed together


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
