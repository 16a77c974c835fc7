"""Constraints that count words, sentences and paragraphs: IFTrain's ``count`` family.

A word is a run of letters, digits and underscores. The original counts nltk's tokens, among them
every comma and full stop.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import Constraint, Count, Keyword, Ordinal, counted
from risen_plugin.constraints.lexicon import fitting_words
from risen_plugin.constraints.text import (
    count_phrase,
    count_words,
    divided,
    joined,
    sentences,
    whole_words,
)

_LETTERS = re.compile(r"[^\W\d_]+")
_SPACED_DIVIDER = re.compile(r"^[ \t]*\*[ \t]\*[ \t]\*[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class LowercaseCounting(Constraint):
    """At most so many words in lower case: runs of letters, ``don't`` being two."""

    N: Count

    id = "count:lowercase_counting"
    wordings = (
        "Use at most {N} words that are written in lower case.",
        "No more than {N} words of your answer may be written all in lowercase letters.",
        "Your answer may contain {N} lowercase words at most.",
    )
    conflicts = frozenset(
        {
            "change_case:english_lowercase",
            "combination:repeat_prompt",
            "detectable_format:constrained_response",
        }
    )

    def met(self, text: str) -> bool:
        return _count_lower(text) <= self.N

    def seen(self, text: str) -> str:
        return f"{counted(_count_lower(text), 'word')} in lower case"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"N": rng.randint(3, 20)}


def _count_lower(text: str) -> int:
    return sum(word.islower() for word in _LETTERS.findall(joined(text)))


@dataclass(frozen=True)
class CountingComposition(Constraint):
    """Three paragraphs with ``***`` or ``* * *`` between, all sentences of equal length."""

    n_sent: Ordinal
    n_words: Ordinal

    id = "count:counting_composition"
    wordings = (
        "Write 3 paragraphs with the divider *** between them. Each paragraph must have exactly "
        "{n_sent} sentences, and each sentence exactly {n_words} words.",
        "Your answer must have three paragraphs, separated by ***, of exactly {n_sent} sentences "
        "each. Every sentence must have exactly {n_words} words.",
    )
    conflicts = frozenset(
        {
            "change_case:capital_word_frequency",
            "combination:repeat_prompt",
            "combination:two_responses",
            "copy:repeat_phrase",
            "count:count_increment_word",
            "count:count_unique",
            "count:lowercase_counting",
            "detectable_content:number_placeholders",
            "detectable_content:postscript",
            "detectable_format:constrained_response",
            "detectable_format:json_format",
            "detectable_format:multiple_sections",
            "detectable_format:number_bullet_lists",
            "detectable_format:number_highlighted_sections",
            "detectable_format:sentence_hyphens",
            "detectable_format:title",
            "keywords:frequency",
            "keywords:letter_frequency",
            "keywords:start_end",
            "keywords:word_count_different_numbers",
            "language:response_language",
            "length_constraints:nth_paragraph_first_word",
            "length_constraints:number_paragraphs",
            "length_constraints:number_sentences",
            "length_constraints:number_words",
            "letters:letter_counting",
            "letters:letter_counting2",
            "paragraphs:paragraphs",
            "paragraphs:paragraphs2",
            "keywords:keyword_specific_position",
            "startend:end_checker",
        }
    )

    def met(self, text: str) -> bool:
        return self._shape(text) == [[self.n_words] * self.n_sent] * 3

    def seen(self, text: str) -> str:
        shape = "; ".join(" ".join(map(str, paragraph)) for paragraph in self._shape(text)[:6])
        return f"words of each sentence by paragraph: {shape[:60]}"

    @staticmethod
    def _shape(text: str) -> list[list[int]]:
        """The words of each sentence of each paragraph."""
        paragraphs = divided(_SPACED_DIVIDER.sub("***", text))
        return [[count_words(sentence) for sentence in sentences(part)] for part in paragraphs]

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"n_sent": rng.randint(2, 4), "n_words": rng.randint(3, 8)}


@dataclass(frozen=True)
class CountUnique(Constraint):
    """No word twice, whatever its case; marks do not count, and ``don't`` is one word."""

    id = "count:count_unique"
    wordings = (
        "Do not use any word more than once.",
        "Every word of your answer must be a different one.",
        "No word may be repeated anywhere in your answer.",
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "combination:two_responses",
            "detectable_content:postscript",
            "detectable_format:constrained_response",
            "detectable_format:multiple_sections",
            "keywords:frequency",
            "keywords:start_end",
            "keywords:word_count_different_numbers",
            "language:response_language",
            "length_constraints:number_sentences",
            "length_constraints:number_words",
            "letters:letter_counting",
            "startend:end_checker",
        }
    )

    def met(self, text: str) -> bool:
        tokens = whole_words(text.casefold())
        return len(tokens) == len(set(tokens))

    def seen(self, text: str) -> str:
        counts = Counter(whole_words(text.casefold()))
        twice = [word for word, count in counts.items() if count > 1]
        return f"more than once: {', '.join(twice[:5])}" if twice else "no word twice"


@dataclass(frozen=True)
class CountIncrementWord(Constraint):
    """The first keyword exactly once and the second exactly twice, as whole words in any case."""

    keyword1: Keyword
    keyword2: Keyword

    id = "count:count_increment_word"
    wordings = (
        'Use the word "{keyword1}" exactly once and the word "{keyword2}" exactly twice.',
        'In your answer, the word "{keyword1}" must appear once and the word "{keyword2}" twice.',
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "count:count_unique",
            "detectable_format:constrained_response",
            "keywords:existence",
            "keywords:frequency",
            "keywords:letter_frequency",
            "keywords:word_once",
            "keywords:word_count_different_numbers",
            "last_word:last_word_sent",
            "letters:letter_counting2",
        }
    )

    def __post_init__(self) -> None:
        if self.keyword1.casefold() == self.keyword2.casefold():
            raise ValueError(f"kwargs 'keyword1' and 'keyword2' are both {self.keyword1!r}")

    def met(self, text: str) -> bool:
        return count_phrase(text, self.keyword1) == 1 and count_phrase(text, self.keyword2) == 2

    def seen(self, text: str) -> str:
        counts = (f"{counted(count_phrase(text, word), 'time')} {word}" for word in self._both())
        return ", ".join(counts)

    def _both(self) -> tuple[str, str]:
        return self.keyword1, self.keyword2

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        first, second = fitting_words(rng, 2, prompt)
        return {"keyword1": first, "keyword2": second}
