"""Constraints on the parts that an answer is put together from: IFEval's ``combination`` family."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints.core import Constraint, Text, counted, quoted

_SEPARATOR = "******"


@dataclass(frozen=True)
class TwoResponses(Constraint):
    """Two answers with ``******`` between them, different in more than case and white space.

    In the original one changed letter case makes an answer a second one.
    """

    id = "combination:two_responses"
    wordings = (
        "Give two different answers, separated by six asterisks: ******.",
        "Answer twice, each time differently, and put six asterisks (******) between the two "
        "answers.",
    )
    conflicts = frozenset({"combination:repeat_prompt"})

    def met(self, text: str) -> bool:
        parts = [" ".join(part.casefold().split()) for part in text.split(_SEPARATOR)]
        if not all(parts[1:-1]):
            return False
        answers = [part for part in parts if part]
        return len(answers) == 2 and answers[0] != answers[1]

    def seen(self, text: str) -> str:
        parts = [" ".join(part.casefold().split()) for part in text.split(_SEPARATOR)]
        answers = [part for part in parts if part]
        equal = ", equal ones" if len(answers) == 2 and answers[0] == answers[1] else ""
        empty = ", an empty one between" if not all(parts[1:-1]) else ""
        return counted(len(answers), "answer") + equal + empty


@dataclass(frozen=True)
class RepeatPrompt(Constraint):
    """The prompt word for word, in any case, and then an answer.

    An echo with nothing after it is accepted by the original; here it is not.
    """

    prompt_to_repeat: Text

    id = "combination:repeat_prompt"
    prompt_kwarg = "prompt_to_repeat"
    wordings = (
        "First repeat the request above word for word, then give your answer. Write nothing before "
        "it, and leave this instruction out of the repetition.",
        "Begin your reply by repeating everything above this sentence exactly as it is; your "
        "answer comes after it.",
    )
    conflicts = frozenset(
        {"change_case:capital_word_frequency", "detectable_format:number_bullet_lists"}
    )

    def met(self, text: str) -> bool:
        text, prompt = text.strip().casefold(), self.prompt_to_repeat.casefold()
        return text.startswith(prompt) and any(c.isalnum() for c in text[len(prompt) :])

    def seen(self, text: str) -> str:
        repeated = text.strip().casefold().startswith(self.prompt_to_repeat.casefold())
        return "the prompt at the start" if repeated else f"starts with {quoted(text, 30)}"

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"prompt_to_repeat": prompt}
