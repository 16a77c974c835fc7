"""Ask a model questions of fact: those that it knew before a phase, it should know after it.

The questions come with the package. Few are asked first, and no more of a model that knows none of
them, such as one that was trained for a task alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import TrainerState

from risen_plugin.config.guard import AUTO
from risen_plugin.contracts import Prompt, text_of
from risen_plugin.instructions.plain import Fact, facts
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.measuring import answered_and_scored
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.training.asking import Asking
from risen_plugin.training.outside import Outside
from risen_plugin.training.protocols import Model, Tokenizer

FEWEST_KNOWN = 5
"""Facts that a model must know for their loss to say anything."""

_FIRST = 16  # asked of any model
_TOKENS = 48  # of an answer


def known_facts(
    context: PhaseContext, model: Model, asking: Asking, label: str, outside: Outside | None
) -> list[Fact]:
    """The facts that the model tells; none if they are too few to say anything.

    :param label: of the progress bar.
    """
    wanted = context.config.guard.facts
    asked = list(facts()) if wanted == AUTO else list(facts())[: int(wanted)]
    known: list[Fact] = []
    for part in (asked[:_FIRST], asked[_FIRST:]):
        told = are_told(context, model, asking, label, part, outside)
        known += [fact for fact, is_told in zip(part, told, strict=True) if is_told]
        if not known:
            return []
    return known if len(known) >= FEWEST_KNOWN else []


def are_told(  # noqa: PLR0917 the model, how it is asked, and what
    context: PhaseContext,
    model: Model,
    asking: Asking,
    label: str,
    asked: Sequence[Fact],
    outside: Outside | None,
) -> list[bool]:
    """For each fact, whether the model's likeliest answer holds it."""
    if not asked:
        return []
    by_prompt = {fact.prompt: fact for fact in asked}

    def tells(prompts: list[Prompt], completions: list[Any], **columns: Any) -> list[float]:
        return [
            float(by_prompt[text_of(prompt)].is_told_by(text_of(completion)))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    rows = [{"prompt": _as_prompt(context.tokenizer, fact.prompt)} for fact in asked]
    short = asking.with_room(min(_TOKENS, asking.answer_tokens))
    reward = NamedReward(tells, "known_fact", "the questions of fact")
    _, scores = answered_and_scored(
        context, model, short, label, TrainerState(), outside, rows, [reward]
    )
    return [score == 1.0 for score in scores["known_fact"]]


def _as_prompt(tokenizer: Tokenizer, question: str) -> Prompt:
    """A chat where the model chats."""
    if getattr(tokenizer, "chat_template", None) is None:
        return question
    return [{"role": "user", "content": question}]
