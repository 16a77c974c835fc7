"""Claim: a trained model still tells the facts that it knew, also when its wording differs.

A greedy answer that has two openings of about the same likelihood is one of them by chance, and a
fact that one of them leads to is told or not by chance, too. So each of the questions of fact that
come with the package is asked many times, with sampling, of the model as it was and of each one
that was trained from it, and the shares of answers that tell it are compared.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path

import click

from benchmarks.shared import print_table, threads_option
from risen_plugin.instructions.plain import facts

_TEMPERATURE = 0.5
_TOKENS = 96
_SURE = 0.01  # the chance that a question by itself looks so much worse
_KNOWN = 0.5  # the share of answers from which on a fact counts as known
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.option("--model", required=True, type=_FOLDER, help="The model as it was.")
@click.option("--trained", "folders", multiple=True, type=_FOLDER, help="A model or adapter of it.")
@click.option("--draws", default=32, show_default=True, help="Answers to each question.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Keep the counts here.")
@threads_option
def main(
    model: Path, folders: tuple[Path, ...], draws: int, out: Path | None, threads: int
) -> None:
    """Ask each model every question of fact DRAWS times, and compare."""
    told = {str(folder): ask(folder, draws, threads) for folder in (model, *folders)}
    before = told[str(model)]
    compared = {str(one): compare(before, told[str(one)], draws) for one in folders}
    print_table(
        f"{len(before)} questions of fact, {draws} answers to each at {_TEMPERATURE}",
        ("", "answers that tell it", "facts known", "told less for sure", "more for sure"),
        [
            (str(model), f"{statistics.fmean(before) / draws:.3f}", _known(before, draws), "", ""),
            *(
                (
                    name,
                    f"{statistics.fmean(told[name]) / draws:.3f} (known ones: {one.change:+.3f} "
                    f"± {one.error:.3f})",
                    _known(told[name], draws),
                    f"{len(one.less)} of {one.known}",
                    f"{len(one.more)} of {len(before)}",
                )
                for name, one in compared.items()
            ),
        ],
    )
    asked = [fact.prompt for fact in facts()]
    for name, one in compared.items():
        for at in one.less:
            click.echo(f"{name}: {before[at]} to {told[name][at]} of {draws}: {asked[at]}")
    if out is not None:
        found = {name: asdict(one) for name, one in compared.items()}
        out.write_text(json.dumps({"draws": draws, "told": told, "compared": found}), "utf-8")


@dataclass(frozen=True)
class Compared:
    """How a trained model tells facts beside the one that it was trained from.

    :param known: facts that the model told before in at least half of its answers.
    :param change: of the share of answers that tell them, in the mean.
    :param error: its standard error over questions.
    :param less: places of known facts that are told less often, for sure.
    :param more: places of all facts that are told more often, for sure.
    """

    known: int
    change: float
    error: float
    less: list[int]
    more: list[int]


def compare(before: Sequence[int], after: Sequence[int], draws: int) -> Compared:
    """By how many of ``draws`` answers tell each fact before and after."""
    known = [at for at, count in enumerate(before) if count >= _KNOWN * draws]
    changes = [(after[at] - before[at]) / draws for at in known]
    spread = statistics.stdev(changes) if len(changes) > 1 else 0.0
    return Compared(
        known=len(known),
        change=statistics.fmean(changes) if changes else 0.0,
        error=spread / max(1, len(changes)) ** 0.5,
        less=[at for at in known if chance(after[at], before[at], draws) <= _SURE],
        more=[at for at in range(len(before)) if chance(before[at], after[at], draws) <= _SURE],
    )


def chance(fewer: int, more: int, draws: int) -> float:
    """How likely ``fewer`` or less of the hits of both are in one of two equal halves by chance.

    Fisher's exact test, one-sided, for two samples of ``draws`` each.

    >>> round(chance(0, 5, 5), 4), chance(3, 3, 5) > 0.5
    (0.004, True)
    """
    hits = fewer + more
    ways = comb(2 * draws, hits)
    least = max(0, hits - draws)
    return sum(comb(draws, k) * comb(draws, hits - k) for k in range(least, fewer + 1)) / ways


def ask(folder: Path, draws: int, threads: int) -> list[int]:
    """Of ``draws`` answers to each question, how many tell the fact."""
    from risen_export import export
    from risen_export.engine.engine import Engine
    from risen_export.engine.requests import Request, Sampling
    from risen_export.engine.settings import EngineSettings

    bundle = Path(tempfile.mkdtemp(prefix="facts-")) / "bundle"
    try:
        export(folder, bundle, ("fp32",), check=False)
        settings = EngineSettings(rows=32, threads=threads, context=256, waiting=draws * 100)
        engine = Engine.open(bundle, settings=settings)
        requests = [
            Request(
                tuple(engine.tokenizer.encode([{"role": "user", "content": fact.prompt}])),
                max_new_tokens=_TOKENS,
                sampling=Sampling(temperature=_TEMPERATURE, seed=number),
                n=draws,
            )
            for number, fact in enumerate(facts())
        ]
        answered = engine.run(requests, progress=True)
    finally:
        shutil.rmtree(bundle.parent)
    return [
        sum(fact.is_told_by(one.text) for one in made)
        for fact, made in zip(facts(), answered, strict=True)
    ]


def _known(told: Sequence[int], draws: int) -> str:
    return str(sum(count >= _KNOWN * draws for count in told))


if __name__ == "__main__":
    main()
