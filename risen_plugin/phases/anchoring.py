"""The anchors of a phase: plain prompts, and what the model at phase entry answers to them."""

from __future__ import annotations

import random

from risen_plugin.builtin.generators.anchor_prompts import anchor_prompts
from risen_plugin.phases.context import PhaseContext
from risen_plugin.training.anchoring import Anchors, anchored
from risen_plugin.training.answering import IGNORED, Encoded, answers
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

    Prompts of the probe are left out: a loss that is held down shows no harm. Each process makes
    the anchors that it reads itself.

    :param label: of the progress bar.
    """
    config, processes = context.config.anchor, context.processes
    if config is None:
        return None
    chats = getattr(context.tokenizer, "chat_template", None) is not None
    prompts = anchor_prompts(config, chats=chats)
    random.Random(seed).shuffle(prompts)
    probed = {tuple(_asked(row)) for row in context.probe}
    apart = [prompt for prompt in prompts if tuple(asking.prompt_ids(prompt)) not in probed]
    if not apart:
        context.say(f"{label}: none, since the probe has all of their prompts")
        return None
    mine = processes.share(apart[: steps * config.rows])
    short = asking.with_room(min(config.tokens, asking.answer_tokens))
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
            progress=None if context.quiet else f"{label}, their likelihoods",
        ),
        each_step=max(1, config.rows // processes.count),
        weight=config.weight,
    )


def _asked(row: Encoded) -> list[int]:
    """The tokens of a probe row before the first that is learned from: its prompt."""
    ids, labels = row
    learned = next((at for at, label in enumerate(labels) if label != IGNORED), len(ids))
    return ids[:learned]
