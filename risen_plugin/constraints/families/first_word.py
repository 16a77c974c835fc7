"""Constraints on the first word of an answer or its sentences: IFTrain's ``first_word`` family.

The word is compared in any case and without marks around it; in the original a comma after it
makes it another word.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import Constraint, Keyword, quoted
from risen_plugin.constraints.lexicon import BEGINNINGS, OPENERS
from risen_plugin.constraints.text import sentences, starts_with

_OTHER_STARTS = frozenset(
    {
        "combination:repeat_prompt",
        "detectable_format:constrained_response",
        "detectable_format:json_format",
        "detectable_format:title",
    }
)


@dataclass(frozen=True)
class FirstWordAnswer(Constraint):
    """The answer begins with the word."""

    first_word: Keyword

    id = "first_word:first_word_answer"
    wordings = (
        'The first word of your answer must be "{first_word}".',
        'Begin your answer with the word "{first_word}".',
        'Start your answer with the word "{first_word}".',
    )
    conflicts = _OTHER_STARTS | {
        "first_word:first_word_sent",
        "length_constraints:nth_paragraph_first_word",
    }

    def met(self, text: str) -> bool:
        return starts_with(text, self.first_word)

    def seen(self, text: str) -> str:
        return f"starts with {quoted(text, 20)}"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"first_word": rng.choice(OPENERS).capitalize()}


@dataclass(frozen=True)
class FirstWordSent(Constraint):
    """Every sentence begins with the word."""

    first_word: Keyword

    id = "first_word:first_word_sent"
    wordings = (
        'The first word of each sentence must be "{first_word}".',
        'Begin every sentence of your answer with the word "{first_word}".',
        'Each of your sentences has to start with the word "{first_word}".',
    )
    conflicts = _OTHER_STARTS | {
        "combination:two_responses",
        "count:count_unique",
        "detectable_content:postscript",
        "detectable_format:multiple_sections",
        "detectable_format:number_bullet_lists",
        "keywords:start_end",
        "length_constraints:nth_paragraph_first_word",
        "startend:end_checker",
    }

    def met(self, text: str) -> bool:
        parts = sentences(text)
        return bool(parts) and all(starts_with(part, self.first_word) for part in parts)

    def seen(self, text: str) -> str:
        parts = sentences(text)
        right = sum(starts_with(part, self.first_word) for part in parts)
        return f"{right} of {len(parts)} sentences"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"first_word": rng.choice(BEGINNINGS).capitalize()}
