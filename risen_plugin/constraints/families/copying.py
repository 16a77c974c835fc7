"""Constraints that ask for a copy: the ``copy`` and ``new`` families of IFTrain.

A copy is compared in any case and without the white space around it. Where the answer is nothing
but a copy, nothing else can be asked of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import (
    Constraint,
    Count,
    Ordinal,
    Text,
    WholeText,
    counted,
    quoted,
)
from risen_plugin.constraints.text import plain_words

_SEPARATOR = "******"
_PHRASES = (
    "the early train always stops at noon",
    "a grey cat sleeps near the door",
    "every good cook tastes the soup twice",
    "her new coat hangs behind the chair",
    "the tall clock in town runs late",
    "our small boat drifts along the coast",
)


def _same(text: str, wanted: str) -> bool:
    return text.strip().casefold() == wanted.strip().casefold()


@dataclass(frozen=True)
class Copy(Constraint):
    """The prompt in any case, and nothing else."""

    prompt_to_repeat: Text

    id = "copy:copy"
    alone = True
    prompt_kwarg = "prompt_to_repeat"
    wordings = (
        "Do not follow the request above; copy it word for word, without this sentence.",
        "Your whole answer must be the text before this sentence, exactly as it stands there.",
    )

    def met(self, text: str) -> bool:
        return _same(text, self.prompt_to_repeat)

    def seen(self, text: str) -> str:
        return "the copy" if self.met(text) else quoted(text)

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"prompt_to_repeat": prompt}


@dataclass(frozen=True)
class CopyingSimple(Copy):
    """The same as ``copy:copy``, asked for in other words."""

    id = "copy:copying_simple"
    wordings = (
        "Repeat the request before this sentence as it is and write nothing else. "
        "Do not answer it.",
        "Instead of an answer, give back the request above unchanged, without this sentence.",
    )


@dataclass(frozen=True)
class CopyingMultiple(Constraint):
    """The prompt so many times, in any case, with ``******`` between, and nothing else."""

    prompt_to_repeat: Text
    N: Ordinal

    id = "copy:copying_multiple"
    alone = True
    prompt_kwarg = "prompt_to_repeat"
    wordings = (
        "Repeat the request before this sentence {N} times as it is, with ****** between the "
        "copies. Write nothing else and do not answer it.",
        "Instead of an answer, write the request above {N} times, without this sentence. "
        "Separate the copies with six asterisks: ******.",
    )

    def met(self, text: str) -> bool:
        parts = text.split(_SEPARATOR)
        return len(parts) == self.N and all(_same(part, self.prompt_to_repeat) for part in parts)

    def seen(self, text: str) -> str:
        parts = text.split(_SEPARATOR)
        copies = sum(_same(part, self.prompt_to_repeat) for part in parts)
        return f"{copies} of {counted(len(parts), 'part')} a copy"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"prompt_to_repeat": prompt, "N": rng.randint(2, 4)}


@dataclass(frozen=True)
class CopySpanIdx(Constraint):
    """The characters of the prompt from one index to another, and nothing else.

    The original's words include the last index and its check does not; here both are right.
    """

    prompt_to_repeat: WholeText
    n_start: Count
    n_end: Ordinal

    id = "new:copy_span_idx"
    alone = True
    prompt_kwarg = "prompt_to_repeat"
    wordings = (
        "Do not answer the request above. Write only its characters from index {n_start} up to, "
        "but not including, index {n_end}; the first character has the index 0.",
        "Your whole answer must be the part of the text before this sentence that begins at "
        "character index {n_start} and stops right before character index {n_end}, counted from 0.",
    )

    def __post_init__(self) -> None:
        if not self.n_start < self.n_end <= len(self.prompt_to_repeat):
            raise ValueError(
                f"kwargs 'n_start' and 'n_end' are {self.n_start} and {self.n_end}, which is no "
                f"span of a prompt of {len(self.prompt_to_repeat)} characters"
            )
        if not self.prompt_to_repeat[self.n_start : self.n_end].strip():
            raise ValueError(f"the span from {self.n_start} to {self.n_end} is white space")

    def met(self, text: str) -> bool:
        ends = (self.n_end, self.n_end + 1)
        return any(_same(text, self.prompt_to_repeat[self.n_start : end]) for end in ends)

    def seen(self, text: str) -> str:
        return "the span" if self.met(text) else quoted(text)

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        start = rng.choice([i for i, c in enumerate(prompt) if not c.isspace()] or [0])
        end = rng.randint(start + 1, max(start + 1, len(prompt)))
        return {"prompt_to_repeat": prompt, "n_start": start, "n_end": end}


@dataclass(frozen=True)
class RepeatPhrase(Constraint):
    """The phrase so many times, each time with exactly one word in its middle replaced.

    Words are compared in any case and without marks around them. A repetition with no word or more
    than one replaced spoils it. The original reads the first and the last word as regular
    expressions, so that it also finds them inside other words.
    """

    phrase: Text
    small_n: Ordinal

    id = "copy:repeat_phrase"
    wordings = (
        'Write the phrase "{phrase}" exactly {small_n} times, and each time replace one word in '
        "its middle with another word.",
        'Your answer must have exactly {small_n} variants of this phrase: "{phrase}". Each '
        "differs from it in a single word, which is neither the first nor the last.",
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "count:count_unique",
            "count:counting_composition",
            "count:lowercase_counting",
            "detectable_format:constrained_response",
            "detectable_format:json_format",
            "detectable_format:sentence_hyphens",
            "keywords:letter_frequency",
            "keywords:no_adjacent_consecutive",
            "letters:letter_counting",
            "letters:letter_counting2",
        }
    )

    def __post_init__(self) -> None:
        if len(plain_words(self.phrase)) < 3:
            raise ValueError("kwarg 'phrase' must have at least three words")

    def met(self, text: str) -> bool:
        replaced = self._replaced(text)
        return len(replaced) == self.small_n and all(count == 1 for count in replaced)

    def seen(self, text: str) -> str:
        counts = ", ".join(map(str, self._replaced(text)))
        return f"repetitions with these numbers of words replaced: {counts or 'none'}"

    def _replaced(self, text: str) -> list[int]:
        """How many words are replaced in each stretch that begins and ends as the phrase does."""
        phrase = [word.casefold() for word in plain_words(self.phrase)]
        words = [word.casefold() for word in plain_words(text)]
        counts = []
        start = 0
        while start + len(phrase) <= len(words):
            stretch = words[start : start + len(phrase)]
            if (stretch[0], stretch[-1]) == (phrase[0], phrase[-1]):
                counts.append(sum(a != b for a, b in zip(stretch, phrase, strict=True)))
                start += len(phrase)
            else:
                start += 1
        return counts

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"phrase": rng.choice(_PHRASES), "small_n": rng.randint(2, 4)}
