"""What IFEval itself accepts, id by id: the facts of its checker, in code of our own.

Each check takes the kwargs of a row and an answer that is not blank. Times grow with the answer,
also where the regular expressions of the original would not.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from risen_plugin.constraints.core import RELATIONS, Look, counted, holds, quoted
from risen_plugin.constraints.original.needs import language_of
from risen_plugin.constraints.original.sentences import count_capitals, count_sentences
from risen_plugin.errors import DataError, near_miss

Kwargs: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[Kwargs, str], Look]

_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_SEPARATOR = "******"
_STAR_BULLET = re.compile(r"^[^\S\n]*\*[^*].*$", re.MULTILINE)
_DASH_BULLET = re.compile(r"^[^\S\n]*-", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*([^\n*]*)\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*([^\n*]*)\*\*")
_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_WORD = re.compile(r"\w+")
_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
_FENCES = ("```json", "```Json", "```JSON", "```")
_DRAWN_LETTER = "h"
"""In place of what is no letter, such as ``#``, the original draws one by lot, each time anew.

Here it is always the same, one under which the published loose verdicts on GPT-4's answers come
out; of the strict ones it misses the one whose draw differed.
"""


def _compared(kwargs: Kwargs, count: int, limit: str, relation: str, unit: str) -> Look:
    return Look(holds(count, kwargs[relation], kwargs[limit]), counted(count, unit))


def _at_least(count: int, limit: int, unit: str) -> Look:
    return Look(count >= limit, counted(count, unit))


def _capital_words(kwargs: Kwargs, text: str) -> Look:
    count = count_capitals(text)
    return _compared(kwargs, count, "capital_frequency", "capital_relation", "word in capitals")


def _in_english(is_case: bool, text: str) -> Look:
    """Also met where the detector fails."""
    if not is_case:
        return Look(False, "letters of the other case, or none")
    language = language_of(text)
    return Look(language in ("en", None), f"the detector says {language or 'nothing'}")


def _repeated_prompt(kwargs: Kwargs, text: str) -> Look:
    prompt = str(kwargs["prompt_to_repeat"]).strip().lower()
    return Look(text.strip().lower().startswith(prompt), f"starts with {quoted(text, 30)}")


def _two_responses(kwargs: Kwargs, text: str) -> Look:
    parts = [part.strip() for part in text.split(_SEPARATOR)]
    answers = [part for part in parts if part]
    is_met = all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]
    return Look(is_met, counted(len(answers), "answer"))


def _placeholders(kwargs: Kwargs, text: str) -> Look:
    """Stretches from ``[`` to the next ``]`` on the same line."""
    count = 0
    for line in text.split("\n"):
        at = line.find("[")
        while at >= 0 and (end := line.find("]", at)) >= 0:
            count += 1
            at = line.find("[", end)
    return _at_least(count, kwargs["num_placeholders"], "placeholder")


def _postscript(kwargs: Kwargs, text: str) -> Look:
    marker = str(kwargs["postscript_marker"]).strip()
    found = re.search(_POSTSCRIPTS.get(marker) or marker.lower(), text.lower())
    return Look(found is not None, quoted(text[found.start() :]) if found else "no postscript")


def _option(kwargs: Kwargs, text: str) -> Look:
    found = [option for option in _OPTIONS if option in text]
    return Look(bool(found), ", ".join(map(repr, found)) or "none of them")


def _json(kwargs: Kwargs, text: str) -> Look:
    text = text.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return Look(False, "no JSON")
    return Look(True, "JSON")


def _sections(kwargs: Kwargs, text: str) -> Look:
    parts = re.split(rf"\s?{str(kwargs['section_spliter']).strip()}\s?\d+\s?", text)
    return _at_least(len(parts) - 1, kwargs["num_sections"], "section")


def _bullets(kwargs: Kwargs, text: str) -> Look:
    count = len(_STAR_BULLET.findall(text)) + len(_DASH_BULLET.findall(text))
    return Look(count == kwargs["num_bullets"], counted(count, "bullet"))


def _highlights(kwargs: Kwargs, text: str) -> Look:
    found = _HIGHLIGHT.findall(text) + _DOUBLE_HIGHLIGHT.findall(text)
    return _at_least(sum(map(bool, map(str.strip, found))), kwargs["num_highlights"], "highlight")


def _title(kwargs: Kwargs, text: str) -> Look:
    """From the first ``<<`` of a line to its last ``>>``, with something in between."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        title = line[start : end + 2] if 0 <= start < end - 2 else ""
        if title := title.lstrip("<").rstrip(">").strip():
            return Look(True, f"the title {quoted(title)}")
    return Look(False, "no title")


def _existence(kwargs: Kwargs, text: str) -> Look:
    missing = [word for word in kwargs["keywords"] if not re.search(word, text, re.IGNORECASE)]
    return Look(not missing, f"without {', '.join(missing)}" if missing else "all of them")


def _forbidden(kwargs: Kwargs, text: str) -> Look:
    words = kwargs["forbidden_words"]
    found = [word for word in words if re.search(rf"\b{word}\b", text, re.IGNORECASE)]
    return Look(not found, ", ".join(found) or "none of them")


def _frequency(kwargs: Kwargs, text: str) -> Look:
    keyword = str(kwargs["keyword"]).strip()
    count = sum(1 for _ in re.finditer(keyword, text, re.IGNORECASE))
    return _compared(kwargs, count, "frequency", "relation", "time")


def _letter_frequency(kwargs: Kwargs, text: str) -> Look:
    letter = str(kwargs["letter"]).strip().lower()
    letter = letter if len(letter) == 1 and "a" <= letter <= "z" else _DRAWN_LETTER
    look = _compared(kwargs, text.lower().count(letter), "let_frequency", "let_relation", "time")
    return Look(look.met, f"{look.seen} {letter}")


def _language(kwargs: Kwargs, text: str) -> Look:
    found = language_of(text)
    return Look(found in (kwargs["language"], None), f"the detector says {found or 'nothing'}")


def _first_word(kwargs: Kwargs, text: str) -> Look:
    """Blank paragraphs are not counted, but the nth paragraph is looked up among all of them."""
    wanted, number = kwargs["num_paragraphs"], kwargs["nth_paragraph"]
    if not 0 < number <= wanted:
        number = random.Random(0).randint(1, wanted + 1)  # the original draws one
    parts = text.split("\n\n")
    count = sum(map(bool, map(str.strip, parts)))
    seen = counted(count, "paragraph")
    words = parts[number - 1].split() if number <= count else []
    if not words:
        return Look(False, seen)
    word = re.split("[.,?!'\"]", words[0].lstrip("'").lstrip('"'))[0].lower()
    is_met = count == wanted and word == str(kwargs["first_word"]).lower()
    return Look(is_met, f"{seen}, number {number} starts {quoted(words[0], 20)}")


def _paragraphs(kwargs: Kwargs, text: str) -> Look:
    parts = [part.strip() for part in _DIVIDER.split(text)]
    count = sum(map(bool, parts))
    is_met = all(parts[1:-1]) and count == kwargs["num_paragraphs"]
    return Look(is_met, counted(count, "paragraph"))


def _sentences(kwargs: Kwargs, text: str) -> Look:
    return _compared(kwargs, count_sentences(text), "num_sentences", "relation", "sentence")


def _words(kwargs: Kwargs, text: str) -> Look:
    count = sum(1 for _ in _WORD.finditer(text))
    return _compared(kwargs, count, "num_words", "relation", "word")


def _no_comma(kwargs: Kwargs, text: str) -> Look:
    return Look("," not in text, counted(text.count(","), "comma"))


def _end(kwargs: Kwargs, text: str) -> Look:
    text, phrase = text.strip().strip('"').lower(), str(kwargs["end_phrase"]).strip().lower()
    return Look(text.endswith(phrase), f"ends with {quoted(text[-len(phrase) - 2 :])}")


def _quotation(kwargs: Kwargs, text: str) -> Look:
    text = text.strip()
    is_met = len(text) > 1 and text[0] == text[-1] == '"'
    return Look(is_met, f"starts with {text[0]!r} and ends with {text[-1]!r}")


@dataclass(frozen=True)
class Wanted:
    """A check and the kinds of its kwargs.

    :param kwargs: by name the key of its kind in ``_KINDS``.
    """

    check: Check
    kwargs: Mapping[str, str] = field(default_factory=dict)


def _limited(check: Check, count: str, relation: str, **others: str) -> Wanted:
    return Wanted(check, {count: "count", relation: "relation", **others})


CHECKS: Mapping[str, Wanted] = {
    "change_case:capital_word_frequency": _limited(
        _capital_words, "capital_frequency", "capital_relation"
    ),
    "change_case:english_capital": Wanted(lambda _, text: _in_english(text.isupper(), text)),
    "change_case:english_lowercase": Wanted(lambda _, text: _in_english(text.islower(), text)),
    "combination:repeat_prompt": Wanted(_repeated_prompt, {"prompt_to_repeat": "text"}),
    "combination:two_responses": Wanted(_two_responses),
    "detectable_content:number_placeholders": Wanted(_placeholders, {"num_placeholders": "count"}),
    "detectable_content:postscript": Wanted(_postscript, {"postscript_marker": "pattern"}),
    "detectable_format:constrained_response": Wanted(_option),
    "detectable_format:json_format": Wanted(_json),
    "detectable_format:multiple_sections": Wanted(
        _sections, {"section_spliter": "pattern", "num_sections": "count"}
    ),
    "detectable_format:number_bullet_lists": Wanted(_bullets, {"num_bullets": "count"}),
    "detectable_format:number_highlighted_sections": Wanted(
        _highlights, {"num_highlights": "count"}
    ),
    "detectable_format:title": Wanted(_title),
    "keywords:existence": Wanted(_existence, {"keywords": "patterns"}),
    "keywords:forbidden_words": Wanted(_forbidden, {"forbidden_words": "patterns"}),
    "keywords:frequency": _limited(_frequency, "frequency", "relation", keyword="pattern"),
    "keywords:letter_frequency": _limited(
        _letter_frequency, "let_frequency", "let_relation", letter="text"
    ),
    "language:response_language": Wanted(_language, {"language": "text"}),
    "length_constraints:nth_paragraph_first_word": Wanted(
        _first_word, {"num_paragraphs": "count", "nth_paragraph": "count", "first_word": "text"}
    ),
    "length_constraints:number_paragraphs": Wanted(_paragraphs, {"num_paragraphs": "count"}),
    "length_constraints:number_sentences": _limited(_sentences, "num_sentences", "relation"),
    "length_constraints:number_words": _limited(_words, "num_words", "relation"),
    "punctuation:no_comma": Wanted(_no_comma),
    "startend:end_checker": Wanted(_end, {"end_phrase": "text"}),
    "startend:quotation": Wanted(_quotation),
}
"""The check of each of IFEval's ids."""


def _is_pattern(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error:
        return False


_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "count": (
        "a whole number from 0",
        lambda value: (
            not isinstance(value, bool)
            and isinstance(value, int | float)
            and value >= 0
            and value == value // 1
        ),
    ),
    "relation": ("'less than' or 'at least'", lambda value: value in RELATIONS),
    "text": ("a text", lambda value: isinstance(value, str) and bool(value)),
    "pattern": ("a text that is a regular expression", _is_pattern),
    "patterns": (
        "a list of regular expressions",
        lambda value: (
            isinstance(value, Sequence)
            and not isinstance(value, str)
            and bool(value)
            and all(map(_is_pattern, value))
        ),
    ),
}


@dataclass(frozen=True)
class Original:
    """One of IFEval's ids with its kwargs, as IFEval itself checks it."""

    id: str
    kwargs: Kwargs

    def check(self, text: str) -> bool:
        """Whether IFEval accepts the answer ``text``; never a blank one."""
        return self.look(text).met

    def look(self, text: str) -> Look:
        """As :meth:`check`, with what decides it."""
        if not text.strip():
            return Look(False, "an empty answer")
        return CHECKS[self.id].check(self.kwargs, text)


def parse(id_: str, kwargs: Kwargs | None, prompt: str | None = None) -> Original:
    """As :func:`risen_plugin.constraints.parse`, for IFEval's 25 ids.

    Refused are also kwargs in whose place the original draws lots, or by which it breaks.

    :raises DataError: for an id that is none of IFEval's, and for wrong kwargs.
    """
    if id_ not in CHECKS:
        raise DataError(
            f"IFEval has no constraint {id_!r:.60}{near_miss(str(id_), CHECKS)}; "
            "it is judged by the rules of risen alone"
        )
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise DataError(
            f"constraint '{id_}': kwargs must be a mapping of names to values, not {kwargs!r:.60}"
        )
    arguments = {name: value for name, value in (kwargs or {}).items() if value is not None}
    if "prompt_to_repeat" in CHECKS[id_].kwargs and prompt is not None:
        arguments.setdefault("prompt_to_repeat", prompt)
    try:
        _check_kwargs(CHECKS[id_].kwargs, arguments)
    except ValueError as error:
        raise DataError(f"constraint '{id_}': {error}") from error
    return Original(id_, arguments)


def _check_kwargs(wanted: Mapping[str, str], kwargs: Kwargs) -> None:
    for name, kind in wanted.items():
        what, is_fit = _KINDS[kind]
        if name not in kwargs:
            raise ValueError(f"kwarg '{name}' is missing; it must be {what}")
        if not is_fit(kwargs[name]):
            raise ValueError(f"kwarg '{name}' must be {what}, not {kwargs[name]!r:.60}")
    for name in kwargs:
        if name not in wanted:
            raise ValueError(f"no kwarg {name!r:.60} (it takes: {', '.join(wanted) or 'none'})")
