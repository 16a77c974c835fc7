"""Claim: IFEval's checks score at least 20,000 pairs of answer and constraint per core second."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.shared import (
    Spread,
    held,
    interleave,
    machine,
    measuring,
    print_table,
    write_results,
)
from risen_plugin.constraints import IFEVAL_IDS, KNOWN, check_all, judge_all, parse
from risen_plugin.constraints.language import language_of
from risen_plugin.constraints.lexicon import FILLERS, NOUNS, PLAIN

LIMIT = 20_000  # pairs per second
WORDS = 100
LANGUAGE = "language:response_language"
PROMPT = "Describe a river and what grows along its banks, please."

Row = tuple[str, list[str], list[dict[str, Any]]]


@click.command()
@measuring(repeats=5)
@click.option("--answers", type=click.IntRange(min=1), default=400, show_default=True)
def main(repeats: int, answers: int, json_file: Path | None) -> None:
    """Check answers of 100 words against all of IFEval's constraints, with sampled kwargs."""
    before = machine()
    language_of("A first text loads the model.")
    ids = sorted(IFEVAL_IDS - {LANGUAGE})
    rows = [_row(number, ids) for number in range(answers)]
    spoken = [_row(number, [LANGUAGE]) for number in range(answers)]
    arms: dict[str, Callable[[], float]] = {
        "check_all, 24 ids": partial(_rate, check_all, rows),
        "judge_all, 24 ids": partial(_rate, judge_all, rows),
        "check_all, the language": partial(_rate, check_all, spoken),
        "check_all, all 25 ids": partial(_rate, check_all, [*rows, *spoken]),
    }
    spreads = {name: Spread.of(rates) for name, rates in interleave(arms, repeats).items()}
    print_table(
        f"{answers} answers of {WORDS} words, {repeats} interleaved runs each, one core",
        ("", "pairs per CPU second, median (least to most)"),
        [(name, spread.show(0)) for name, spread in spreads.items()],
    )
    each = {
        id_: _rate(check_all, [_row(number, [id_]) for number in range(answers)]) for id_ in ids
    }
    slowest = sorted(each, key=each.__getitem__)[:5]
    print_table(
        "The slowest ids",
        ("", "pairs per CPU second"),
        [(id_, f"{each[id_]:.0f}") for id_ in slowest],
    )
    good = spreads["check_all, 24 ids"].median >= LIMIT
    click.echo(f"\nat least {LIMIT} pairs a second without the language detector: {held(good)}")
    write_results(
        json_file,
        settings={"repeats": repeats, "answers": answers, "words": WORDS},
        machine=before,
        results={"pairs_per_second": spreads, "by_id": each},
    )


def _rate(score: Callable[..., Any], rows: list[Row]) -> float:
    """Pairs per second of CPU time; kwargs are parsed each time, as the reward does."""
    begun = time.process_time()
    for text, ids, kwargs in rows:
        score(text, ids, kwargs, PROMPT)
    return sum(len(ids) for _, ids, _ in rows) / (time.process_time() - begun)


def _row(number: int, ids: list[str]) -> Row:
    rng = random.Random(number)
    constraints = [parse(id_, KNOWN[id_].sample(rng, PROMPT)) for id_ in ids]
    return _answer(rng), ids, [constraint.kwargs for constraint in constraints]


def _answer(rng: random.Random) -> str:
    """A hundred words in sentences, with commas, paragraphs, and now and then a list or a mark."""
    words = [rng.choice((*NOUNS, *FILLERS, *PLAIN)) for _ in range(WORDS)]
    text = ""
    for place, word in enumerate(words):
        first, last = place % 9 == 0, place % 9 == 8
        mark = rng.choice(("*", "", "", "", "", "", "", ""))
        text += f"{mark}{word.capitalize() if first else word}{mark}"
        text += (
            rng.choice((". ", "! ", ".\n\n", ".\n* ")) if last else rng.choice((" ",) * 9 + (", ",))
        )
    return text.strip()


if __name__ == "__main__":
    main()
