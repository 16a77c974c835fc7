"""Sentences and tokens as nltk counts them for English, in time that grows with the text.

The rules are those of Punkt (Kiss and Strunk 2006, Unsupervised Multilingual Sentence Boundary
Detection) and of nltk's word tokenizer; the trained model of Punkt comes from a package.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.original.needs import needed

# Punkt looks at a mark only where one of these or white space and a word follow it.
_MARK = re.compile(r"""[.?!](?=[)";}\]*:@'({\[!?]|\s+\S)""")
_AS_SPACES = dict.fromkeys(map(ord, "\n\t\r\v\f"), " ")  # no other one begins a word to Punkt
_NEXT_WORD = re.compile(r"\s+(\S+)")
_CLOSING = re.compile(r"""["')\]}]+?(?:\s+|(?=--)|$)""")
_PIECE = re.compile(
    r"""(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)"""
    r"""|(?=[^("`{\[:;&#*@)}\]\-,])\S+?"""
    r"""(?=\s|$|[)";}\]*:@'({\[!?]|-{2,}|\.{2,}|(?:\.\s){2,}\."""
    r"""|,(?=$|\s|[)";}\]*:@'({\[!?]|-{2,}|\.{2,}|(?:\.\s){2,}\.))"""
    r"""|\S"""
)
_PLAIN = re.compile(r"([^\W\d_]{2,})\.\s+[^\W\d_]")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*\.?")
_INITIAL = re.compile(r"[^\W\d]\.")
_MARKS = frozenset(".?!")
_IN_A_SENTENCE = frozenset(";:,.!?")
# How a word was seen in training: at the beginning or in the middle of a sentence, or unknown.
_UPPER_INSIDE, _LOWER_AT_START = 1 << 2, 1 << 4
_UPPER = 1 << 1 | _UPPER_INSIDE | 1 << 3
_LOWER = _LOWER_AT_START | 1 << 5 | 1 << 6


@dataclass(frozen=True)
class _Model:
    """What Punkt learned of English.

    :param seen: how each word was written, in bits.
    """

    abbreviations: Set[str]
    collocations: Set[tuple[str, str]]
    starters: Set[str]
    seen: Mapping[str, int]

    @functools.cached_property
    def special(self) -> Set[str]:
        """Words whose dot may end no sentence, whatever follows."""
        return self.abbreviations | {first for first, _ in self.collocations}


@functools.cache
def _model() -> _Model:
    learned: Any = needed("punkt").load_model("english")
    return _Model(
        frozenset(learned.abbrev_types),
        frozenset(learned.collocations),
        frozenset(learned.sent_starters),
        {word: int(bits) for word, bits in learned.ortho_context.items()},
    )


def count_sentences(text: str) -> int:
    """The number of sentences that nltk's Punkt finds in ``text``."""
    return sum(1 for _ in _sentences(text))


def _sentences(text: str) -> Iterator[str]:
    """The stretches between breaks; closing marks at a beginning belong to the one before."""
    moved = 0
    stretches = itertools.pairwise([*_stretches(text), None])
    for stretch, following in stretches:
        if stretch is None:
            return
        start, end = stretch[0] + moved, stretch[1]
        moved = 0
        if following is not None:
            closing = _CLOSING.match(text, following[0], following[1])
            if closing:
                moved = closing.end() - following[0]
                yield text[start : following[0] + len(closing[0].rstrip())]
                continue
        if start < end:
            yield text[start:end]


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for word_start, mark in _candidates(text):
        following = _NEXT_WORD.match(text, mark + 1)
        context = text[word_start : following.end() if following else mark + 2]
        if text[mark] != "." or _breaks(context):
            yield start, mark + 1
            start = following.start(1) if following else mark + 1
    yield start, len(text.rstrip())


def _candidates(text: str) -> Iterator[tuple[int, int]]:
    """The last mark of each word that may end a sentence, after the beginning of its word."""
    spaced = text.translate(_AS_SPACES)
    word_start, previous = 0, -1
    for match in _MARK.finditer(text):
        at = match.start()
        space = spaced.rfind(" ", max(previous, 0), at)
        if space >= 0:
            if previous >= 0:
                yield word_start, previous
            word_start = space + 1
        previous = at
    if previous >= 0:
        yield word_start, previous


@dataclass
class _Token:
    """A word or mark with what is known of it so far."""

    text: str
    ends: bool = False
    is_short: bool = False
    is_ellipsis: bool = False

    @property
    def kind(self) -> str:
        return (
            _NUMBER.sub("##number##", self.text.lower(), count=1)
            if self._is_number
            else (self.text.lower())
        )

    @property
    def _is_number(self) -> bool:
        return _NUMBER.fullmatch(self.text.lower()) is not None

    @property
    def kind_without_dot(self) -> str:
        kind = self.kind
        return kind[:-1] if len(kind) > 1 and kind.endswith(".") else kind

    @property
    def kind_in_sentence(self) -> str:
        return self.kind_without_dot if self.ends else self.kind


@functools.lru_cache(maxsize=4096)
def _breaks(context: str) -> bool:
    """Whether a sentence ends in ``context`` and another word or mark follows."""
    model = _model()
    plain = _PLAIN.match(context)
    if plain and plain[1].lower() not in model.special:  # most are; the rest is slow
        return True
    pieces = (match[0] for line in context.split("\n") for match in _PIECE.finditer(line))
    for token, following in itertools.pairwise(_first_look(piece, model) for piece in pieces):
        _second_look(token, following, model)
        if token.ends:
            return True
    return False


def _first_look(piece: str, model: _Model) -> _Token:
    """By the word alone: a mark, an ellipsis, an abbreviation or the end of a sentence."""
    if piece in _MARKS:
        return _Token(piece, ends=True)
    if piece.startswith(".."):
        return _Token(piece, is_ellipsis=True)
    if not piece.endswith(".") or piece.endswith(".."):
        return _Token(piece)
    bare = piece[:-1].lower()
    is_short = bare in model.abbreviations or bare.rpartition("-")[2] in model.abbreviations
    return _Token(piece, ends=not is_short, is_short=is_short)


def _second_look(token: _Token, following: _Token, model: _Model) -> None:
    """By the next word, for a word with a dot: collocations, abbreviations, initials, ordinals."""
    if not token.text.endswith("."):
        return
    kind, next_kind = token.kind_without_dot, following.kind_in_sentence
    is_initial = _INITIAL.fullmatch(token.text) is not None
    if (kind, next_kind) in model.collocations:
        token.ends = False
        return
    is_start = _starts_a_sentence(following, model)
    is_upper = following.text[0].isupper()
    is_short = (token.is_short or token.is_ellipsis) and not is_initial
    if is_short and (is_start or (is_upper and next_kind in model.starters)):
        token.ends = True
        return
    if is_initial or kind == "##number##":
        is_name = is_initial and is_upper and not model.seen.get(next_kind, 0) & _LOWER
        if is_start is False or (is_start is None and is_name):
            token.ends = False


def _starts_a_sentence(token: _Token, model: _Model) -> bool | None:
    """By the case of its first letter, and how the word was written elsewhere; None: unknown."""
    if token.text in _IN_A_SENTENCE:
        return False
    seen = model.seen.get(token.kind_in_sentence, 0)
    if token.text[0].isupper() and seen & _LOWER and not seen & _UPPER_INSIDE:
        return True
    if token.text[0].islower() and (seen & _UPPER or not seen & _LOWER_AT_START):
        return False
    return None


# Tokens

_APART = re.compile(
    r"""[\u00ab\u201c\u2018\u201e`\u00bb\u201d\u2019;@#$%&?!*\]\[(){}<>"\u2012-\u2015]|--|\.{2,}|''|[:,](?!\d)"""
)
_ENDING = re.compile(r"(?<=[^' ])(?='(?:[sSmMdD]|ll|LL|re|RE|ve|VE) |(?:n't|N'T) )")
_ONE_WORD_OF_TWO = re.compile(
    r"\b(?:can(?=not\b)|d(?='ye\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)"
    r"|more(?='n\b)|wan(?=na\s))",
    re.IGNORECASE,
)
_AFTER_THE_DOT = "])}>\"'\u00bb\u201d\u2019 "


def count_capitals(text: str) -> int:
    """The number of nltk's tokens that have letters and only capital ones.

    Its tokenizer cuts at quotation marks, brackets and most marks, and before endings such as
    ``'S`` and ``N'T``; tokens without letters do not matter here.
    """
    return sum(map(str.isupper, _words(text)))


def _words(text: str) -> list[str]:
    text = _APART.sub(" ", "  ".join(map(_without_last_dot, _sentences(text))))
    text = _ENDING.sub(" ", f" {' '.join(text.split())} ")
    return _ONE_WORD_OF_TWO.sub(r"\g<0> ", text).split()


def _without_last_dot(sentence: str) -> str:
    """The dot at the end of a sentence is a token of its own."""
    sentence = sentence.rstrip()
    end = sentence.rstrip(_AFTER_THE_DOT)
    if end.endswith(".") and not end.endswith(".."):
        return f"{end[:-1]} {sentence[len(end) :]}"
    return sentence
