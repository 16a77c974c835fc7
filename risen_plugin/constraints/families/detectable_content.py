"""Constraints on parts that an answer must have: IFEval's ``detectable_content`` family."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import Constraint, Count, Text, counted, quoted

_PLACEHOLDER = re.compile(r"\[([^\[\]\n]*)\](?!\()")
_POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s\.?"}


@dataclass(frozen=True)
class Postscript(Constraint):
    """The marker, in any case, at the start of a word and with a text after it.

    The original also finds it inside words and accepts the marker alone.
    """

    postscript_marker: Text

    id = "detectable_content:postscript"
    wordings = (
        'Add a postscript starting with "{postscript_marker}" at the end.',
        'At the end, add a note that starts with "{postscript_marker}".',
        'Finish with a postscript that begins with "{postscript_marker}".',
    )

    def met(self, text: str) -> bool:
        return self._match(text) is not None

    def seen(self, text: str) -> str:
        match = self._match(text)
        return quoted(text[match.start() :]) if match else "no postscript"

    def _match(self, text: str) -> re.Match[str] | None:
        marker = _POSTSCRIPTS.get(self.postscript_marker) or re.escape(self.postscript_marker)
        return re.search(rf"(?<![\w.]){marker}[\W_]*\w", text, re.IGNORECASE)

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"postscript_marker": rng.choice(("P.S.", "PS:"))}


def _count_placeholders(text: str) -> int:
    return sum(bool(inside.strip()) for inside in _PLACEHOLDER.findall(text))


@dataclass(frozen=True)
class NumberPlaceholders(Constraint):
    """At least so many placeholders such as ``[address]``.

    Empty brackets and links such as ``[here](https://...)`` do not count; in the original they do.
    """

    num_placeholders: Count

    id = "detectable_content:number_placeholders"
    wordings = (
        "Include at least {num_placeholders} placeholders in square brackets, such as [address].",
        "Your answer must contain at least {num_placeholders} placeholders, such as [name].",
        "Leave at least {num_placeholders} placeholders, in square brackets like [date].",
    )

    def met(self, text: str) -> bool:
        return _count_placeholders(text) >= self.num_placeholders

    def seen(self, text: str) -> str:
        return counted(_count_placeholders(text), "placeholder")

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"num_placeholders": rng.randint(2, 6)}
