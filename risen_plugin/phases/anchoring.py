"""The anchors of a phase: plain prompts, and what the model at phase entry answers to them."""

from __future__ import annotations

import random

from risen_plugin.builtin.generators.anchor_prompts import MOST, anchor_prompts
from risen_plugin.phases.context import PhaseContext
from risen_plugin.training.anchoring import Anchor, Anchors, anchored
from risen_plugin.training.answering import IGNORED, Encoded, answers, longest_prompt
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
    probed = {tuple(_asked(row)) for row in context.probe}
    rng = random.Random(seed)
    kinds = [
        [prompt for prompt in kind if tuple(asking.prompt_ids(prompt)) not in probed]
        for kind in anchor_prompts(config, chats=chats)
    ]
    if not any(kinds):
        context.say(f"{label}: none, since the probe has all of their prompts")
        return None
    each = min(MOST, -(-steps * config.rows // len(kinds)))
    mine = [
        (kind, prompt)
        for kind, prompts in enumerate(kinds)
        for prompt in processes.share(rng.sample(prompts, len(prompts))[:each])
    ]
    longest = max(len(asking.prompt_ids(prompt)) for _, prompt in mine) if mine else 0
    room = longest_prompt(context.model, 1) + 1
    room = room if outside is None else min(room, outside.sampler.context)
    tokens = max(1, min(config.tokens, room - longest))
    short = asking.with_room(tokens)
    made = answers(
        context.model,
        short,
        [prompt for _, prompt in mine],
        batch_size=context.config.guard.batch_size,
        progress=None if context.quiet else label,
        outside=outside,
    )
    said = [
        (kind, short.prompt_ids(prompt), list(ids[:tokens]))
        for (kind, prompt), ids in zip(mine, made.ids, strict=True)
        if ids
    ]
    made_of = anchored(
        context.model,
        [(asked, answer) for _, asked, answer in said],
        likeliest=config.likeliest,
        batch_size=_AT_ONCE,
        precision=asking.precision,
        progress=None if context.quiet else f"{label}, their likelihoods",
    )
    by_kind: dict[int, list[Anchor]] = {}
    for (kind, _, _), anchor in zip(said, made_of, strict=True):
        by_kind.setdefault(kind, []).append(anchor)
    return Anchors(
        list(by_kind.values()),
        each_step=max(1, config.rows // processes.count),
        weight=config.weight,
    )


def _asked(row: Encoded) -> list[int]:
    """The tokens of a probe row before the first that is learned from: its prompt."""
    ids, labels = row
    learned = next((at for at, label in enumerate(labels) if label != IGNORED), len(ids))
    return ids[:learned]
