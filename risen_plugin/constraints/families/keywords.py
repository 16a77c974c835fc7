"""Constraints on words and letters that occur in an answer: the ``keywords`` family.

Words are compared whole and whatever their case. The original searches for the keyword as a
regular expression anywhere in the text, so that ``art`` is found in ``start`` and ``a.c`` in
``abc``. Scripts written without spaces have no whole words; there any occurrence counts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import (
    RELATIONS,
    Constraint,
    Count,
    Letter,
    Relation,
    Words,
    counted,
    holds,
    phrases,
)
from risen_plugin.constraints.core import Keyword as OneWord
from risen_plugin.constraints.core import Text as Phrase
from risen_plugin.constraints.lexicon import (
    FILLERS,
    fitting_words,
    sample_words,
    spoken_nouns,
)
from risen_plugin.constraints.text import (
    count_letter,
    count_phrase,
    words,
)

_OTHER_KEYWORDS = frozenset(
    {"keywords:existence", "keywords:frequency", "keywords:word_count_different_numbers"}
)
_RARE_LETTERS = "jqxz"
_COMMON_LETTERS = "abcdefghilmnoprstuwy"


@dataclass(frozen=True)
class Existence(Constraint):
    """Each of the keywords occurs in the answer."""

    keywords: Words

    id = "keywords:existence"
    wordings = (
        "Include {keywords} in your answer.",
        "Your answer must contain {keywords}.",
        "Make sure that {keywords} can be found in your answer.",
    )

    def met(self, text: str) -> bool:
        return all(count_phrase(text, keyword) for keyword in self.keywords)

    def named(self) -> dict[str, Any]:
        return {"keywords": phrases(self.keywords, "and")}

    def seen(self, text: str) -> str:
        missing = [keyword for keyword in self.keywords if not count_phrase(text, keyword)]
        return f"without {', '.join(missing)}" if missing else "all of them"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"keywords": fitting_words(rng, rng.randint(1, 3), prompt)}


@dataclass(frozen=True)
class ForbiddenWords(Constraint):
    """None of the words occurs in the answer."""

    forbidden_words: Words

    id = "keywords:forbidden_words"
    wordings = (
        "Do not use {forbidden_words}.",
        "Your answer must not contain {forbidden_words}.",
        "Avoid {forbidden_words} in your answer.",
    )

    def met(self, text: str) -> bool:
        return not any(count_phrase(text, word) for word in self.forbidden_words)

    def named(self) -> dict[str, Any]:
        return {"forbidden_words": phrases(self.forbidden_words, "or")}

    def seen(self, text: str) -> str:
        found = [word for word in self.forbidden_words if count_phrase(text, word)]
        return ", ".join(found) or "none of them"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        words = sample_words(rng, rng.randint(2, 4), FILLERS, prompt)
        return {"forbidden_words": words}


@dataclass(frozen=True)
class Frequency(Constraint):
    """How often a keyword occurs in the answer."""

    keyword: Phrase
    frequency: Count
    relation: Relation

    id = "keywords:frequency"
    wordings = (
        'The word "{keyword}" should appear {relation} {frequency} times in your answer.',
        'Use the word "{keyword}" {relation} {frequency} times.',
        'In your answer, use the word "{keyword}" {relation} {frequency} times.',
    )

    def met(self, text: str) -> bool:
        return holds(count_phrase(text, self.keyword), self.relation, self.frequency)

    def seen(self, text: str) -> str:
        return f"{counted(count_phrase(text, self.keyword), 'time')} {self.keyword}"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        [keyword] = fitting_words(rng, 1, prompt)
        # Nobody limits a word that the answer would hardly have.
        relation = rng.choice(RELATIONS) if keyword in words(prompt) else "at least"
        low, high = (3, 6) if relation == "less than" else (2, 5)
        return {
            "keyword": keyword,
            "frequency": rng.randint(low, high),
            "relation": relation,
        }


@dataclass(frozen=True)
class WordCountDifferentNumbers(Frequency):
    """The same as ``keywords:frequency``, under IFTrain's other id."""

    id = "keywords:word_count_different_numbers"
    conflicts = frozenset({Frequency.id})


@dataclass(frozen=True)
class WordOnce(Constraint):
    """The keyword occurs in the answer exactly once."""

    keyword: OneWord

    id = "keywords:word_once"
    wordings = (
        'Use the word "{keyword}" exactly once.',
        'The word "{keyword}" must appear exactly once in your answer.',
        'Your answer should contain the word "{keyword}" exactly one time.',
    )
    conflicts = _OTHER_KEYWORDS | {
        "combination:repeat_prompt",
        "combination:two_responses",
        "detectable_format:constrained_response",
        "last_word:last_word_sent",
    }

    def met(self, text: str) -> bool:
        return count_phrase(text, self.keyword) == 1

    def seen(self, text: str) -> str:
        return f"{counted(count_phrase(text, self.keyword), 'time')} {self.keyword}"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"keyword": fitting_words(rng, 1, prompt)[0]}


@dataclass(frozen=True)
class ExcludeWordHarder(Constraint):
    """A word of the prompt does not occur in the answer.

    The original finds the word only between two spaces and in the same case, so that a comma
    after it hides it.
    """

    keyword: OneWord

    id = "keywords:exclude_word_harder"
    wordings = (
        'Do not use the word "{keyword}" in your answer.',
        'Answer without using the word "{keyword}".',
        'Avoid the word "{keyword}" in your answer.',
    )
    conflicts = _OTHER_KEYWORDS | {"combination:repeat_prompt", "combination:two_responses"}

    def met(self, text: str) -> bool:
        return not count_phrase(text, self.keyword)

    def seen(self, text: str) -> str:
        return f"{counted(count_phrase(text, self.keyword), 'time')} {self.keyword}"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        spoken = [word for word in words(prompt) if len(word) > 3 and word.isalpha()]
        return {"keyword": rng.choice(spoken_nouns(prompt) or spoken or FILLERS)}


@dataclass(frozen=True)
class LetterFrequency(Constraint):
    """How often a character, usually a letter, occurs in the answer, in either case."""

    letter: Letter
    let_frequency: Count
    let_relation: Relation

    id = "keywords:letter_frequency"
    wordings = (
        'The letter "{letter}" should appear {let_relation} {let_frequency} times in your answer.',
        'Use the letter "{letter}" {let_relation} {let_frequency} times.',
        'In your answer, the letter "{letter}" must appear {let_relation} {let_frequency} times.',
    )

    def met(self, text: str) -> bool:
        count = count_letter(text, self.letter)
        return holds(count, self.let_relation, self.let_frequency)

    def seen(self, text: str) -> str:
        return f"{counted(count_letter(text, self.letter), 'time')} {self.letter}"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        relation = rng.choice(RELATIONS)
        letters, low, high = (
            (_RARE_LETTERS, 3, 8) if relation == "less than" else (_COMMON_LETTERS, 4, 15)
        )
        return {
            "letter": rng.choice(letters),
            "let_frequency": rng.randint(low, high),
            "let_relation": relation,
        }
