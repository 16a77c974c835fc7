"""Claim: of 100 generated instructions at most 3 contradict their task or themselves, 5 read oddly.

Prints instructions of the generator ``constraints`` on two files of real tasks, to be read one by
one by a person: no program knows the answer. A seed that the rules were written by proves nothing,
so take a new one.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from benchmarks.shared import ROOT
from risen_plugin.builtin.generators import Constraints

_FILES = ("self_instruct_seed_tasks", "user_oriented_instructions")
_SHOWN = 400  # characters of a task


@click.command()
@click.option("--seed", type=int, required=True, help="A seed not used before.")
@click.option("--count", default=100, show_default=True, help="How many instructions.")
def main(seed: int, count: int) -> None:
    """Print COUNT instructions, each with its task cut short and what is asked beside it."""
    folder = Path(os.environ.get("RISEN_SHARED_DATA", ROOT.parent / "shared" / "data"))
    number = 0
    for place, name in enumerate(_FILES):
        generator = Constraints(
            path=str(folder / f"{name}.jsonl"),
            prompt="instruction",
            append="instances.0.input",
            maximum=3,
            position="both",
            distinct=True,
        )
        share = count // len(_FILES) + (place < count % len(_FILES))
        for row in generator(count=share, seed=seed):
            number += 1
            query, prompt = (row[name][0]["content"] for name in ("query", "prompt"))
            asked = prompt.replace(query.strip(), "[...]", 1)
            click.echo(f"{number}. {' / '.join(query.split(chr(10)))[:_SHOWN]}")
            click.echo(f"   {' / '.join(asked.split(chr(10)))}")
        click.echo(f"   ({name}: {generator.report()})")


if __name__ == "__main__":
    main()
