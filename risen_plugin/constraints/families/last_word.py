"""Constraints on the last word of an answer or its sentences: IFTrain's ``last_word`` family.

The word is compared in any case and without marks around it. The original also takes out the marks
inside the word, so that ``well-known`` can never be the last one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import Constraint, Keyword, quoted
from risen_plugin.constraints.lexicon import ENDINGS
from risen_plugin.constraints.text import ends_with, sentences

_OTHER_ENDS = frozenset(
    {
        "detectable_content:postscript",
        "detectable_format:constrained_response",
        "detectable_format:json_format",
        "startend:end_checker",
    }
)


@dataclass(frozen=True)
class LastWordAnswer(Constraint):
    """The answer ends with the word."""

    last_word: Keyword

    id = "last_word:last_word_answer"
    wordings = (
        'The last word of your answer must be "{last_word}".',
        'Finish your answer with the word "{last_word}".',
        'End your answer with the word "{last_word}".',
    )
    conflicts = _OTHER_ENDS | {"last_word:last_word_sent"}

    def met(self, text: str) -> bool:
        return ends_with(text, self.last_word)

    def seen(self, text: str) -> str:
        return f"ends with {quoted(text.strip()[-20:])}"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"last_word": rng.choice(ENDINGS)}


@dataclass(frozen=True)
class LastWordSent(Constraint):
    """Every sentence ends with the word, its marks apart."""

    last_word: Keyword

    id = "last_word:last_word_sent"
    wordings = (
        'The last word of each sentence must be "{last_word}".',
        'End every sentence of your answer with the word "{last_word}".',
        'Each of your sentences has to finish with the word "{last_word}".',
    )
    conflicts = _OTHER_ENDS | {
        "combination:repeat_prompt",
        "combination:two_responses",
        "count:count_unique",
        "detectable_format:multiple_sections",
        "detectable_format:number_bullet_lists",
        "detectable_format:title",
        "keywords:start_end",
    }

    def met(self, text: str) -> bool:
        parts = sentences(text)
        return bool(parts) and all(ends_with(part, self.last_word) for part in parts)

    def seen(self, text: str) -> str:
        parts = sentences(text)
        right = sum(ends_with(part, self.last_word) for part in parts)
        return f"{right} of {len(parts)} sentences"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"last_word": rng.choice(ENDINGS)}
