"""What places for adapters cost a bundle: ``python -m benchmarks.adapters BUNDLE``.

BUNDLE was exported with ``--adapters separate``. Each of its variants for the CPU decodes with the
branches taken out of its graph, with all of them unused, and with an adapter of a given rank on
every projection: for all rows, and one for each row. One thread, and the processor time of that
thread, so that other work on the machine counts less; the ways take turns, medians are shown.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.shared import machine, print_table
from risen_export.bundles import manifest
from risen_export.runtime.adapters import as_values, sites_of
from risen_export.runtime.session import KeyValueCache, open_session

_PROMPT = 32
_STEPS = 16


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--rank", default=16, show_default=True)
@click.option("--rounds", default=9, show_default=True)
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 8), show_default=True)
def main(bundle: Path, rank: int, rounds: int, batches: tuple[int, ...]) -> None:
    """Print milliseconds of processor time of a decode step, and their ratio to no branches."""
    print(machine())
    content = manifest.read(bundle) or {}
    with tempfile.TemporaryDirectory(dir=bundle.parent) as scratch:
        for name, one in content["variants"].items():
            if one["target"] == "cpu":
                plain = without_branches(bundle / name, Path(scratch))
                for batch in batches:
                    measure(bundle / name, plain, rank=rank, rounds=rounds, batch=batch)


def without_branches(folder: Path, scratch: Path) -> Path:
    """The variant's graph without its branches, beside a link to its weights."""
    import onnx

    model = onnx.load(str(folder / manifest.GRAPH), load_external_data=False)
    graph = model.graph
    kept = [node for node in graph.node if "/lora_" not in node.name]
    base = {n.input[0]: n.output[0] for n in graph.node if n.name.endswith("/lora_Add")}
    for node in kept:
        for index, output in enumerate(node.output):
            node.output[index] = base.get(output, output)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)
    for values in (graph.input, graph.initializer):
        for value in [value for value in values if ".lora_" in value.name]:
            values.remove(value)
    path = scratch / folder.name / manifest.GRAPH
    for data in folder.rglob("*data"):
        (scratch / folder.name / data.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (scratch / folder.name / data.relative_to(folder)).hardlink_to(data)
    onnx.save(model, str(path))
    return path


def measure(folder: Path, plain: Path, *, rank: int, rounds: int, batch: int) -> None:
    """Print the table of one variant."""
    graph = folder / manifest.GRAPH
    without, with_branches = open_session(plain, 1), open_session(graph, 1)
    random = np.random.default_rng(0)

    def factors(rows: int) -> Any:
        drawn = {}
        for site in sites_of(with_branches, graph):
            width = rank * len(site.parts)
            drawn[site.down] = random.normal(0, 0.01, (rows, site.inputs, width))
            drawn[site.up] = random.normal(0, 0.01, (rows, width, site.outputs))
        return as_values({key: one.astype(np.float32) for key, one in drawn.items()})

    ways: dict[str, Callable[[], KeyValueCache]] = {}
    room = _PROMPT + _STEPS + 1
    for label, session, values in (
        ("no branches", without, None),
        ("none used", with_branches, None),
        (f"rank {rank}", with_branches, factors(1)),
        (f"rank {rank} for each row", with_branches, factors(batch)),
    ):
        if batch > 1 or "each" not in label:
            ways[label] = lambda s=session, v=values: KeyValueCache(s, batch, room, v)
    times: dict[str, list[float]] = {label: [] for label in ways}
    for _ in range(rounds):
        for label, make in ways.items():
            times[label].append(step_time(make(), batch))
    first = times["no branches"]
    rows = [
        (
            label,
            f"{statistics.median(found):.2f}",
            f"{statistics.median(a / b for a, b in zip(found, first, strict=True)):.3f}",
        )
        for label, found in times.items()
    ]
    print_table(f"{folder.name}, batch {batch}", ("branches", "ms of a step", "ratio"), rows)


def step_time(cache: KeyValueCache, batch: int) -> float:
    """The median processor time of a decode step, in milliseconds."""
    ids = np.full((batch, _PROMPT), 5, dtype=np.int64)
    cache.prefill(ids, np.full(batch, _PROMPT))
    found = []
    for _ in range(_STEPS):
        begun = time.thread_time()
        cache.step(np.full(batch, 5, dtype=np.int64))
        found.append((time.thread_time() - begun) * 1e3)
    return statistics.median(found)


if __name__ == "__main__":
    main()
