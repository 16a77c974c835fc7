"""Claim: a draw from a pool of a million instructions costs less than a millisecond.

A batch is drawn, answered and committed to the database on disk; its time is shared out over its
instructions. Memory is what the process grew by while the pool was filled, per instruction, and
what the pool counts of its own arrays. Rows are as the constraints generator writes them in size.
"""

from __future__ import annotations

import gc
import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil

from benchmarks.shared import Spread, held, machine, print_table, write_results
from risen_plugin.config import CurriculumConfig
from risen_plugin.instructions.curriculum import Pool
from risen_plugin.instructions.rows import key_of

LIMIT_MS = 1.0
_FILL_AT_ONCE = 4096
_GROUP = 8


@dataclass(frozen=True)
class Cost:
    """What a pool of one size costs.

    :param per_draw_ms: per instruction of a batch: drawn, its answers counted, all committed.
    :param resident_bytes: growth of the process per instruction, the database's cache included.
    """

    size: int
    fill_us: float
    per_draw_ms: Spread
    worst_batch_ms: float
    array_bytes: float
    resident_bytes: float
    disk_bytes: float
    restore_s: float


@click.command()
@click.option("--size", "sizes", type=int, multiple=True, default=(10**3, 10**4, 10**5, 10**6))
@click.option("--batches", default=1000, show_default=True, help="Batches at each size.")
@click.option("--rows", default=8, show_default=True, help="Instructions of a batch.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the settings, the machine and every number to this file.",
)
def main(sizes: tuple[int, ...], batches: int, rows: int, json_file: Path | None) -> None:
    """Time draws from pools of growing size, and measure what they hold in memory."""
    before = machine()
    costs = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            costs.append(_measure(Path(folder) / "pool.sqlite", size, batches, rows))
    print_table(
        f"{batches} batches of {rows} instructions with {_GROUP} answers each",
        (
            *("instructions", "draw, ms", "worst batch, ms", "fill, µs a row"),
            *("arrays, bytes", "process, bytes", "disk, bytes", "restore, s"),
        ),
        [
            (
                f"{cost.size:,}",
                cost.per_draw_ms.show(3),
                f"{cost.worst_batch_ms:.1f}",
                f"{cost.fill_us:.1f}",
                f"{cost.array_bytes:.1f}",
                f"{cost.resident_bytes:.0f}",
                f"{cost.disk_bytes:.0f}",
                f"{cost.restore_s:.2f}",
            )
            for cost in costs
        ],
    )
    is_held = all(cost.per_draw_ms.median < LIMIT_MS for cost in costs)
    click.echo(f"\nunder {LIMIT_MS:g} ms per draw: {held(is_held)}")
    write_results(
        json_file,
        settings={"sizes": sizes, "batches": batches, "rows": rows, "group": _GROUP},
        machine=before,
        results={"costs": costs},
    )


def _measure(path: Path, size: int, batches: int, rows: int) -> Cost:
    process = psutil.Process()
    gc.collect()
    resident = process.memory_info().rss
    pool = Pool(CurriculumConfig(largest=max(size, 1)), 0, key_of, path)
    started = time.perf_counter()
    made = _made(size)
    while len(pool) < size:
        pool.add(list(itertools.islice(made, _FILL_AT_ONCE)))
    fill_us = (time.perf_counter() - started) / size * 1e6
    gc.collect()
    grown = process.memory_info().rss - resident
    spent_ms = []
    for batch in range(batches):
        rng = random.Random(batch)
        started = time.perf_counter()
        drawn = pool.draw(rows)
        keys = [key_of(row["prompt"]) for row in drawn for _ in range(_GROUP)]
        rates = [row["level"] / 4 for row in drawn for _ in range(_GROUP)]
        pool.count_answers(keys, [rng.random() < rate for rate in rates])
        spent_ms.append((time.perf_counter() - started) * 1e3)
    arrays = pool.bytes_in_memory()
    position = pool.state_dict()
    pool.close()
    disk = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    started = time.perf_counter()
    restored = Pool(CurriculumConfig(largest=max(size, 1)), 0, key_of, path)
    restored.load_state_dict(position)
    restore_s = time.perf_counter() - started
    restored.close()
    # Means over ten stretches: a single batch may wait for the disk.
    stretch = max(1, batches // 10)
    means = [
        sum(spent_ms[at : at + stretch]) / len(spent_ms[at : at + stretch]) / rows
        for at in range(0, batches, stretch)
    ]
    return Cost(
        size,
        fill_us,
        Spread.of(means),
        max(spent_ms),
        arrays / size,
        grown / size,
        disk / size,
        restore_s,
    )


def _made(size: int) -> Iterator[dict[str, Any]]:
    for number in range(size):
        text = f"Question {number}: what would you tell a friend about it? " * 6
        yield {
            "prompt": [{"role": "user", "content": f"{text}\n\nUse exactly 3 bullet points."}],
            "instruction_id_list": ["detectable_format:number_bullet_lists"],
            "kwargs": [{"num_bullets": 3}],
            "family": f"family {number % 9}",
            "level": number % 5,
        }


if __name__ == "__main__":
    main()
