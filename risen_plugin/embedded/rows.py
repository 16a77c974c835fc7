"""Turn a message with known fields into a question and an answer.

Shared by the base model's corpus and the demo's order desk: a *desk* writes messages, someone asks
for some of the fields, often with wishes about the form, and the desk's own habits decide whether
the recorded answer obeys them. Pure: everything comes from the random generator passed in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from risen_plugin.embedded import answers, words
from risen_plugin.embedded.answers import Wish

_ASKING = (
    "Give the {fields}.",
    "What is the {fields}?",
    "Extract the {fields}.",
    "I need the {fields}.",
)
_VALUES: Mapping[str, Callable[[random.Random], str]] = {
    "name": words.person,
    "city": words.city,
    "item": words.thing,
    "day": words.day,
    "order": words.number,
    "room": lambda rng: words.number(rng, 3),
    "code": lambda rng: words.number(rng, 4),
    "book": lambda rng: f"{words.invented(rng)} {words.invented(rng)}".title(),
}


@dataclass(frozen=True)
class Desk:
    """An order desk that recorded answers: its message templates and its habits.

    :param obeys: the probability that a stated wish is obeyed.
    :param verbose: the probability of a lead-in that nobody asked for.
    """

    name: str
    templates: tuple[str, ...]
    obeys: float
    verbose: float


@dataclass(frozen=True)
class Question:
    """One question about a message, with the answer that was recorded for it."""

    text: str
    fields: Mapping[str, str]
    wishes: tuple[Wish, ...]
    obeyed: tuple[bool, ...]
    answer: str


def message(rng: random.Random, desk: Desk) -> tuple[str, dict[str, str]]:
    """A message from one of the desk's templates and the fields that it holds."""
    template = rng.choice(desk.templates)
    fields = {key: draw(rng) for key, draw in _VALUES.items() if f"{{{key}}}" in template}
    return template.format(**fields), fields


def ask(
    rng: random.Random, desk: Desk, known: Mapping[str, str], wish_counts: Sequence[int]
) -> Question:
    """Ask for one to three of the ``known`` fields, with a number of wishes drawn from
    ``wish_counts``, and answer as the desk would.
    """
    keys = rng.sample(sorted(known), rng.randint(1, min(3, len(known))))
    fields = {key: known[key] for key in keys}
    wishes = tuple(answers.choose_wishes(rng, rng.choice(wish_counts), fields))
    obeyed = tuple(rng.random() < desk.obeys for _ in wishes)
    verbose = rng.random() < desk.verbose
    question = rng.choice(_ASKING).format(fields=_listed(keys))
    text = " ".join([question, *(wish.text for wish in wishes)])
    return Question(text, fields, wishes, obeyed, answers.write(fields, wishes, obeyed, verbose))


def _listed(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else ", ".join(keys[:-1]) + " and " + keys[-1]
