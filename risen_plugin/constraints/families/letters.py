"""Constraints on how many letters an answer has: IFTrain's ``letters`` family."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import RELATIONS, Constraint, Count, Relation, counted, holds
from risen_plugin.constraints.families.keywords import LetterFrequency


def _count_letters(text: str) -> int:
    return sum(map(str.isalpha, text))


@dataclass(frozen=True)
class LetterCounting(Constraint):
    """Letters of all scripts; the original counts those from a to z only."""

    N: Count
    relation: Relation

    id = "letters:letter_counting"
    wordings = (
        "Answer with {relation} {N} letters in total.",
        "Your answer must contain {relation} {N} letters in all.",
        "Use {relation} {N} letters; spaces, digits and punctuation do not count.",
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "count:counting_composition",
            "detectable_format:constrained_response",
            "length_constraints:number_words",
        }
    )

    def met(self, text: str) -> bool:
        return holds(_count_letters(text), self.relation, self.N)

    def seen(self, text: str) -> str:
        return counted(_count_letters(text), "letter")

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"N": 20 * rng.randint(8, 40), "relation": rng.choice(RELATIONS)}


@dataclass(frozen=True)
class LetterCounting2(LetterFrequency):
    """The same as ``keywords:letter_frequency``, under IFTrain's other id."""

    id = "letters:letter_counting2"
    conflicts = frozenset({LetterFrequency.id})
