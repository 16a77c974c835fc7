"""Claim: what each precision costs a real model in quality, and what ``--precision auto`` keeps.

Exports MODEL in several precisions, whether they pass the gate or not, and prints what the gate
measured of each: next-token distributions, perplexity, golden prompts, and strict adherence to
instructions that the generator ``constraints`` makes of real tasks.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.shared import ROOT, machine, print_table, threads_option, write_results
from risen_export import Bundle, GateSettings, export
from risen_export.exporting import Exported
from risen_plugin.builtin.generators import Constraints

FILES = ("self_instruct_seed_tasks.jsonl", "user_oriented_instructions.jsonl")
PRECISIONS = ("fp32", "int8", "int8-fast", "int4", "int4-mixed")
SHORT = {"precisions": ("fp32", "int8"), "rows": 6, "tokens": 16}
QUESTION = "What is the capital of France?"
_LONGEST_QUERY = 400  # characters; longer tasks are reading more than following
_LONGEST_SHOWN = 60
_OWN = (
    "Describe a walk by the sea.",
    "Explain why the sky is blue.",
    "Write a short letter to a neighbour about a party.",
    "Give advice to somebody who learns to cook.",
    "Tell me about the history of tea.",
    "How does a bicycle stay upright?",
    "Recommend a book and say why.",
    "Write a product description of a red lamp.",
)


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=os.environ.get("RISEN_SHARED_DATA", ROOT.parent / "shared" / "data"),
    show_default="../shared/data",
    help="The folder with the files of tasks; a few own ones where it lacks them.",
)
@click.option("--precision", "precisions", multiple=True, default=PRECISIONS, show_default=True)
@click.option("--rows", default=200, show_default=True, help="Instructions to follow.")
@click.option("--tokens", default=128, show_default=True, help="Most tokens of an answer.")
@click.option("--auto", is_flag=True, help="Also export with --precision auto.")
@click.option("--short", is_flag=True, help="Two precisions, few instructions: does it run?")
@click.option("--scratch", type=click.Path(path_type=Path), help="Folder for what is built.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Keep every number.")
@threads_option
def main(  # noqa: PLR0917  click passes them by name
    model: Path,
    data: Path,
    precisions: tuple[str, ...],
    rows: int,
    tokens: int,
    auto: bool,
    short: bool,
    scratch: Path | None,
    json_file: Path | None,
    threads: int,
) -> None:
    """Measure the precisions of MODEL by the gate."""
    before = machine()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if short:
        precisions, rows, tokens = SHORT["precisions"], SHORT["rows"], SHORT["tokens"]
    asked, source = instructions(data, rows)
    gate = GateSettings(instructions=asked, rewards=["constraints"], count=rows, tokens=tokens)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        out = Path(folder) / "bundle"
        started = time.perf_counter()
        made = export(model, out, precisions, gate=gate, force=True)
        seconds = time.perf_counter() - started
        lines = []
        for name, one in made.precisions.items():
            answer = _answer(Bundle.open(out, name))
            lines.append(_line(name, one, answer))
            results[name] = {"exported": one, "answer": answer}
    print_table(
        f"{model.name} by precision, {rows} instructions of {source}, at most {tokens} tokens, "
        f"{threads} threads, {seconds:.0f} s in all",
        (
            "",
            "MB",
            "tokens agree",
            "KL mean",
            "KL p99",
            "perplexity",
            "golden kept",
            "strict adherence (lost, gained)",
            "passes",
            QUESTION,
        ),
        lines,
    )
    if auto:
        results["auto"] = _auto(model, gate, scratch)
    settings = {"model": model.name, "rows": rows, "tokens": tokens, "threads": threads}
    write_results(json_file, settings=settings, machine=before, results=results)


def instructions(data: Path, count: int) -> tuple[list[Mapping[str, Any]], str]:
    """Tasks with one constraint each, and what they were made of."""
    files = [data / name for name in FILES if (data / name).is_file()]
    if not files:
        made = Constraints(prompts=_OWN, maximum=1, distinct=True)
        return list(made(count=count, seed=0)), "a few own tasks"
    rows: list[Mapping[str, Any]] = []
    for place, path in enumerate(files):
        generator = Constraints(
            path=str(path),
            prompt="instruction",
            append="instances.0.input",
            maximum=1,
            longest=_LONGEST_QUERY,
            distinct=True,
        )
        share = count // len(files) + (place < count % len(files))
        rows += generator(count=share, seed=0)
    return rows, "real tasks"


def _answer(bundle: Bundle) -> str:
    [answer] = bundle.generate([[{"role": "user", "content": QUESTION}]], max_new_tokens=24)
    return " ".join(answer.split())


def _line(name: str, one: Exported, answer: str) -> tuple[str, ...]:
    measured = one.measured
    assert measured is not None
    kept = measured.golden - len(measured.golden_lost)
    return (
        name,
        f"{one.bytes / 1e6:.0f}",
        f"{measured.agreement:.1%}",
        f"{measured.kl_mean:.2g}",
        f"{measured.kl_p99:.2g}",
        f"x {measured.perplexity_ratio:.4f}",
        f"{kept} of {measured.golden}",
        f"{measured.adherence or 0.0:.3f} ({measured.adherence_lost}, {measured.adherence_gained})",
        "no" if one.failures else "yes",
        answer[:_LONGEST_SHOWN].replace("|", "/"),
    )


def _auto(model: Path, gate: GateSettings, scratch: Path | None) -> dict[str, Any]:
    """What ``auto`` keeps, and why nothing smaller."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        made = export(model, Path(folder) / "bundle", ["auto"], gate=gate)
    click.echo("")
    for name, reason in made.tried.items():
        click.echo(f"* {name} was not kept: {reason}")
    kept = [*made.precisions]
    click.echo(f"* kept: {', '.join(kept)}")
    return {"kept": kept, "tried": dict(made.tried)}


if __name__ == "__main__":
    main()
