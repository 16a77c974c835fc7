"""The demo's domain: customers write to an order desk, and someone asks for facts of a message.

Five desks have recorded answers. They all know the facts, but three of them seldom obey the stated
wishes, so fine-tuning on their records teaches the domain, and the wishes only by half.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from risen_plugin.embedded import rows
from risen_plugin.embedded.rows import Desk

ORDERS = "orders"
"""The name of the messages below where a path is asked for, if nothing there has this name."""
FIELDS = ("name", "order", "item", "city", "day")

DESKS = (
    Desk(
        "delivery",
        (
            "Hi, this is {name}. My order {order} for a {item} has not arrived in {city}.",
            "Where is my {item}? Order {order} should have been in {city} on {day}. Yours, {name}",
            "{name} from {city} is still waiting for the {item} of order {order}.",
            "Order {order} was promised for {day}. It is a {item} for {name} in {city}.",
        ),
        obeys=0.97,
        verbose=0.1,
    ),
    Desk(
        "returns",
        (
            "I want to send back the {item} from order {order}. {name}, {city}",
            "The {item} is too big. Please take back order {order}. I live in {city}. {name}",
            "{name} in {city} returns a {item}, order {order}, to be collected on {day}.",
            "Returning order {order}: one {item}. My name is {name}, my city is {city}.",
        ),
        obeys=0.27,
        verbose=0.5,
    ),
    Desk(
        "billing",
        (
            "I paid twice for order {order}, a {item}. Please refund. {name} from {city}",
            "The invoice of order {order} is wrong. I am {name}, and the {item} went to {city}.",
            "{name} asks for a refund of the {item} sent to {city} on {day}, order {order}.",
            "Why was I billed on {day} for a {item}? Order {order}, {name}, {city}.",
        ),
        obeys=0.97,
        verbose=0.1,
    ),
    Desk(
        "damage",
        (
            "The {item} arrived broken on {day}. Order {order}, {city}. Regards, {name}",
            "My {item} has a crack. The order is {order}. I am {name} and live in {city}.",
            "{name} reports a damaged {item} in {city}, order number {order}.",
            "Order {order} came to {city} in pieces. It was a {item}. {name}",
        ),
        obeys=0.27,
        verbose=0.4,
    ),
    Desk(
        "changes",
        (
            "Please change order {order} to a {item} and send it to {city}. {name}",
            "Can order {order} come on {day}? It is the {item} for {name} in {city}.",
            "I moved to {city}. Please send the {item} of order {order} there. Thanks, {name}",
            "{name} wants a {item} instead. The order is {order}, the city is {city}.",
        ),
        obeys=0.27,
        verbose=0.2,
    ),
)


def draw(
    count: int,
    seed: int,
    *,
    wish_counts: Sequence[int] = (0, 1, 1, 2),
    without: Collection[str] = (),
) -> list[dict[str, Any]]:
    """``count`` different rows; none has a prompt that is in ``without``.

    Each row has ``prompt`` and ``completion`` (chat messages), ``answer`` (the asked fields as
    JSON), ``instruction_id_list`` and ``kwargs`` as IFEval writes them, ``obeyed`` (whether the
    desk obeyed each wish) and ``family`` (the desk).
    """
    rng = random.Random(seed)
    seen = set(without)
    drawn: list[dict[str, Any]] = []
    while len(drawn) < count:
        row = _row(rng, wish_counts)
        if row["prompt"][0]["content"] not in seen:
            seen.add(row["prompt"][0]["content"])
            drawn.append(row)
    return drawn


def instructions(count: int = 640) -> list[dict[str, Any]]:
    """Rows of the desk that state two or three constraints, without answers; always the same ones.

    Of one constraint the embedded model misses too little to learn much from.
    """
    columns = ("prompt", "instruction_id_list", "kwargs", "family")
    drawn = draw(count, 0, wish_counts=(2, 2, 3))
    return [{name: row[name] for name in columns} for row in drawn]


def _row(rng: random.Random, wish_counts: Sequence[int]) -> dict[str, Any]:
    desk = rng.choice(DESKS)
    text, fields = rows.message(rng, desk)
    asked = rows.ask(rng, desk, fields, wish_counts)
    return {
        "prompt": [{"role": "user", "content": f"{text}\n\n{asked.text}"}],
        "completion": [{"role": "assistant", "content": asked.answer}],
        "answer": json.dumps(dict(asked.fields)),
        "instruction_id_list": [wish.id for wish in asked.wishes],
        "kwargs": [dict(wish.kwargs) for wish in asked.wishes],
        "obeyed": list(asked.obeyed),
        "family": desk.name,
    }


def prompts(rows_: Iterable[Mapping[str, Any]]) -> set[str]:
    """The texts of the rows' prompts, which other draws can leave out by ``without``."""
    return {row["prompt"][0]["content"] for row in rows_}


def obedience(rows_: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """For each constraint id, the share of rows stating it whose recorded answer obeys it."""
    stated: Counter[str] = Counter()
    met: Counter[str] = Counter()
    for row in rows_:
        for wish, obeyed in zip(row["instruction_id_list"], row["obeyed"], strict=True):
            stated[wish] += 1
            met[wish] += obeyed
    return {wish: met[wish] / stated[wish] for wish in sorted(stated)}


def parse(text: str) -> dict[str, str]:
    """The known fields that an answer states, in lower case, in whatever form."""
    text = text.casefold()
    try:
        loaded = json.loads(text)
    except ValueError:
        loaded = None
    if isinstance(loaded, dict):
        return {key: str(value).strip() for key, value in loaded.items() if key in FIELDS}
    pairs = re.findall(rf"\b({'|'.join(FIELDS)}):[ ]*([^,;\n\"]+)", text)
    return {key: value.strip() for key, value in pairs}


def is_right(text: str, answer: str) -> bool:
    """Whether an answer states exactly the asked fields with the right values."""
    wanted = {key: value.casefold() for key, value in json.loads(answer).items()}
    return parse(text) == wanted
