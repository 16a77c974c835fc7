"""Claim: the generators make valid instructions of real prompts quickly, and read large files flat.

Measures three things: distinct valid instructions per minute on one core from two files of real
tasks, with a third as the evaluation data to keep out; whether a sample of them can be met by an
answer that is built for it; and what a file of a million rows costs.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.memory import resident_mb
from benchmarks.shared import (
    ROOT,
    Spread,
    held,
    interleave,
    machine,
    measuring,
    print_table,
    write_results,
)
from risen_plugin.builtin.generators import Constraints, Jsonl
from risen_plugin.constraints import check_all, parse
from risen_plugin.constraints.made_to_order.construct import satisfying
from risen_plugin.instructions.validity import Validity, ids_and_kwargs, instruction_key

FILES = ("self_instruct_seed_tasks.jsonl", "user_oriented_instructions.jsonl")
EVALUATION = "gsm8k_test.jsonl"
LEAST_PER_MINUTE = 5_000
_FILLER = "x" * 200


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=os.environ.get("RISEN_SHARED_DATA", ROOT.parent / "shared" / "data"),
    show_default="../shared/data",
    help="The folder with the files of tasks.",
)
@click.option("--count", default=5_000, show_default=True, help="Instructions per file and run.")
@click.option("--sample", default=500, show_default=True, help="Instructions to build answers for.")
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the large file.")
@measuring(repeats=3)
def main(
    *, data: Path, count: int, sample: int, rows: int, repeats: int, json_file: Path | None
) -> None:
    """Make instructions of real tasks, build answers for some, and draw from a large file."""
    before = machine()
    made: dict[str, Any] = {}

    def run(name: str) -> dict[str, Any]:
        made[name] = _made(data, name, count)
        return dict(made[name])

    runs = interleave({name: lambda name=name: run(name) for name in FILES}, repeats)
    results: dict[str, Any] = {}
    for name in FILES:
        drawn = made[name].pop("rows")
        answered = _answered(random.Random(0).sample(drawn, min(sample, len(drawn))))
        results[name] = {
            "per_minute": Spread.of([one["per_minute"] for one in runs[name]]),
            "first_s": Spread.of([one["first_s"] for one in runs[name]]),
            "made": len(drawn),
            "distinct_valid": _distinct_valid(drawn),
            "sampled": min(sample, len(drawn)),
            "answered": answered,
            "report": made[name]["report"].as_dict(),
        }
    print_table(
        f"Instructions of 1 to 3 constraints, {count} per run, {repeats} interleaved runs",
        ("", "per minute", "s to the first", "distinct and valid", "answers built that pass"),
        [
            (
                name.removesuffix(".jsonl"),
                each["per_minute"].show(0),
                each["first_s"].show(2),
                f"{each['distinct_valid']} of {each['made']}",
                f"{each['answered']} of {each['sampled']}",
            )
            for name, each in results.items()
        ],
    )
    for name in FILES:
        click.echo(f"{name}: {made[name]['report']}")
    good = all(
        each["per_minute"].least >= LEAST_PER_MINUTE
        and each["distinct_valid"] == each["made"]
        and each["answered"] == each["sampled"]
        for each in results.values()
    )
    click.echo(f"\nat least {LEAST_PER_MINUTE} a minute, all can be met: {held(good)}")
    results["large file"] = large = _large(rows)
    print_table(
        f"A file of {rows} rows",
        ("MB on disk", "MB resident, more than before", "s to the first row", "us a row after it"),
        [
            (
                f"{large['file_mb']:.0f}",
                f"{large['resident_mb']:.1f}",
                f"{large['first_s']:.2f}",
                f"{large['row_us']:.0f}",
            )
        ],
    )
    write_results(
        json_file,
        settings={"count": count, "sample": sample, "rows": rows, "repeats": repeats},
        machine=before,
        results=results,
    )


def _made(data: Path, name: str, count: int) -> dict[str, Any]:
    generator = Constraints(
        path=str(data / name),
        prompt="instruction",
        append="instances.0.input",
        maximum=3,
        position="both",
        against=[str(data / EVALUATION)],
        distinct=True,
    )
    started = time.perf_counter()
    rows = list(generator(count=1, seed=0))
    first_s = time.perf_counter() - started
    rows += generator(count=count - 1, seed=0, start=1)
    minutes = (time.perf_counter() - started) / 60
    return {
        "rows": rows,
        "first_s": first_s,
        "per_minute": len(rows) / minutes,
        "report": generator.report(),
    }


def _distinct_valid(rows: list[Any]) -> int:
    """How many are valid, by a filter that has seen none of them, and no repetition."""
    valid, keys = Validity(distinct=False), set()
    for row in rows:
        if valid.fault_of(row) is None:
            ids, kwargs = ids_and_kwargs(row)
            keys.add(instruction_key(row["query"][0]["content"], ids, [k or {} for k in kwargs]))
    return len(keys)


def _answered(rows: list[Any]) -> int:
    """For how many an answer can be built that passes every check at once."""
    passed = 0
    for number, row in enumerate(rows):
        ids, kwargs = ids_and_kwargs(row)
        constraints = [parse(id_, values) for id_, values in zip(ids, kwargs, strict=True)]
        answer = satisfying(constraints, random.Random(number), row["query"][0]["content"])
        passed += answer is not None and all(check_all(answer, ids, kwargs))
    return passed


def _large(rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for number in range(rows):
                file.write(json.dumps({"prompt": f"Question {number}?", "more": _FILLER}) + "\n")
        generator = Jsonl(path=str(path))
        resident = resident_mb()
        started = time.perf_counter()
        list(generator(count=1, seed=0))
        first_s = time.perf_counter() - started
        started = time.perf_counter()
        drawn = sum(1 for _ in generator(count=2_000, seed=0, start=1))
        return {
            "file_mb": path.stat().st_size / 1e6,
            "resident_mb": resident_mb() - resident,
            "first_s": first_s,
            "row_us": (time.perf_counter() - started) / drawn * 1e6,
        }


if __name__ == "__main__":
    main()
