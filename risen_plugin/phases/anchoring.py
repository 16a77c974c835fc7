"""The anchors of a phase: prompts, and what the model at phase entry answers to them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from risen_plugin.builtin.generators.anchor_prompts import (
    AnchorPrompt,
    anchor_prompts,
    wanted_of_a_kind,
)
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.strewing import strewn
from risen_plugin.training.anchoring import Anchor, Anchors, anchored
from risen_plugin.training.answering import IGNORED, Encoded, answers, longest_prompt
from risen_plugin.training.asking import Asking, end_ids
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
        [one for one in kind if tuple(asking.prompt_ids(one.prompt)) not in probed]
        for kind in anchor_prompts(config, chats=chats)
    ]
    if not any(kinds):
        context.say(f"{label}: none, since the probe has all of their prompts")
        return None
    each = wanted_of_a_kind(len(kinds) + config.marks, config.rows, steps)
    mine = [
        (kind, one)
        for kind, prompts in enumerate(kinds)
        for one in processes.share(rng.sample(prompts, len(prompts))[:each])
    ]
    longest = max(len(asking.prompt_ids(one.prompt)) for _, one in mine) if mine else 0
    room = longest_prompt(context.model, 1) + 1
    room = room if outside is None else min(room, outside.sampler.context)
    tokens = max(1, min(config.tokens, room - longest))
    short = asking.with_room(tokens)
    answered = _answers(context, short, [one for _, one in mine], label, outside)
    said = [
        (kind, short.prompt_ids(one.prompt), ids[:tokens])
        for (kind, one), ids in zip(mine, answered, strict=True)
        if ids
    ]
    if config.marks:
        some = rng.sample(said, min(-(-each // processes.count), len(said)))
        said += [(len(kinds), asked, _strewn(context, ids, tokens, rng)) for _, asked, ids in some]
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


def _answers(
    context: PhaseContext,
    asking: Asking,
    asked: Sequence[AnchorPrompt],
    label: str,
    outside: Outside | None,
) -> list[list[int]]:
    """Token ids of each answer: the text that was given, or what the model says."""
    own = answers(
        context.model,
        asking,
        [one.prompt for one in asked if one.answer is None],
        batch_size=context.config.guard.batch_size,
        progress=None if context.quiet else label,
        outside=outside,
    )
    said, end = iter(own.ids), end_ids(context.model, context.tokenizer)[:1]
    encode = context.tokenizer
    return [
        list(next(said))
        if one.answer is None
        else [*encode(one.answer, add_special_tokens=False)["input_ids"], *end]
        for one in asked
    ]


def _strewn(context: PhaseContext, ids: list[int], most: int, rng: random.Random) -> list[int]:
    """The answer with marks put in; it ends as it ended before, and has ``most`` tokens at most.

    One without a text stays as it is, since there is no divergence on no token at all.
    """
    [text] = context.tokenizer.batch_decode([ids], skip_special_tokens=True)
    end = [ids[-1]] if ids[-1] in end_ids(context.model, context.tokenizer) else []
    made = context.tokenizer(strewn(text, rng), add_special_tokens=False)["input_ids"]
    return [*made, *end][:most] or ids


def _asked(row: Encoded) -> list[int]:
    """The tokens of a probe row before the first that is learned from: its prompt."""
    ids, labels = row
    learned = next((at for at, label in enumerate(labels) if label != IGNORED), len(ids))
    return ids[:learned]
