"""Constraints on how an answer starts and ends: IFEval's ``startend`` family."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import Constraint, Text, quoted

_ENDINGS = (
    "That is all.",
    "Is there anything else you want to know?",
    "Have a nice day.",
    "I hope this helps.",
    "Any more questions?",
    "Let me know what you think.",
)


@dataclass(frozen=True)
class Quotation(Constraint):
    """The first and the last character are ``"``, with something between them.

    The original also accepts the two marks alone.
    """

    id = "startend:quotation"
    wordings = (
        "Wrap the whole answer in double quotes.",
        "Put double quotation marks around your answer.",
        'Your answer must start and end with a double quotation mark (").',
    )
    conflicts = frozenset({"combination:two_responses", "combination:repeat_prompt"})

    def met(self, text: str) -> bool:
        text = text.strip()
        return text[0] == text[-1] == '"' and bool(text.strip('"').strip())

    def seen(self, text: str) -> str:
        text = text.strip()
        return f"starts with {text[0]!r} and ends with {text[-1]!r}"


@dataclass(frozen=True)
class EndChecker(Constraint):
    """The last words are the phrase, in any case; quotation marks around the answer are ignored.

    The original takes quotation marks off the answer before it looks, so a phrase that ends with
    one can never be met there; here it can.
    """

    end_phrase: Text

    id = "startend:end_checker"
    wordings = (
        "Finish with this exact phrase: {end_phrase}",
        "The last words must be: {end_phrase}",
        "End your answer with the following words and nothing after them: {end_phrase}",
    )
    conflicts = frozenset({"detectable_content:postscript"})

    def met(self, text: str) -> bool:
        text, phrase = text.strip().casefold(), self.end_phrase.casefold()
        return text.endswith(phrase) or text.strip('"').rstrip().endswith(phrase)

    def seen(self, text: str) -> str:
        return f"ends with {quoted(text.strip()[-len(self.end_phrase) - 2 :])}"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"end_phrase": rng.choice(_ENDINGS)}
