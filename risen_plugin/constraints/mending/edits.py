"""One edit of an answer for each constraint that code can put right, as a reader would have it.

An edit changes as little as it can and adds no content of its own: it moves, marks, divides and
leaves out what the answer has. Where that is not enough, as for a keyword that nobody wrote, there
is no edit. Whether an edit did it is for the constraint to say.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from risen_plugin.constraints.text import plain_words, sentences

if TYPE_CHECKING:
    from risen_plugin.constraints.core import Constraint
    from risen_plugin.constraints.families.change_case import CapitalWordFrequency
    from risen_plugin.constraints.families.length_constraints import NthParagraphFirstWord

_COMMA_IN_NUMBER = re.compile(r"(?<=\d),(?=\d{3})")
_DOT_IN_NUMBER = re.compile(r"(?<=\d)\.(?=\d)")
_LIST_MARK = re.compile(r"^\s*(?:[*\-\u2022]|\d{1,3}[.)])\s+")
_LONG_WORD = re.compile(r"(?<![\w*\[<])[A-Za-z]{4,}(?![\w*\]>])")
_LOUD_WORD = re.compile(r"\b[A-Z]{2,}\b")
_PAIR = re.compile(r"(\S+)(\s+)(\S+)")
_TITLE_WORDS = 4


@dataclass(frozen=True)
class Piece:
    """An answer that is being edited.

    :param about: the question without its constraints.
    """

    text: str
    about: str
    rng: random.Random


Edit = Callable[[Piece, Any], str]


def _of_text(change: Callable[[str], str]) -> Edit:
    """An edit that looks at the text alone."""
    return lambda piece, one: change(piece.text)


def parts_of(text: str) -> list[str]:
    """Its items, or its sentences where it has no lines: what is moved as a whole."""
    lines = [_LIST_MARK.sub("", line).strip() for line in text.splitlines()]
    return [part for line in lines if line for part in sentences(line) or [line]]


def _chunks(text: str, count: int) -> list[str]:
    """So many stretches of about as many parts; none where it has fewer parts."""
    parts = parts_of(text)
    if len(parts) < count:
        return []
    ends = [len(parts) * at // count for at in range(count + 1)]
    return [" ".join(parts[start:end]) for start, end in itertools.pairwise(ends)]


def _divided(count: Callable[[Any], int], divider: str) -> Edit:
    return lambda piece, one: divider.join(_chunks(piece.text, count(one))) or piece.text


def _marked(piece: Piece, count: int, mark: Callable[[str], str]) -> str:
    """So many words, chosen by lot, with a mark."""
    found = list(_LONG_WORD.finditer(piece.text))
    chosen = piece.rng.sample(found, min(len(found), count))
    text = piece.text
    for match in sorted(chosen, key=lambda match: -match.start()):
        text = f"{text[: match.start()]}{mark(match[0])}{text[match.end() :]}"
    return text


def _capital_words(piece: Piece, one: CapitalWordFrequency) -> str:
    if one.capital_relation == "less than":
        return _LOUD_WORD.sub(lambda word: word[0].capitalize(), piece.text)
    return _marked(piece, one.capital_frequency, str.upper)


def _postscript(piece: Piece, one: Any) -> str:
    """The last sentence becomes the postscript."""
    *first, last = sentences(piece.text) or [""]
    if not first:
        return piece.text
    return f"{piece.text.rstrip().removesuffix(last).rstrip()}\n\n{one.postscript_marker} {last}"


def _bullets(piece: Piece, one: Any) -> str:
    parts = parts_of(piece.text)
    if len(parts) < one.num_bullets:
        return piece.text
    return "\n".join(f"* {part}" for part in parts[: one.num_bullets])


def _sections(piece: Piece, one: Any) -> str:
    chunks = enumerate(_chunks(piece.text, one.num_sections), 1)
    made = [f"{one.section_spliter} {number}\n{chunk}" for number, chunk in chunks]
    return "\n\n".join(made) or piece.text


def _titled(piece: Piece, one: Any) -> str:
    """A title of the longer words of the question."""
    words = [word for word in plain_words(piece.about or piece.text) if len(word) > 3]
    title = " ".join(word.capitalize() for word in words[-_TITLE_WORDS:]) or "Answer"
    return f"<<{title}>>\n\n{piece.text}"


def _two_responses(piece: Piece, one: Any) -> str:
    """The whole answer, and a shorter one without its last sentence."""
    *first, last = sentences(piece.text) or [""]
    if not first:
        return piece.text
    shorter = piece.text.rstrip().removesuffix(last).rstrip()
    return f"{piece.text.rstrip()}\n\n******\n\n{shorter}"


def _nth_paragraph(piece: Piece, one: NthParagraphFirstWord) -> str:
    chunks = _chunks(piece.text, one.num_paragraphs)
    if not chunks:
        return piece.text
    at, word = one.nth_paragraph - 1, one.first_word
    chunks[at] = f"{word[:1].upper()}{word[1:]}, {_uncapitalised(chunks[at])}"
    return "\n\n".join(chunks)


def _uncapitalised(text: str) -> str:
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    return text if first[1:] != first[1:].lower() or first == "I" else text[:1].lower() + text[1:]


def _only_good(piece: Piece, one: Constraint) -> str:
    """Without the sentences that miss it by themselves."""
    bad = [sentence for sentence in sentences(piece.text) if not one.check(sentence)]
    text = piece.text
    for sentence in bad:
        text = text.replace(sentence, "")
    return re.sub(r"[^\S\n]+\n|(?<=\S)[^\S\n]{2,}", " ", text).strip()


def _without_commas(text: str) -> str:
    return re.sub(r"[^\S\n]*,[^\S\n]*", " ", _COMMA_IN_NUMBER.sub("", text))


def _without_dots(text: str) -> str:
    """Every sentence on a line of its own, without its mark."""
    text = _DOT_IN_NUMBER.sub(" point ", text)
    return re.sub(r"\.+[^\S\n]*", "\n", text).replace("\n\n\n", "\n\n").strip()


def _joined(piece: Piece, one: Any) -> str:
    return "-".join(parts_of(piece.text))


EDITS: Mapping[str, Edit] = MappingProxyType(
    {
        # First what leaves something out, then what divides, marks and surrounds the rest.
        "keywords:forbidden_words": _only_good,
        "keywords:exclude_word_harder": _only_good,
        "punctuation:punctuation_exclamation": _of_text(lambda text: text.replace("!", ".")),
        "punctuation:no_comma": _of_text(_without_commas),
        "punctuation:punctuation_dot": _of_text(_without_dots),
        "detectable_format:number_bullet_lists": _bullets,
        "detectable_format:multiple_sections": _sections,
        "detectable_format:sentence_hyphens": _joined,
        "length_constraints:number_paragraphs": _divided(
            lambda one: one.num_paragraphs, "\n\n***\n\n"
        ),
        "length_constraints:nth_paragraph_first_word": _nth_paragraph,
        "paragraphs:paragraphs": _divided(lambda one: 2, "\n\n***\n\n"),
        "paragraphs:paragraphs2": _divided(lambda one: 2, "\n\n"),
        "change_case:capital_word_frequency": _capital_words,
        "detectable_content:number_placeholders": lambda piece, one: _marked(
            piece, one.num_placeholders, lambda word: f"[{word}]"
        ),
        "detectable_format:number_highlighted_sections": lambda piece, one: _marked(
            piece, one.num_highlights, lambda word: f"*{word}*"
        ),
        "first_word:first_word_answer": lambda piece, one: (
            f"{one.first_word[:1].upper()}{one.first_word[1:]}: {piece.text}"
        ),
        "detectable_content:postscript": _postscript,
        "detectable_format:title": _titled,
        "combination:two_responses": _two_responses,
        "startend:end_checker": lambda piece, one: f"{piece.text} {one.end_phrase}",
        "combination:repeat_prompt": lambda piece, one: f"{one.prompt_to_repeat}\n\n{piece.text}",
        "change_case:english_capital": _of_text(str.upper),
        "change_case:english_lowercase": _of_text(str.lower),
        "detectable_format:square_brackets": _of_text(
            lambda text: re.sub(r"\S+", lambda word: f"[{word[0]}]", text)
        ),
        "detectable_format:bigram_wrapping": _of_text(
            lambda text: _PAIR.sub(lambda pair: f"<<{pair[1]}{pair[2]}{pair[3]}>>", text)
        ),
        "detectable_format:json_format": _of_text(
            lambda text: json.dumps({"answer": text}, ensure_ascii=False)
        ),
        "startend:quotation": _of_text(lambda text: '"' + text.strip('"') + '"'),
    }
)
"""The edits in the order in which they are made."""


def in_order(constraints: Sequence[Constraint]) -> list[tuple[Constraint, Edit]]:
    """Each constraint that has an edit with it, in the order in which they are made."""
    by_id = {one.id: one for one in constraints}
    return [(by_id[id_], edit) for id_, edit in EDITS.items() if id_ in by_id]
