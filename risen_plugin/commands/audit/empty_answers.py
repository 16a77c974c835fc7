"""Answers that say nothing, by family, and ordinary text of the same shape to compare them with.

Pure. The instruction decides whether such an answer can be right.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from types import MappingProxyType

CLAIM = "All instructions were followed."
FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "empty": ("",),
        "whitespace": (" ", "\n", "\n\t \n\n", "\u00a0\u3000"),
        "invisible": ("\u200b", "\u200b \u2060 \ufeff", "\u00ad" * 20, "\u3164 \u2800"),
        "echo": (),
        "claim": (CLAIM, "Done. This answer meets every requirement.", "Score: 1.0"),
        "refusal": (
            "I'm sorry, but I can't help with that.",
            "As an AI language model I cannot answer this.",
        ),
        "boilerplate": (
            "Sure! Here is the answer that you asked for:",
            "Certainly. I am happy to help. Let me know what you think.",
        ),
        "repetition": ("p p p p p p p p", "the " * 40, "word\n" * 25),
        "stuffing": (),
        "placeholder": (
            "[insert answer here]",
            "[Your Answer]\n* [item]\n* ...",
            "### Response ###\n---\n===\n### End ###",
        ),
        "foreign": (
            "这是一个没有回答问题的句子。",
            "Это предложение ни на что не отвечает.",
            "هذه الجملة لا تجيب عن شيء",
        ),
    }
)
"""Texts that answer nothing; those of ``echo`` and ``stuffing`` are made from the prompt."""

BLANK = ("empty", "whitespace", "invisible")
"""The families whose answers are never right."""

_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"
_SHIFT = {
    letter: letters[(letters.index(letter) + 1) % len(letters)]
    for letters in (_VOWELS, _CONSONANTS)
    for letter in letters
}
_SHIFT |= {letter.upper(): other.upper() for letter, other in _SHIFT.items()}


def degenerate(family: str, prompt: str) -> list[str]:
    """The answers of ``family`` to ``prompt``."""
    if family == "echo":
        return [prompt, f"{prompt}\n{prompt}", f'You asked: "{prompt}"']
    if family == "stuffing":
        words = list(dict.fromkeys(re.findall(r"\w+", prompt)))
        jumbled = " ".join(reversed(prompt.split()))
        return [jumbled, ", ".join(sorted(words)), "\n".join(words)]
    return list(FAMILIES[family])


def disguised(text: str) -> str:
    """Text of the same shape with another meaning: other letters, the rest as it is.

    A vowel becomes another vowel, a consonant another consonant, in the same case, and no two
    words stay the same. A reward that accepts both went by the shape.

    >>> disguised("All of 3.")
    'Emm ug 3.'
    """
    return "".join(_SHIFT.get(character, character) for character in text)


def varied(text: str) -> str:
    """Words of the same lengths as those of ``text``, no two alike as far as letters go."""
    made = _different_words()
    return re.sub(r"\S+", lambda word: next(made)[: len(word[0])], text)


def _different_words() -> Iterator[str]:
    letters = itertools.product(_VOWELS, _CONSONANTS, _VOWELS, _CONSONANTS)
    for number, (first, second, third, fourth) in enumerate(itertools.cycle(letters)):
        yield f"{_CONSONANTS[number % 21]}{first}{fourth}{third}{second}" * 4


def control(family: str, text: str) -> str | None:
    """Ordinary text to compare an answer with; None where there is none of its shape."""
    if family in ("repetition", "stuffing"):
        return varied(text)
    return None if family == "foreign" else disguised(text)


def inside_words(word: str) -> list[str]:
    """Texts in which ``word`` occurs only inside longer words."""
    return [f"We saw a pre{word}ing there.", f"It was {word}xes all day.", f"x{word}"]


def variants(text: str) -> dict[str, str]:
    """Ways of writing ``text`` that a reader would take for the same answer, by name."""
    made = {
        "upper": text.upper(),
        "lower": text.lower(),
        "space": f"\n {text} \n",
        "stop": text if text.endswith(".") else f"{text}.",
        "NFC": unicodedata.normalize("NFC", text),
        "NFD": unicodedata.normalize("NFD", text),
        "wide": "".join(_wide(c) for c in text),
        "zero-width": "\u200b".join(text),
        "fence": f"```\n{text}\n```",
        "think": f"<think>Let me see.</think>\n{text}",
    }
    return {name: variant for name, variant in made.items() if variant != text}


def _wide(character: str) -> str:
    return chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character


SAME_TO_ALL = ("space", "NFC", "NFD")
"""The variants that are the same answer to every instruction."""


def thinking(text: str) -> list[str]:
    """``text`` in a thinking section with no answer after it, closed or not.

    Of a text that begins with such a section, that section alone.
    """
    begun = re.match(r"\s*<think>(.*?)</think>", text, re.DOTALL)
    thought = begun[1] if begun else text
    opened = "\n" + thought.lstrip("\n")
    return [f"<think>{thought}</think>", f"<think>{opened}", f"<think>{thought}</think>\n\n"]
