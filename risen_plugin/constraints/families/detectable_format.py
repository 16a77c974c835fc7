"""Constraints on the form of an answer: IFEval's ``detectable_format`` family."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from risen_plugin.constraints.core import Constraint, Count, Text, counted, quoted
from risen_plugin.constraints.text import shown

_FENCE = re.compile(r"```(?:json)?", re.IGNORECASE)
_BULLET = re.compile(r"^[^\S\n]*[*-][^\S\n]+\S.*$", re.MULTILINE)
_RULE = re.compile(r"^[^\S\n]*([*-])(?:[^\S\n]*\1){2,}[^\S\n]*$")
_STARS = re.compile(r"\*+")
_QUOTES = "\"'\u201c\u2018\u00ab\u201e"
"""Marks that may stand before what an answer begins with, where it is wrapped in them."""
_JSON_TYPES = {
    dict: "a JSON object",
    list: "a JSON array",
    str: "a JSON string",
    int: "a JSON number",
    float: "a JSON number",
    bool: "a JSON truth value",
    type(None): "a JSON null",
}
_CONTAINERS = (_JSON_TYPES[dict], _JSON_TYPES[list])
OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unfenced(text: str) -> str:
    text = text.strip().removesuffix("```")
    fence = _FENCE.match(text)
    return text[fence.end() :] if fence else text


@dataclass(frozen=True)
class JsonFormat(Constraint):
    """The whole answer is a JSON object or array, with or without a Markdown fence around it.

    The original also accepts a bare number, a quoted sentence and ``NaN``.
    """

    id = "detectable_format:json_format"
    wordings = (
        "Give your answer in JSON format.",
        "The whole answer must be a JSON object.",
        "Put your entire answer in JSON format. A Markdown code block is allowed.",
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "combination:two_responses",
            "detectable_content:postscript",
            "detectable_format:multiple_sections",
            "detectable_format:number_bullet_lists",
            "detectable_format:number_highlighted_sections",
            "detectable_format:title",
            "length_constraints:nth_paragraph_first_word",
            "length_constraints:number_paragraphs",
            "startend:end_checker",
            "startend:quotation",
        }
    )

    def met(self, text: str) -> bool:
        return self.seen(text) in _CONTAINERS

    def seen(self, text: str) -> str:
        try:
            loaded = json.loads(_unfenced(text), parse_constant=_no_number)
        except (ValueError, RecursionError):
            return "no JSON"
        return _JSON_TYPES[type(loaded)]


def _count_bullets(text: str) -> int:
    text = shown(text).lstrip()
    lines = _BULLET.findall(text[1:] if text[:1] in tuple(_QUOTES) else text)
    return sum(not _RULE.match(line) for line in lines)


@dataclass(frozen=True)
class NumberBulletLists(Constraint):
    """Exactly so many lines that begin with ``*`` or ``-`` and a space.

    The quotation mark of an answer that is wrapped in them may precede the first. The
    original does not see a bullet there, but it counts ``---``, ``-5`` and a line that begins with
    ``*emphasis*``.
    """

    num_bullets: Count

    id = "detectable_format:number_bullet_lists"
    wordings = (
        "Use exactly {num_bullets} bullet points.",
        "Your answer must have exactly {num_bullets} bullet points, each starting with * and a "
        "space.",
        "Your answer must contain exactly {num_bullets} Markdown bullet points, such as:\n"
        "* This is a point.",
    )

    def met(self, text: str) -> bool:
        return _count_bullets(text) == self.num_bullets

    def seen(self, text: str) -> str:
        return counted(_count_bullets(text), "bullet")

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"num_bullets": rng.randint(3, 8)}


def _title(line: str) -> str:
    """The text between the first ``<<`` and the last ``>>``."""
    start, end = line.find("<<"), line.rfind(">>")
    return line[start + 2 : end] if 0 <= start < end else ""


@dataclass(frozen=True)
class Title(Constraint):
    """Something in double angular brackets on one line, such as ``<<Summary>>``."""

    id = "detectable_format:title"
    wordings = (
        "Your answer must have a title in double angular brackets, such as <<title>>.",
        "Start with a title in double angular brackets, like <<this>>.",
        "Give your answer a title, wrapped in double angular brackets, such as <<My Title>>.",
    )

    def met(self, text: str) -> bool:
        return any(_title(line).strip("<> \t") for line in text.split("\n"))

    def seen(self, text: str) -> str:
        titles = [_title(line).strip("<> \t") for line in text.split("\n")]
        return next((f"the title {quoted(title)}" for title in titles if title), "no title")


def _count_highlights(text: str) -> int:
    """The emphasised stretches of each line; one inside another is part of it."""
    return sum(_highlights_of(line) for line in shown(text).split("\n") if "*" in line)


def _highlights_of(line: str) -> int:
    open_runs: list[int] = []  # the stars of each run that are still to be closed
    outermost: list[int] = []  # how many runs were open before each finished stretch
    for run in _STARS.finditer(line):
        stars = len(run[0])
        if stars > 3:
            continue
        follows = line[run.start() - 1 : run.start()].strip() if run.start() else ""
        precedes = line[run.end() : run.end() + 1].strip()
        while follows and stars and open_runs:
            closed = min(stars, open_runs[-1])
            stars -= closed
            open_runs[-1] -= closed
            if open_runs[-1]:
                break
            open_runs.pop()
            while outermost and outermost[-1] > len(open_runs):
                outermost.pop()
            outermost.append(len(open_runs))
        if stars and precedes:
            open_runs.append(stars)
    return len(outermost)


@dataclass(frozen=True)
class NumberHighlightedSections(Constraint):
    """At least so many stretches emphasised as in Markdown: ``*so*``, ``**so**`` or ``***so***``.

    The original also counts ``3 * 4 * 5`` and the star of a bullet point, and ``***so***`` twice.
    """

    num_highlights: Count

    id = "detectable_format:number_highlighted_sections"
    wordings = (
        "Highlight at least {num_highlights} parts of your answer with Markdown, "
        "such as *highlighted part*.",
        "Emphasize at least {num_highlights} words or phrases by putting *asterisks* around them.",
    )

    def met(self, text: str) -> bool:
        return _count_highlights(text) >= self.num_highlights

    def seen(self, text: str) -> str:
        return counted(_count_highlights(text), "highlight")

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"num_highlights": rng.randint(2, 6)}


@dataclass(frozen=True)
class MultipleSections(Constraint):
    """At least so many lines that begin with the splitter and a number, such as ``Section 1``.

    Markdown heading marks may precede it. The original also counts a mention in mid-sentence.
    """

    section_spliter: Text
    num_sections: Count

    id = "detectable_format:multiple_sections"
    wordings = (
        "Your answer must have {num_sections} sections. Mark the beginning of each one with "
        '"{section_spliter}" and its number, such as "{section_spliter} 1".',
        "Divide your answer into {num_sections} sections that begin on a new line with "
        '"{section_spliter} 1", "{section_spliter} 2" and so on.',
    )

    def met(self, text: str) -> bool:
        return self._count(text) >= self.num_sections

    def seen(self, text: str) -> str:
        return counted(self._count(text), "section")

    def _count(self, text: str) -> int:
        pattern = rf"^(?:[^\S\n]|[>#*_{_QUOTES}(\[-])*{re.escape(self.section_spliter)}\s?\d+"
        return len(re.findall(pattern, shown(text), re.MULTILINE))

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {
            "section_spliter": rng.choice(("Section", "SECTION", "Part", "PART")),
            "num_sections": rng.randint(2, 6),
        }


@dataclass(frozen=True)
class ConstrainedResponse(Constraint):
    """One of the three options occurs in the answer, and no other one.

    The original also accepts an answer that gives two of them.
    """

    id = "detectable_format:constrained_response"
    wordings = (
        "Answer with one of these options: " + ", ".join(f'"{option}"' for option in OPTIONS),
        "Choose exactly one of the following as your answer: "
        + ", ".join(f'"{option}"' for option in OPTIONS),
    )
    conflicts = frozenset(
        {
            "change_case:capital_word_frequency",
            "change_case:english_capital",
            "change_case:english_lowercase",
            "combination:repeat_prompt",
            "combination:two_responses",
            "detectable_content:number_placeholders",
            "detectable_content:postscript",
            "detectable_format:json_format",
            "detectable_format:multiple_sections",
            "detectable_format:number_bullet_lists",
            "detectable_format:number_highlighted_sections",
            "keywords:existence",
            "keywords:frequency",
            "keywords:letter_frequency",
            "keywords:word_count_different_numbers",
            "length_constraints:nth_paragraph_first_word",
            "length_constraints:number_paragraphs",
            "length_constraints:number_sentences",
            "length_constraints:number_words",
            "letters:letter_counting2",
            "startend:end_checker",
        }
    )

    def met(self, text: str) -> bool:
        return sum(option in text for option in OPTIONS) == 1

    def seen(self, text: str) -> str:
        return ", ".join(repr(option) for option in OPTIONS if option in text) or "none of them"
