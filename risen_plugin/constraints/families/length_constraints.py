"""Constraints on how long an answer is: IFEval's ``length_constraints`` family."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import (
    RELATIONS,
    Constraint,
    Count,
    Ordinal,
    Relation,
    counted,
    holds,
    quoted,
)
from risen_plugin.constraints.core import Text as Phrase
from risen_plugin.constraints.lexicon import OPENERS
from risen_plugin.constraints.text import (
    count_sentences,
    count_words,
    divided,
    split_at_blank_lines,
    starts_with,
)


@dataclass(frozen=True)
class NumberWords(Constraint):
    """Runs of letters, digits and underscores: ``don't`` and ``well-known`` are two each.

    As in the original, except that combining marks do not cut a word in two.
    """

    num_words: Count
    relation: Relation

    id = "length_constraints:number_words"
    wordings = (
        "Use {relation} {num_words} words.",
        "Answer in {relation} {num_words} words.",
        "Your answer must have {relation} {num_words} words.",
    )

    def met(self, text: str) -> bool:
        return holds(count_words(text), self.relation, self.num_words)

    def seen(self, text: str) -> str:
        return counted(count_words(text), "word")

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        relation = rng.choice(RELATIONS)
        low, high = (6, 40) if relation == "less than" else (3, 30)
        return {"num_words": 10 * rng.randint(low, high), "relation": relation}


@dataclass(frozen=True)
class NumberSentences(Constraint):
    """Sentences, found by rule; see :func:`risen_plugin.constraints.text.count_sentences`.

    The original asks nltk's sentence model, which has to be downloaded.
    """

    num_sentences: Count
    relation: Relation

    id = "length_constraints:number_sentences"
    wordings = (
        "Use {relation} {num_sentences} sentences.",
        "Answer in {relation} {num_sentences} sentences.",
        "Your answer must have {relation} {num_sentences} sentences.",
    )

    def met(self, text: str) -> bool:
        return holds(count_sentences(text), self.relation, self.num_sentences)

    def seen(self, text: str) -> str:
        return counted(count_sentences(text), "sentence")

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        relation = rng.choice(RELATIONS)
        low, high = (5, 20) if relation == "less than" else (2, 12)
        return {"num_sentences": rng.randint(low, high), "relation": relation}


@dataclass(frozen=True)
class NumberParagraphs(Constraint):
    """Exactly so many paragraphs with ``***`` between them; none between two may be blank.

    ``***`` divides only where white space or nothing is around it. The original also divides at
    the stars of ``***bold italics***``.
    """

    num_paragraphs: Ordinal

    id = "length_constraints:number_paragraphs"
    wordings = (
        "Write exactly {num_paragraphs} paragraphs and put *** between them.",
        "There should be exactly {num_paragraphs} paragraphs, separated with the Markdown "
        "divider ***.",
        "Divide your answer into exactly {num_paragraphs} paragraphs, and separate them with ***.",
    )
    conflicts = frozenset(
        {"length_constraints:nth_paragraph_first_word", "combination:two_responses"}
    )

    def met(self, text: str) -> bool:
        parts = divided(text)
        return all(parts) and len(parts) == self.num_paragraphs

    def seen(self, text: str) -> str:
        parts = divided(text)
        empty = "" if all(parts) else ", an empty one among them"
        return counted(len(parts), "paragraph") + empty

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"num_paragraphs": rng.randint(2, 6)}


@dataclass(frozen=True)
class NthParagraphFirstWord(Constraint):
    """Exactly so many paragraphs, blank lines between them, and one begins with a given word.

    The word is compared in any case, without marks around it. The original counts only the
    paragraphs that are not blank but looks the paragraph up among all of them, so that one more
    empty line hides it.
    """

    num_paragraphs: Ordinal
    nth_paragraph: Ordinal
    first_word: Phrase

    id = "length_constraints:nth_paragraph_first_word"
    wordings = (
        "Write exactly {num_paragraphs} paragraphs with an empty line between them. "
        'Paragraph {nth_paragraph} must start with the word "{first_word}".',
        "There should be exactly {num_paragraphs} paragraphs, separated by two line breaks, and "
        'the first word of paragraph {nth_paragraph} should be "{first_word}".',
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "combination:two_responses",
            "detectable_format:multiple_sections",
        }
    )

    def __post_init__(self) -> None:
        if self.nth_paragraph > self.num_paragraphs:
            raise ValueError(
                f"kwarg 'nth_paragraph' is {self.nth_paragraph} "
                f"but 'num_paragraphs' is {self.num_paragraphs}"
            )

    def met(self, text: str) -> bool:
        paragraphs = split_at_blank_lines(text)
        if len(paragraphs) != self.num_paragraphs:
            return False
        return starts_with(paragraphs[self.nth_paragraph - 1], self.first_word)

    def seen(self, text: str) -> str:
        paragraphs = split_at_blank_lines(text)
        count = counted(len(paragraphs), "paragraph")
        if self.nth_paragraph > len(paragraphs):
            return count
        start = quoted(paragraphs[self.nth_paragraph - 1], 20)
        return f"{count}, number {self.nth_paragraph} starts {start}"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        count = rng.randint(2, 5)
        return {
            "num_paragraphs": count,
            "nth_paragraph": rng.randint(1, count),
            "first_word": rng.choice(OPENERS).capitalize(),
        }
