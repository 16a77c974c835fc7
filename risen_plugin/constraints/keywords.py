"""Constraints on words and letters that stand in an answer: IFEval's ``keywords`` family.

Words are compared whole and whatever their case. The original searches for the keyword as a
regular expression anywhere in the text, so that ``art`` is found in ``start`` and ``a.c`` in
``abc``. Scripts written without spaces have no whole words; there any occurrence counts.
"""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import (
    RELATIONS,
    Constraint,
    Count,
    Letter,
    Relation,
    Words,
    holds,
)
from risen_plugin.constraints.core import Text as Phrase
from risen_plugin.constraints.text import FILLERS, NOUNS, count_phrase, sample_words

_RARE_LETTERS = "jkqvxz"
_COMMON_LETTERS = "abcdefghilmnoprstuwy"


@dataclass(frozen=True)
class Existence(Constraint):
    """Each of the keywords stands in the answer."""

    keywords: Words

    id = "keywords:existence"
    wordings = (
        "Include these words: {keywords}.",
        "Your answer must mention: {keywords}.",
        "Make sure that the following words appear in your answer: {keywords}.",
    )

    def met(self, text: str) -> bool:
        return all(count_phrase(text, keyword) for keyword in self.keywords)

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"keywords": sample_words(rng, rng.randint(1, 3), NOUNS)}


@dataclass(frozen=True)
class ForbiddenWords(Constraint):
    """None of the words stands in the answer."""

    forbidden_words: Words

    id = "keywords:forbidden_words"
    wordings = (
        "Do not use these words: {forbidden_words}.",
        "The following words are forbidden in your answer: {forbidden_words}.",
        "Avoid the words {forbidden_words}.",
    )
    conflicts = frozenset({"keywords:existence", "keywords:frequency", "combination:repeat_prompt"})

    def met(self, text: str) -> bool:
        return not any(count_phrase(text, word) for word in self.forbidden_words)

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        words = sample_words(rng, rng.randint(1, 4), (*FILLERS, *NOUNS), prompt)
        return {"forbidden_words": words}


@dataclass(frozen=True)
class Frequency(Constraint):
    """How often a keyword stands in the answer."""

    keyword: Phrase
    frequency: Count
    relation: Relation

    id = "keywords:frequency"
    wordings = (
        "The word {keyword} should appear {relation} {frequency} times.",
        "Use the word {keyword} {relation} {frequency} times.",
        "Mention {keyword} {relation} {frequency} times in your answer.",
    )
    conflicts = frozenset({"keywords:existence", "combination:repeat_prompt"})

    def met(self, text: str) -> bool:
        return holds(count_phrase(text, self.keyword), self.relation, self.frequency)

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {
            "keyword": rng.choice(NOUNS),
            "frequency": rng.randint(2, 5),
            "relation": rng.choice(RELATIONS),
        }


@dataclass(frozen=True)
class LetterFrequency(Constraint):
    """How often a character, usually a letter, stands in the answer, in either case."""

    letter: Letter
    let_frequency: Count
    let_relation: Relation

    id = "keywords:letter_frequency"
    wordings = (
        "The letter {letter} should appear {let_relation} {let_frequency} times.",
        "Use the letter {letter} {let_relation} {let_frequency} times.",
        "In your answer the letter {letter} must occur {let_relation} {let_frequency} times.",
    )
    conflicts = frozenset({"keywords:existence", "keywords:frequency", "combination:repeat_prompt"})

    def met(self, text: str) -> bool:
        text = unicodedata.normalize("NFC", text).lower()
        return holds(text.count(self.letter.lower()), self.let_relation, self.let_frequency)

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        relation = rng.choice(RELATIONS)
        letters, low, high = (
            (_RARE_LETTERS, 3, 10) if relation == "less than" else (_COMMON_LETTERS, 2, 15)
        )
        return {
            "letter": rng.choice(letters),
            "let_frequency": rng.randint(low, high),
            "let_relation": relation,
        }
