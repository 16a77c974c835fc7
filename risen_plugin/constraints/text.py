"""Words, sentences and paragraphs as the constraints count them.

Pure and deterministic; no language model and no downloaded data. Works on any script, knows
English abbreviations only.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_WORD = re.compile(r"\w+")
_BETWEEN_MARKS = re.compile(r"[^\W_](?:.*[^\W_])?")
_DIVIDER = re.compile(r"(?:^|(?<=\s))\*\*\*(?=\s|$)")
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
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


def joined(text: str) -> str:
    """``text`` without combining marks, which would cut the words of many scripts apart."""
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFC", text)
    return "".join(c for c in composed if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cf"))


def words(text: str) -> list[str]:
    """The words that :func:`count_words` counts."""
    return _WORD.findall(joined(text))


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores: ``don't`` and ``well-known`` are two each."""
    return sum(1 for _ in _WORD.finditer(joined(text)))


def count_sentences(text: str) -> int:
    """Stretches with a letter or digit that end in ``.``, ``!``, ``?`` or with the text.

    A line break alone ends no sentence; neither does the dot of an initial or abbreviation.
    """
    return sum(1 for _ in _sentence_spans(text))


def sentences(text: str) -> list[str]:
    """The sentences that :func:`count_sentences` counts, with their marks."""
    return [text[start:end].strip() for start, end in _sentence_spans(text)]


def _sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if end.group().startswith(".") and _is_short(text, start, end):
            continue
        if _WORD_CHARACTER.search(text, start, end.end()):
            yield start, end.end()
        start = end.end()
    if _WORD_CHARACTER.search(text, start):
        yield start, len(text)


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
    """How often ``phrase`` occurs in ``text`` as whole words, whatever their case."""
    return sum(1 for _ in _phrase(phrase).finditer(unicodedata.normalize("NFC", text)))


def starts_with(text: str, phrase: str) -> bool:
    """Whether the first words of ``text`` are ``phrase``, whatever their case and the marks."""
    text = unicodedata.normalize("NFC", text)
    word = _WORD_CHARACTER.search(text)
    starts = {len(text) - len(text.lstrip()), word.start() if word else 0}
    return any(_phrase(phrase).match(text, start) for start in starts)


def ends_with(text: str, phrase: str) -> bool:
    """Whether the last words of ``text`` are ``phrase``, whatever their case and the marks."""
    text = unicodedata.normalize("NFC", text).rstrip()
    return any(
        not _WORD_CHARACTER.search(text, match.end()) for match in _phrase(phrase).finditer(text)
    )


def count_letter(text: str, letter: str) -> int:
    """How often ``letter`` occurs in ``text``, in either case."""
    return unicodedata.normalize("NFC", text).lower().count(letter.lower())


def plain_words(text: str) -> list[str]:
    """The words between white space without the marks around them; marks alone are no words."""
    matches = (_BETWEEN_MARKS.search(part) for part in joined(text).split())
    return [match.group() for match in matches if match]


def divided(text: str) -> list[str]:
    """The stretches between ``***``; those at both ends are left out if they are empty.

    ``***`` divides only where white space or nothing is around it.
    """
    parts = [part.strip() for part in _DIVIDER.split(text)]
    return parts[not parts[0] : len(parts) - (len(parts) > 1 and not parts[-1])]


def split_at_blank_lines(text: str) -> list[str]:
    """The stretches between blank lines."""
    return _BLANK_LINES.split(text.strip())


@functools.lru_cache(maxsize=1024)
def _phrase(phrase: str) -> re.Pattern[str]:
    """Finds ``phrase`` as whole words in a composed text."""
    phrase = unicodedata.normalize("NFC", phrase)
    before = r"(?<!\w)" if _has_boundary(phrase[0]) else ""
    after = r"(?!\w)" if _has_boundary(phrase[-1]) else ""
    body = r"\s+".join(re.escape(part) for part in phrase.split())
    return re.compile(before + body + after, re.IGNORECASE)


def _has_boundary(character: str) -> bool:
    return not _SPACELESS.match(character)
