"""What a model and its graph are asked, so that their answers can be compared.

Prompts with short answers that code can check, prompts of varied length and form, and a text. All
were written for this purpose. Nothing here reads or runs a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from risen_plugin.contracts import Prompt

ANSWER_TOKENS = 24
"""Greedy tokens of each answer that are compared."""
BRIEF_TOKENS = 8
"""The same, where nothing but the exact graph is asked for of a large model."""


@dataclass(frozen=True)
class Golden:
    """A prompt whose right answer holds one of the ``expected`` words, whatever their case.

    It counts where the model itself answers it rightly.
    """

    prompt: Prompt
    expected: tuple[str, ...]


_FACTS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("What is the capital of France?", ("Paris",)),
    ("What is two plus two?", ("4", "four")),
    ("What is the opposite of hot?", ("cold", "cool")),
    ("How many days are in a week?", ("7", "seven")),
    ("Which planet do we live on?", ("Earth",)),
    ("What colour is grass?", ("green",)),
    ("Which animal says meow?", ("cat",)),
    ("In which country is Tokyo?", ("Japan",)),
)
_TASKS = (
    "Answer in capital letters: what is the name of the sea between Italy and Greece?",
    "List three animals, separated by commas.",
    'Reply as JSON with the key "city".',
    "Write one sentence about the sea.",
    "Who ordered 12 red lamps on Monday? The lamps were paid for by Ünal, and Tero fetched them "
    "on Tuesday from the shop at the corner, where nobody asked him for a receipt.",
    "Repeat: the quick brown fox",
    "In at most five words, say good morning.",
    "Hi",
)
TEXT = (
    "The ferry leaves the northern harbour at a quarter past seven and reaches the island before "
    "nine. In winter it stops running when the ice is thicker than thirty centimetres; then the "
    "post comes by sledge, twice a week, if the weather allows it. Marta, who has kept the shop "
    "for 41 years, knows every family by the things they buy: flour and yeast on Mondays, candles "
    'in November, seeds when the days grow longer. "You can tell the year by the shelves," she '
    "says. Her son wrote a small program that counts what is sold, def total(rows): return "
    "sum(row.price for row in rows), and prints a list on Saturdays. Le bateau du soir est plus "
    "lent, aber er nimmt auch Autos mit. Nobody has missed it twice."
)


@dataclass(frozen=True)
class Probe:
    """What is asked. A prompt is a text or chat messages.

    :param golden: prompts with a right answer.
    :param prompts: others.
    :param texts: read, not answered; perplexity is measured on them.
    """

    golden: Sequence[Golden]
    prompts: Sequence[Prompt]
    texts: Sequence[str] = (TEXT,)

    def brief(self) -> Probe:
        """The first of either kind alone."""
        return Probe(self.golden[:1], self.prompts[:1], ())


def default_probe(
    asked_as: Callable[[str], Prompt],
    prompts: Sequence[Prompt] = (),
    golden: Sequence[Mapping[str, Any]] = (),
    *,
    facts: bool = True,
) -> Probe:
    """Eight questions that small models answer rightly, eight tasks, and a text.

    :param asked_as: the prompt of a question, as the model's template takes it.
    :param prompts: in place of the tasks.
    :param golden: ``{"prompt": ..., "expected": [words]}``, asked beside the questions.
    :param facts: whether those are asked.
    """

    def asked(prompt: Prompt) -> Prompt:
        return asked_as(prompt) if isinstance(prompt, str) else prompt

    questions = [
        *(_FACTS if facts else ()),
        *((one["prompt"], tuple(one["expected"])) for one in golden),
    ]
    return Probe(
        tuple(Golden(asked(prompt), expected) for prompt, expected in questions),
        tuple(map(asked, prompts or _TASKS)),
    )


_CONTEXTS = ("max_position_embeddings", "seq_length", "n_positions", "n_ctx", "max_seq_len")


def context_of(config: Mapping[str, Any]) -> int | None:
    """Most tokens of a row, by a model's ``config.json``; None where it names no limit."""
    named = (config.get(name) for name in _CONTEXTS)
    return next((int(value) for value in named if value), None)


@dataclass(frozen=True)
class Row:
    """One row of token ids, prompt and answer together.

    :param ids: of prompt and answer.
    :param start: where the answer begins; ``len(ids)`` for a text.
    :param prompt: what the ids before ``start`` were made from.
    :param expected: of a golden prompt, else empty.
    :param kind: ``prompt``, ``golden``, ``text``, or ``long`` for a row past a length at which the
        arithmetic changes.
    """

    ids: tuple[int, ...]
    start: int
    prompt: Prompt
    expected: tuple[str, ...] = ()
    kind: str = "prompt"

    @property
    def answer(self) -> tuple[int, ...]:
        """The ids of the answer."""
        return self.ids[self.start :]


def some_of(rows: Sequence[Row]) -> list[Row]:
    """The first row of each kind but texts, and all long ones: what shows the same arithmetic."""
    firsts = {row.kind: row for row in reversed(rows) if row.kind in ("golden", "prompt")}
    return [row for row in rows if row.kind == "long" or row in firsts.values()]


def turning_points(config: Mapping[str, Any]) -> dict[str, int]:
    """The lengths at which a model's arithmetic changes, by name, from its ``config.json``.

    A window, and the length at which long rope scaling takes other factors. Past each of them a
    graph may be wrong that was right before.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = rope if isinstance(rope, Mapping) else {}
    # rope parameters may be given for each type of layer
    nested = [value for value in rope.values() if isinstance(value, Mapping)]
    points: dict[str, int] = {}
    window = config.get("sliding_window")
    if isinstance(window, int) and window > 0:
        points["sliding window"] = window
    for one in [rope, *nested]:
        kind = one.get("rope_type", one.get("type"))
        switch = one.get("original_max_position_embeddings") or config.get(
            "original_max_position_embeddings"
        )
        if kind == "dynamic":
            switch = switch or config.get("max_position_embeddings")
        if kind in ("longrope", "su", "dynamic") and isinstance(switch, int):
            points["rope switch"] = switch
    return points


def long_rows(config: Mapping[str, Any], vocabulary: int, context: int) -> list[tuple[int, ...]]:
    """Rows of ids that reach past every turning point by 16 tokens, as the context allows.

    Ids are spread over the vocabulary by a fixed rule, so that no tokenizer is needed.
    """
    rows = []
    for length in sorted(set(turning_points(config).values())):
        wanted = min(length + 16, context)
        if wanted > length:
            rows.append(tuple((7919 * place + 13) % vocabulary for place in range(1, wanted + 1)))
    return rows
