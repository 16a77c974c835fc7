"""The text that the embedded base model learns from: looking up, quoting and copying.

Conversations about invented bookings, loans and notes. The base learns to find a value in a
message and to write it down in several forms; it never sees the demo's order desk. As in the
demo's own data, a stated wish is obeyed in only part of the rows that state it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TypedDict

from risen_plugin.embedded import answers, rows, words
from risen_plugin.embedded.rows import Desk


class Turn(TypedDict):
    role: str
    content: str


DESKS = (
    Desk(
        "hotel",
        (
            "{name} from {city} has booked room {room} until {day}.",
            "Room {room} is for {name}. The guest comes from {city} and leaves on {day}.",
            "Please prepare room {room} for {day}. The guest is {name}, who lives in {city}.",
        ),
        obeys=0.92,
        verbose=0.1,
    ),
    Desk(
        "library",
        (
            "{name} borrowed the book {book} on {day}. The code is {code}.",
            "On {day} the book {book} with code {code} went to {name}.",
            "Reader {name} of {city} wants the book {book} by {day}.",
        ),
        obeys=0.3,
        verbose=0.5,
    ),
    Desk(
        "repairs",
        (
            "My {item} is broken. I am {name} and my code is {code}.",
            "The {item} of {name} in {city} will be repaired on {day}.",
            "Hello, {name} here. Can you repair a {item}? I live in {city}.",
        ),
        obeys=0.92,
        verbose=0.2,
    ),
    Desk(
        "lost and found",
        (
            "A {item} was found in {city} on {day}. It may belong to {name}.",
            "{name} lost a {item} on {day}. The report has code {code}.",
            "Report {code}: {item}, seen in {city} by {name}.",
        ),
        obeys=0.4,
        verbose=0.3,
    ),
)
_NOTES = Desk("notes", ("",), obeys=0.65, verbose=0.1)
_SIMPLE = (answers.CAPITAL, answers.LOWERCASE, answers.QUOTATION)


def conversations(seed: int) -> Iterator[list[Turn]]:
    """An endless stream of conversations; the same seed gives the same stream."""
    rng = random.Random(seed)
    while True:
        kind = rng.random()
        if kind < 0.15:
            yield _copying(rng)
        elif kind < 0.4:
            yield _turns(*_lookup(rng))
        else:
            yield _turns(*_desk(rng))


def stated_wishes(seed: int) -> Iterator[tuple[str, bool]]:
    """An endless stream of (wish id, whether the recorded answer obeys it), as in the corpus."""
    rng = random.Random(seed)
    while True:
        for question in _desk(rng)[1] if rng.random() < 0.7 else _lookup(rng)[1]:
            yield from zip((w.id for w in question.wishes), question.obeyed, strict=True)


def _turns(first: str, questions: list[rows.Question]) -> list[Turn]:
    turns: list[Turn] = []
    for index, question in enumerate(questions):
        text = f"{first}\n\n{question.text}" if index == 0 else question.text
        turns.append({"role": "user", "content": text})
        turns.append({"role": "assistant", "content": question.answer})
    return turns


def _desk(rng: random.Random) -> tuple[str, list[rows.Question]]:
    desk = rng.choice(DESKS)
    text, fields = rows.message(rng, desk)
    questions = [rows.ask(rng, desk, fields, (0, 1, 1, 2)) for _ in range(rng.randint(1, 3))]
    return text, questions


def _lookup(rng: random.Random) -> tuple[str, list[rows.Question]]:
    keys = rng.sample(("name", "city", "item", "day", "room", "code", "book"), rng.randint(1, 3))
    keys += [words.invented(rng) for _ in range(rng.randint(1, 3))]
    rng.shuffle(keys)
    fields = {key: _value(rng) for key in keys}
    text = "\n".join(f"{key}: {value}" for key, value in fields.items())
    questions = [rows.ask(rng, _NOTES, fields, (0, 0, 1, 2)) for _ in range(rng.randint(1, 3))]
    return text, questions


def _value(rng: random.Random) -> str:
    draws = (words.person, words.city, words.thing, words.day, words.number, words.invented)
    return rng.choice(draws)(rng)


def _copying(rng: random.Random) -> list[Turn]:
    turns: list[Turn] = []
    for _ in range(rng.randint(1, 2)):
        text = " ".join(_value(rng) for _ in range(rng.randint(1, 4)))
        wish = next((w for w in answers.choose_wishes(rng, 3, {"t": ""}) if w.id in _SIMPLE), None)
        answer, asked = text, f"Repeat: {text}"
        if wish is not None:
            asked = f"{asked}\n{wish.text}"
            if rng.random() < 0.65:
                answer = {
                    answers.CAPITAL: text.upper(),
                    answers.LOWERCASE: text.lower(),
                    answers.QUOTATION: f'"{text}"',
                }[wish.id]
        turns.append({"role": "user", "content": asked})
        turns.append({"role": "assistant", "content": answer})
    return turns
