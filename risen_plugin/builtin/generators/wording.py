"""The questions that make a model rewrite or invent a request, and the reading of its answer."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from risen_plugin.contracts import text_of, without_thinking

_MANNERS = (
    "in other words",
    "more briefly",
    "in more detail",
    "more politely",
    "in plainer words",
    "as somebody in a hurry would put it",
)
_LABEL = re.compile(
    r"^\W{0,3}(?:(?:here is|here's)\b[^\n:]{0,60}:|(?:the )?(?:new|rewritten|rephrased)?\s*"
    r"(?:request|instruction|prompt)\s*:)[*_]{0,3}\s*",
    re.IGNORECASE,
)
_NO_REQUEST = re.compile(
    r"(?:i'm sorry|i am sorry|sorry,|i cannot|i can't|i can\u2019t|i\u2019m sorry|as an ai\b)",
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("\u201c", "\u201d"), ("'", "'"), ("<request>", "</request>"))
FEWEST_WORDS = 2


def to_rewrite(rng: random.Random, query: str) -> str:
    """Ask for ``query`` in other words."""
    return (
        f"Rewrite the request below {rng.choice(_MANNERS)}. It must ask for the same thing and "
        "keep every text, name and number that it gives. Answer with the rewritten request "
        f"alone.\n\n<request>\n{query}\n</request>"
    )


def to_invent(examples: Sequence[str]) -> str:
    """Ask for a new request in the manner of ``examples``."""
    shown = "\n\n".join(f"<request>\n{example}\n</request>" for example in examples)
    return (
        "Below are requests that people made. Write one new request of this kind, about another "
        "subject, that can be answered as it stands. Answer with the new request alone.\n\n" + shown
    )


def cleaned(answer: str) -> str:
    """The request in ``answer``, without thoughts, label and quotation marks around it.

    >>> cleaned('Rewritten request: "Name a river."')
    'Name a river.'
    """
    text = _LABEL.sub("", text_of(without_thinking(answer)).strip(), count=1).strip()
    for opening, closing in _QUOTES:
        inside = text[len(opening) : len(text) - len(closing)]
        if text.startswith(opening) and text.endswith(closing) and opening not in inside:
            text = inside.strip()
    return text


def fault_of_answer(text: str) -> str | None:
    """Why a cleaned answer is no request; None if it may be one."""
    if not text:
        return "no text"
    if len(text.split()) < FEWEST_WORDS:
        return "too short"
    if _NO_REQUEST.match(text):
        return "a refusal"
    if "<request>" in text or "</request>" in text:
        return "the question itself"
    return None
