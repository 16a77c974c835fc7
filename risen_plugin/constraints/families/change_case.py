"""Constraints on upper and lower case: IFEval's ``change_case`` family.

Only the case is checked. The original also asks a language detector whether the answer is
English, and counts an answer as right when the detector fails; of an answer such as ``RHINE`` no
detector can tell. ``language:response_language`` asks for a language where that is meant.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import (
    RELATIONS,
    Constraint,
    Count,
    Relation,
    counted,
    holds,
    quoted,
)

# Split where nltk's tokenizer splits, except inside contractions (it counts "DON'T" twice).
_TOKEN = re.compile('(?:(?!--|\\.\\.)[^\\s,;:@#$%&?!()\\[\\]{}<>"\u201c\u201d\u2026])+')


def _letters(count: int, case: str, text: str) -> str:
    if not any(c.isalpha() for c in text):
        return f"no letter in {quoted(text)}"
    return counted(count, f"{case} letter")


def _count_capitals(text: str) -> int:
    return sum(word.isupper() for word in _TOKEN.findall(text))


@dataclass(frozen=True)
class EnglishCapital(Constraint):
    """At least one letter, and no lower-case one."""

    id = "change_case:english_capital"
    wordings = (
        "Answer in capital letters only.",
        "Use only capital letters.",
        "Write your whole answer in upper case.",
        "Every letter of your answer must be a capital letter.",
    )
    conflicts = frozenset({"change_case:english_lowercase", "change_case:capital_word_frequency"})

    def met(self, text: str) -> bool:
        return text.isupper()

    def seen(self, text: str) -> str:
        return _letters(sum(c.islower() for c in text), "lower-case", text)


@dataclass(frozen=True)
class EnglishLowercase(Constraint):
    """At least one letter, and no capital one."""

    id = "change_case:english_lowercase"
    wordings = (
        "Answer in lowercase letters only.",
        "Do not use capital letters.",
        "Write your whole answer in lower case.",
        "No capital letters are allowed in your answer.",
    )
    conflicts = frozenset(
        {"change_case:capital_word_frequency", "detectable_format:multiple_sections"}
    )

    def met(self, text: str) -> bool:
        return text.islower()

    def seen(self, text: str) -> str:
        return _letters(sum(c.isupper() for c in text), "capital", text)


@dataclass(frozen=True)
class CapitalWordFrequency(Constraint):
    """Words all in capitals, ``I`` included; ``DON'T`` and ``WELL-KNOWN`` are one each."""

    capital_frequency: Count
    capital_relation: Relation

    id = "change_case:capital_word_frequency"
    wordings = (
        "Words in all capital letters should appear {capital_relation} {capital_frequency} times.",
        "Use {capital_relation} {capital_frequency} words in all capitals, such as THIS.",
        "Your answer must have {capital_relation} {capital_frequency} words in all capital "
        "letters.",
    )

    def met(self, text: str) -> bool:
        return holds(_count_capitals(text), self.capital_relation, self.capital_frequency)

    def seen(self, text: str) -> str:
        return f"{counted(_count_capitals(text), 'word')} in capitals"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        relation = rng.choice(RELATIONS)
        low, high = (3, 10) if relation == "less than" else (2, 12)
        return {"capital_frequency": rng.randint(low, high), "capital_relation": relation}
