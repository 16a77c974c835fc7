"""Word constraints on the form of an answer, and write answers that obey or ignore them.

A *wish* is one verifiable constraint (an IFEval id with its kwargs) in words. The embedded data
states such wishes; the answers of some rows obey them and others do not, as in real data.
Pure: plain values in, text out.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from risen_plugin.embedded import words

CAPITAL = "change_case:english_capital"
LOWERCASE = "change_case:english_lowercase"
JSON = "detectable_format:json_format"
BULLETS = "detectable_format:number_bullet_lists"
TITLE = "detectable_format:title"
QUOTATION = "startend:quotation"
END = "startend:end_checker"
NO_COMMA = "punctuation:no_comma"
KEYWORD = "keywords:existence"
FEWER_WORDS = "length_constraints:number_words"
POSTSCRIPT = "detectable_content:postscript"

WISHES = (
    CAPITAL,
    LOWERCASE,
    JSON,
    BULLETS,
    TITLE,
    QUOTATION,
    END,
    NO_COMMA,
    KEYWORD,
    FEWER_WORDS,
    POSTSCRIPT,
)

_CLASHES = (
    {CAPITAL, LOWERCASE},
    {JSON, BULLETS},
    {JSON, TITLE},
    {JSON, QUOTATION},
    {JSON, END},
    {JSON, NO_COMMA},
    {JSON, POSTSCRIPT},
    {JSON, KEYWORD},
    {END, QUOTATION},
    {END, POSTSCRIPT},
    {QUOTATION, POSTSCRIPT},
    {FEWER_WORDS, POSTSCRIPT},
    {FEWER_WORDS, END},
    {FEWER_WORDS, TITLE},
    {FEWER_WORDS, KEYWORD},
)

_ENDINGS = ("That is all.", "Have a nice day.", "Any questions?", "Thank you.")
LEAD_IN = "Sure, here is what I found for you: "
_TITLE_LINE = "<<Summary>>"
_POSTSCRIPT_LINE = "P.S. Thank you."


@dataclass(frozen=True)
class Wish:
    """One constraint in words: its IFEval ``id``, the checker's ``kwargs``, the ``text``."""

    id: str
    text: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def clash(first: str, second: str) -> bool:
    """Whether no answer of this kind can obey both constraints."""
    return first == second or {first, second} in _CLASHES


def choose_wishes(rng: random.Random, count: int, fields: Mapping[str, str]) -> list[Wish]:
    """Up to ``count`` wishes that an answer with these ``fields`` can obey together."""
    chosen: list[str] = []
    candidates = list(WISHES)
    rng.shuffle(candidates)
    for wish in candidates:
        if len(chosen) == count:
            break
        if wish == NO_COMMA and len(fields) < 2:  # one field has no comma to leave out
            continue
        if not any(clash(wish, other) for other in chosen):
            chosen.append(wish)
    return [_in_words(rng, wish, fields) for wish in chosen]


def write(
    fields: Mapping[str, str], wishes: Sequence[Wish], obeyed: Sequence[bool], verbose: bool
) -> str:
    """An answer with ``fields`` that obeys the wishes marked in ``obeyed`` and no others.

    ``verbose`` puts a lead-in before the answer, unless the answer obeys a word limit.
    """
    follow = {wish.id: wish for wish, met in zip(wishes, obeyed, strict=True) if met}
    ignored = {wish.id for wish, met in zip(wishes, obeyed, strict=True) if not met}
    if JSON in follow:
        text = json.dumps(dict(fields))
    else:
        text = _plain(fields, follow, verbose or FEWER_WORDS in ignored)
    if CAPITAL in follow:
        return text.upper()
    return text.lower() if LOWERCASE in follow else text


def _plain(fields: Mapping[str, str], follow: Mapping[str, Wish], verbose: bool) -> str:
    pairs = [f"{key}: {value}" for key, value in fields.items()]
    note = [f"note: {follow[KEYWORD].kwargs['keywords'][0]}"] if KEYWORD in follow else []
    if BULLETS in follow:  # the note must not count as a bullet
        text = "\n".join([f"* {pair}" for pair in pairs] + note)
    else:
        text = ("; " if NO_COMMA in follow else ", ").join(pairs + note)
    if verbose and FEWER_WORDS not in follow:
        lead = LEAD_IN.replace(",", "") if NO_COMMA in follow else LEAD_IN
        text = lead.rstrip() + "\n" + text if BULLETS in follow else lead + text
    if TITLE in follow:
        text = f"{_TITLE_LINE}\n{text}"
    if END in follow:
        text = f"{text}\n{follow[END].kwargs['end_phrase']}"
    if POSTSCRIPT in follow:
        text = f"{text}\n{_POSTSCRIPT_LINE}"
    return f'"{text}"' if QUOTATION in follow else text


def _in_words(rng: random.Random, wish: str, fields: Mapping[str, str]) -> Wish:
    text, kwargs = _WORDINGS[wish](rng, fields)
    return Wish(wish, rng.choice(text), kwargs)


_Wording = Callable[[random.Random, Mapping[str, str]], tuple[tuple[str, ...], dict[str, Any]]]


def _fixed(*texts: str, **kwargs: Any) -> _Wording:
    return lambda rng, fields: (texts, dict(kwargs))


def _bullets(
    rng: random.Random, fields: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    n = len(fields)
    return (
        f"Use exactly {n} bullet points.",
        f"Write {n} bullet points, each starting with *.",
    ), {"num_bullets": n}


def _end(rng: random.Random, fields: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    phrase = rng.choice(_ENDINGS)
    return (
        f"Finish with this exact phrase: {phrase}",
        f"The last words must be: {phrase}",
    ), {"end_phrase": phrase}


def _keyword(
    rng: random.Random, fields: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    word = words.invented(rng)
    return (
        f"Include the word {word}.",
        f"Your answer must mention {word}.",
    ), {"keywords": [word]}


def _fewer_words(
    rng: random.Random, fields: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    terse = sum(len(re.findall(r"\w+", f"{key} {value}")) for key, value in fields.items())
    limit = terse + rng.randint(1, 3)
    return (
        f"Use less than {limit} words.",
        f"Answer in less than {limit} words.",
    ), {"num_words": limit, "relation": "less than"}


_WORDINGS: dict[str, _Wording] = {
    CAPITAL: _fixed("Answer in capital letters only.", "Use only capital letters."),
    LOWERCASE: _fixed("Answer in lowercase letters only.", "Do not use capital letters."),
    JSON: _fixed("Answer as JSON.", "The whole answer must be a JSON object."),
    BULLETS: _bullets,
    TITLE: _fixed(
        "Put a title in double angular brackets first.",
        "Start with a title, such as <<Title>>.",
    ),
    QUOTATION: _fixed(
        "Wrap the whole answer in double quotes.",
        "Put double quotation marks around your answer.",
    ),
    END: _end,
    NO_COMMA: _fixed("Do not use any commas.", "Your answer must not contain a comma."),
    KEYWORD: _keyword,
    FEWER_WORDS: _fewer_words,
    POSTSCRIPT: _fixed(
        "Add a postscript starting with P.S.",
        "At the end, add a note that starts with P.S.",
        postscript_marker="P.S.",
    ),
}
