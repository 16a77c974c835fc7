"""Constraints on how an answer starts and ends: IFEval's ``startend`` family."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import Constraint, Text, quoted

_ENDINGS = (
    "I hope this helps.",
    "Is there anything else I can help with?",
    "Let me know if you have any questions.",
    "Let me know what you think.",
    "Feel free to ask for more details.",
    "Please let me know if you need anything else.",
    "Does this answer your question?",
    "Would you like to know more?",
    "Thank you for asking.",
)


@dataclass(frozen=True)
class Quotation(Constraint):
    """The first and the last character are ``"``, with something between them.

    The original also accepts the two marks alone.
    """

    id = "startend:quotation"
    wordings = (
        "Wrap your entire answer in double quotation marks.",
        "Put double quotation marks around your answer.",
        'Your answer must start and end with a double quotation mark (").',
    )
    conflicts = frozenset({"combination:repeat_prompt"})

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
        'Finish your answer with this exact phrase: "{end_phrase}"',
        'The last words of your answer must be: "{end_phrase}"',
        'End your answer with "{end_phrase}" and write nothing after it.',
    )

    def met(self, text: str) -> bool:
        text, phrase = text.strip().casefold(), self.end_phrase.casefold()
        return text.endswith(phrase) or text.strip('"').rstrip().endswith(phrase)

    def seen(self, text: str) -> str:
        return f"ends with {quoted(text.strip()[-len(self.end_phrase) - 2 :])}"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"end_phrase": rng.choice(_ENDINGS)}
