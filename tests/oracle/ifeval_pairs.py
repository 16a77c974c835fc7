"""Constraints and completions to compare on: right ones, near misses, and texts spoiled by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from risen_plugin.constraints import IFEVAL_IDS, KNOWN, Constraint, clash, parse
from risen_plugin.constraints.languages import SENTENCES
from risen_plugin.constraints.made_to_order.construct import satisfying, violating

PROMPTS = (
    "Describe a river and what grows along its banks, please.",
    "Write a short letter to a museum.",
    "Why is the sky blue?",
    "List things to take on a trip to the mountains.",
)
PIECES = (
    ",", ".", "!", "?", "...", ";", "*", "**", "***", "******", "-", "* ", "- ", "\n", "\n\n",
    "\n***\n", "\n******\n", "\"", "'", "[", "]", "[]", "[name]", "(so)", "<<", ">>",
    "<<A day>>", "P.S.", "\nP.S. So it is.", "P.P.S", "NASA", "I", "DON'T", "it's", "e.g.",
    "Dr. Fox", "3.5", "5 * 4 * 3", "*so*", "**so**", "***so***", "\n* one\n* two", "\n- one",
    "\n---\n", "\n-5", "Section 1", "\nSection 2", "My answer is yes.", "My answer is no.",
    "caf\u00e9", "cafe\u0301", "na\u00efve", "\u00c9T\u00c9", "\u4f60\u597d\u3002", "\uff0c",
    "\u060c", "{}", "[1, 2]", "12", "```", "```json", "null", "That is all.", "[here](a.b)",
)  # fmt: skip


ENGLISH = (
    "The old bridge was built two hundred years ago by the people of the village.",
    "You should always take enough water with you when you walk in the mountains.",
    "What would you like to know about the river?",
    "Most of the trees that grow there lose their leaves in the autumn.",
    "We are happy to answer your questions, and we hope to see you soon!",
    "There is a small museum near the station where you can learn more about it.",
)


class Pair(NamedTuple):
    constraint: Constraint
    prompt: str
    text: str


def pairs(id_: str, count: int, seed: int = 0) -> Iterator[Pair]:
    """``count`` pairs of a constraint with this id and a completion, about half of them right."""
    rng = random.Random(f"{id_} {seed}")
    for _ in range(count):
        prompt = rng.choice(PROMPTS)
        constraint = _sampled(id_, rng, prompt)
        text = _text(constraint, rng, prompt)
        changes = (0, 0, 0, 1) if constraint.family() == "language" else (0, 0, 1, 1, 2, 4)
        for _ in range(rng.choice(changes)):
            text = _spoiled(text, rng)
        yield Pair(constraint, prompt, text)


def _sampled(id_: str, rng: random.Random, prompt: str) -> Constraint:
    return parse(id_, KNOWN[id_].sample(rng, prompt))


def _text(constraint: Constraint, rng: random.Random, prompt: str) -> str:
    """A right answer in six of ten cases; else one to another wish, or one that is wrong."""
    if constraint.family() == "language":
        language = rng.choice([constraint.kwargs["language"], rng.choice(list(SENTENCES))])
        return " ".join(rng.choices(SENTENCES[language], k=rng.randint(2, 6)))
    if rng.random() < 0.1:
        return violating(constraint, rng)
    if constraint.id in ("change_case:english_capital", "change_case:english_lowercase"):
        case = rng.choice((str.upper, str.lower, str.upper, str.lower, str))
        return case(rng.choice((" ", "\n")).join(rng.choices(ENGLISH, k=rng.randint(1, 5))))
    wanted = constraint
    if rng.random() < 0.35:  # the same wish with other values
        wanted = _sampled(constraint.id, rng, prompt)
    company = rng.choice(sorted(IFEVAL_IDS - {"language:response_language"}))
    together = [wanted]
    if not clash(company, wanted.id):
        together.append(_sampled(company, rng, prompt))
    return satisfying(together, rng, prompt) or satisfying([wanted], rng, prompt) or prompt


def _spoiled(text: str, rng: random.Random) -> str:
    """The text with one thing changed."""
    place = rng.randint(0, len(text))
    lines = text.split("\n")
    words = text.split(" ")
    change = rng.randrange(8)
    if change < 3:
        piece = rng.choice(PIECES)
        gap = rng.choice(("", " "))
        return f"{text[:place]}{gap}{piece}{gap}{text[place:]}"
    if change == 3:
        return f"Sure, here it is:\n{text}"
    if change == 4 and len(lines) > 1:
        del lines[rng.randrange(len(lines))]
        return "\n".join(lines)
    if change == 5 and len(words) > 2:
        at = rng.randrange(len(words) - 1)
        return " ".join(
            [*words[:at], rng.choice((str.upper, str.lower))(words[at]), *words[at + 1 :]]
        )
    if change == 6:
        return f"{text}\n{rng.choice(PIECES)}"
    return f"{text[:place]}{text[place + 1 :]}"
