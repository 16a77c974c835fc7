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
_WHOLE_WORD = re.compile("\\w+(?:['\u2019\u02bc]\\w+)*")
# Characters without a shape, such as zero-width spaces and a byte order mark.
_UNSEEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
_BETWEEN_MARKS = re.compile(r"[^\W_](?:.*[^\W_])?")
_DIVIDER = re.compile(r"(?:^|(?<=\s))\*\*\*(?=\s|$)")
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
_WORD_CHARACTER = re.compile(r"[^\W_]")
# Scripts written without spaces, or with particles joined to the word: no boundary to look for.
_SPACELESS_RANGES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
)
_SPACELESS = re.compile(f"[{_SPACELESS_RANGES}]")
_SPACED = f"[^\\W_{_SPACELESS_RANGES}]"
"""A letter or digit that belongs to the word beside it; an underscore may be Markdown's."""
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
# A dot after letters with dots between them ends a sentence only before a word that begins many.
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]|(?:ph|ed|psy)\.d|[bm]\.sc")
_BEGINNERS = frozenset(
    _listed(
        "a after all also although an and another as at because before both but by each every for "
        "from he her here his how however i if in it its many most my no not now on one or our she "
        "since so some that the their then there these they this those we what when where which "
        "while who why with yes you your"
    )
)
_LIST_NUMBER = re.compile(r"\W*\d{1,3}")
_LONGEST_SHORT = 16
_NEXT = re.compile(r"[\s\"'(\[*_\u201c\u2018]*(\S?)(\w*)")


def joined(text: str) -> str:
    """``text`` without combining marks, which would cut the words of many scripts apart."""
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFC", text)
    return "".join(c for c in composed if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cf"))


def words(text: str) -> list[str]:
    """The words that :func:`count_words` counts."""
    return [word for word in _WORD.findall(joined(text)) if word.strip("_")]


def whole_words(text: str) -> list[str]:
    """As :func:`words`, but ``don't`` is one."""
    return [word for word in _WHOLE_WORD.findall(joined(text)) if word.strip("_")]


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores: ``don't`` and ``well-known`` are two each.

    Underscores alone are none.
    """
    return len(words(text))


def shown(text: str) -> str:
    """``text`` in composed form, without characters that have no shape."""
    return text if text.isascii() else _UNSEEN.sub("", unicodedata.normalize("NFC", text))


def count_sentences(text: str) -> int:
    """Stretches with a letter or digit that end in ``.``, ``!``, ``?`` or with the text.

    A line break alone ends no sentence; neither does the dot of an initial, of an abbreviation or
    of a number at the beginning, as lists have them.
    """
    return sum(1 for _ in _sentence_spans(text))


def sentences(text: str) -> list[str]:
    """The sentences that :func:`count_sentences` counts, with their marks."""
    return [text[start:end].strip() for start, end in _sentence_spans(text)]


def sentence_ends(text: str) -> list[int]:
    """Where each of the :func:`sentences` ends in ``text``."""
    return [end for _, end in _sentence_spans(text)]


def _sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    start = after_number = 0
    for end in _SENTENCE_END.finditer(text):
        if not _WORD_CHARACTER.search(text, start, end.start()):  # marks alone, maybe a megabyte
            start = after_number = end.end()
            continue
        if end.group().startswith("."):
            if _numbers_a_list(text, after_number, end):
                after_number = end.end()
                continue
            if _is_short(text, start, end):
                continue
        yield start, end.end()
        start = after_number = end.end()
    if _WORD_CHARACTER.search(text, start):
        yield start, len(text)


def _numbers_a_list(text: str, start: int, end: re.Match[str]) -> bool:
    """Whether the dot found at ``end`` follows a number at the beginning, and something follows."""
    if end.start() - start > _LONGEST_SHORT:
        return False
    after = _NEXT.match(text, end.end())
    return bool(after and after[1]) and bool(_LIST_NUMBER.fullmatch(text, start, end.start()))


def _is_short(text: str, start: int, end: re.Match[str]) -> bool:
    """Whether the dot found at ``end`` belongs to an initial or an abbreviation."""
    after = _NEXT.match(text, end.end())
    before = re.split("[\\s(\\[\"']", text[max(start, end.start() - _LONGEST_SHORT) : end.start()])
    if after is None or not after[1]:
        return False
    word = before[-1].lstrip("*_").casefold()
    if _DOTTED.fullmatch(word) and word not in _ALWAYS_SHORT | _OFTEN_SHORT:
        return not after[1].isupper() or (after[1] + after[2]).casefold() not in _BEGINNERS
    return (
        word in _ALWAYS_SHORT
        or (len(word) == 1 and word.isalpha() and word != "i")
        or (word in _OFTEN_SHORT and not after[1].isupper())
        or (word in _SHORT_BEFORE_DIGIT and after[1].isdigit())
    )


def count_phrase(text: str, phrase: str) -> int:
    """How often ``phrase`` occurs in ``text`` as whole words, whatever their case."""
    return sum(1 for _ in _phrase(phrase).finditer(shown(text)))


def starts_with(text: str, phrase: str) -> bool:
    """Whether the first words of ``text`` are ``phrase``, whatever their case and the marks."""
    text = shown(text)
    word = _WORD_CHARACTER.search(text)
    starts = {len(text) - len(text.lstrip()), word.start() if word else 0}
    found = (_phrase(phrase).match(text, start) for start in starts)
    return any(match and not _HALF_AFTER.match(text, match.end()) for match in found)


def ends_with(text: str, phrase: str) -> bool:
    """Whether the last words of ``text`` are ``phrase``, whatever their case and the marks."""
    text = shown(text).rstrip()
    return any(
        not _WORD_CHARACTER.search(text, match.end())
        and not _HALF_BEFORE.search(text, max(0, match.start() - 2), match.start())
        for match in _phrase(phrase).finditer(text)
    )


# The other half of a word such as "don't".
_HALF_AFTER = re.compile("['\u2019\u02bc][^\\W_]")
_HALF_BEFORE = re.compile("[^\\W_]['\u2019\u02bc]$")


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
    phrase = shown(phrase) or phrase
    before = f"(?<!{_SPACED})" if _has_boundary(phrase[0]) else ""
    after = f"(?!{_SPACED})" if _has_boundary(phrase[-1]) else ""
    body = r"\s+".join(re.escape(part) for part in phrase.split())
    return re.compile(before + body + after, re.IGNORECASE)


def _has_boundary(character: str) -> bool:
    return not _SPACELESS.match(character)
