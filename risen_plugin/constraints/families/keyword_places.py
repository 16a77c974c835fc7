"""Constraints on where words are and how they begin: more of IFTrain's ``keywords`` family."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import Constraint, Keyword, Ordinal, counted, quoted
from risen_plugin.constraints.lexicon import fitting_words
from risen_plugin.constraints.text import joined, plain_words, sentences, whole_words

_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class NoAdjacentConsecutive(Constraint):
    """No word begins with the letter that follows the first letter of the word before it.

    Marks before a word are ignored. The original compares them, and digits, as if they were
    letters.
    """

    id = "keywords:no_adjacent_consecutive"
    wordings = (
        'No two adjacent words may start with consecutive letters of the alphabet, such as "a" '
        'and "b".',
        "No word of your answer may start with the letter of the alphabet that follows the first "
        "letter of the word before it.",
    )
    conflicts = frozenset({"combination:repeat_prompt", "copy:repeat_phrase"})

    def met(self, text: str) -> bool:
        return self._first_pair(text) is None

    def seen(self, text: str) -> str:
        pair = self._first_pair(text)
        return f"{pair[0]} {pair[1]}" if pair else "no such pair"

    @staticmethod
    def _first_pair(text: str) -> tuple[str, str] | None:
        tokens = plain_words(text)
        firsts = [ord(word[0].lower()[0]) if word[0].isalpha() else 0 for word in tokens]
        for index in range(1, len(tokens)):
            if firsts[index - 1] and firsts[index] == firsts[index - 1] + 1:
                return tokens[index - 1], tokens[index]
        return None


@dataclass(frozen=True)
class Palindrome(Constraint):
    """A word of three letters or more, not all equal, that reads the same backwards.

    The original accepts ``a``, ``I`` and ``--``.
    """

    id = "keywords:palindrome"
    wordings = (
        "Include a palindrome, that is, a word of three or more letters that reads the same "
        "backwards.",
        "One word of your answer must be a palindrome of at least three letters.",
    )
    conflicts = frozenset({"detectable_format:constrained_response"})

    def met(self, text: str) -> bool:
        return self._first(text) is not None

    def seen(self, text: str) -> str:
        return self._first(text) or "no palindrome"

    @staticmethod
    def _first(text: str) -> str | None:
        for word in _LETTERS.findall(joined(text)):
            folded = word.casefold()
            if len(folded) > 2 and folded == folded[::-1] and len(set(folded)) > 1:
                return str(word)
        return None


@dataclass(frozen=True)
class KeywordSpecificPosition(Constraint):
    """The keyword is a certain word of a certain sentence, in any case and without marks around.

    White space separates words; in the original every mark is a word too, and the case
    has to be right.
    """

    keyword: Keyword
    n: Ordinal
    m: Ordinal

    id = "keywords:keyword_specific_position"
    wordings = (
        'The word "{keyword}" must be word number {m} of sentence number {n}.',
        'In sentence {n} of your answer, word number {m} must be "{keyword}".',
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "detectable_format:constrained_response",
            "detectable_format:json_format",
        }
    )

    def met(self, text: str) -> bool:
        return self._at(text).casefold() == self.keyword.casefold()

    def seen(self, text: str) -> str:
        return quoted(self._at(text)) if self._at(text) else "no such place"

    def _at(self, text: str) -> str:
        parts = sentences(text)
        if len(parts) < self.n:
            return ""
        tokens = plain_words(parts[self.n - 1])
        return tokens[self.m - 1] if len(tokens) >= self.m else ""

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {
            "keyword": fitting_words(rng, 1, prompt)[0],
            "n": rng.randint(1, 5),
            "m": rng.randint(2, 8),
        }


@dataclass(frozen=True)
class StartEnd(Constraint):
    """The same word first and last, in any case, and something between; no mark around the two.

    The original accepts the word twice and nothing else.
    """

    id = "keywords:start_end"
    wordings = (
        "Start and end your answer with the same word, with no punctuation after the last one.",
        "The first and the last word of your answer must be the same. Write nothing after the "
        "last word, not even a full stop.",
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "combination:two_responses",
            "copy:repeat_phrase",
            "detectable_content:postscript",
            "detectable_format:bigram_wrapping",
            "detectable_format:constrained_response",
            "detectable_format:json_format",
            "detectable_format:sentence_hyphens",
            "detectable_format:square_brackets",
            "detectable_format:title",
            "startend:end_checker",
            "startend:quotation",
        }
    )

    def met(self, text: str) -> bool:
        text = joined(text).strip().casefold()
        tokens = whole_words(text)
        return (
            len(tokens) > 2
            and tokens[0] == tokens[-1]
            and text.startswith(tokens[0])
            and text.endswith(tokens[-1])
        )

    def seen(self, text: str) -> str:
        tokens = plain_words(text)
        if not tokens:
            return "no word"
        return f"{counted(len(tokens), 'word')}, from {tokens[0]!r} to {tokens[-1]!r}"
