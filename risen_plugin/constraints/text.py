"""Words, sentences and paragraphs as the constraints count them, and words to sample from.

Pure and deterministic; no language model and no downloaded data. Works on any script, knows
English abbreviations only.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterable


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_WORD = re.compile(r"\w+")
_WORD_CHARACTER = re.compile(r"\w")
# Scripts written without spaces, or with particles joined to the word: no boundary to look for.
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
# The end of a sentence: marks that need white space after them, and marks that do not.
_SENTENCE_END = re.compile(
    "(?<![.!?\u2026])[.!?\u2026]+[\"'\u201d\u2019)\\]*_]*(?=\\s|$)|[\u3002\uff01\uff1f\u0964\u061f\u06d4]+"
)
# A dot after these ends no sentence at all; only before a capital letter; except before a digit.
_ALWAYS_SHORT = frozenset(_listed("mr mrs ms dr prof st vs e.g i.e cf approx"))
_OFTEN_SHORT = frozenset(_listed("jr sr etc inc ltd co corp dept a.m p.m"))
_SHORT_BEFORE_DIGIT = frozenset(
    _listed("no fig vol jan feb mar apr jun jul aug sep sept oct nov dec")
)
_LONGEST_SHORT = 16
_NEXT = re.compile(r"\s*(\S?)")

NOUNS = _listed(
    "anchor autumn balance bridge candle canvas castle circle coffee compass copper corner "
    "cotton desert dragon engine fabric feather forest garden glacier hammer harbor harvest "
    "horizon island jungle kitchen lantern library marble market meadow mirror mountain museum "
    "needle ocean orchard paper pattern pepper planet pocket puzzle rabbit ribbon river rocket "
    "saddle season shadow signal silver spider station summer sunset temple thunder ticket "
    "timber tunnel valley velvet village violin window winter"
)
"""Common words to ask for."""
FILLERS = _listed(
    "actually basically certainly clearly essentially frankly generally hopefully indeed "
    "literally maybe moreover obviously perhaps probably quite really simply somewhat stuff "
    "therefore things totally truly usually very"
)
"""Words that an answer can do without, to forbid."""
OPENERS = _listed(
    "although before consider every finally first imagine often once remember sometimes "
    "suppose then today together while"
)
"""Words that a paragraph can begin with."""


def joined(text: str) -> str:
    """``text`` without combining marks, which would cut the words of many scripts apart."""
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFC", text)
    return "".join(c for c in composed if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cf"))


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores: ``don't`` and ``well-known`` are two each."""
    return sum(1 for _ in _WORD.finditer(joined(text)))


def count_sentences(text: str) -> int:
    """Stretches with a letter or digit that end in ``.``, ``!``, ``?`` or with the text.

    A line break alone ends no sentence; neither does the dot of an initial or abbreviation.
    """
    count = start = 0
    for end in _SENTENCE_END.finditer(text):
        if end.group().startswith(".") and _is_short(text, start, end):
            continue
        if _WORD_CHARACTER.search(text, start, end.end()):
            count += 1
        start = end.end()
    return count + bool(_WORD_CHARACTER.search(text, start))


def _is_short(text: str, start: int, end: re.Match[str]) -> bool:
    """Whether the dot found at ``end`` belongs to an initial or an abbreviation."""
    after = _NEXT.match(text, end.end())
    before = re.split("[\\s(\\[\"']", text[max(start, end.start() - _LONGEST_SHORT) : end.start()])
    if after is None or not after[1]:
        return False
    word = before[-1].lstrip("*_").casefold()
    return (
        word in _ALWAYS_SHORT
        or (len(word) == 1 and word.isalpha() and word != "i")
        or (word in _OFTEN_SHORT and not after[1].isupper())
        or (word in _SHORT_BEFORE_DIGIT and after[1].isdigit())
    )


def count_phrase(text: str, phrase: str) -> int:
    """How often ``phrase`` stands in ``text`` as whole words, whatever their case."""
    text = unicodedata.normalize("NFC", text)
    phrase = unicodedata.normalize("NFC", phrase)
    before = r"(?<!\w)" if _has_boundary(phrase[0]) else ""
    after = r"(?!\w)" if _has_boundary(phrase[-1]) else ""
    body = r"\s+".join(re.escape(part) for part in phrase.split())
    return sum(1 for _ in re.finditer(before + body + after, text, re.IGNORECASE))


def _has_boundary(character: str) -> bool:
    return not _SPACELESS.match(character)


def sample_words(
    rng: random.Random, count: int, words: Iterable[str], prompt: str = ""
) -> list[str]:
    """``count`` of the ``words``, none of which stands in ``prompt``."""
    spoken = set(_WORD.findall(prompt.casefold()))
    return rng.sample([word for word in words if word not in spoken], count)
