"""Kill runs at random moments, resume them, and compare with the uninterrupted run.

``python benchmarks/kills.py --kills 30``. A third of the kills comes after a random time, the
others at the n-th time that something happens: a forward pass, a score, a file half written.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.shared import machine
from tests.integration.kill_run import POINTS, differences, runner


def drawn(rng: random.Random, counts: dict[str, int], seconds: float) -> dict[str, Any]:
    """One kill: a moment by the clock, or by what happens."""
    if rng.random() < 1 / 3:
        return {"after_s": round(rng.uniform(0.1, 0.95) * seconds, 2)}
    point = rng.choice([point for point in POINTS if counts.get(point)])
    return {"kill": [point, rng.randint(1, counts[point])]}


@click.command()
@click.option("--kills", default=30, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--gpu", is_flag=True, help="Train on a GPU, with deterministic algorithms.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(kills: int, seed: int, gpu: bool, as_json: bool) -> None:
    """Kill, resume, compare."""
    rng = random.Random(seed)
    place = Path(tempfile.mkdtemp(prefix="kills-"))
    results: list[dict[str, Any]] = []
    with runner(gpu=gpu) as run:
        whole = place / "whole"
        seconds = run(whole)["s"]
        counts = json.loads((whole / "counts.json").read_text())
        for number in tqdm(range(kills), unit="kill", disable=as_json):
            folder = place / f"run-{number}"
            job = drawn(rng, counts, seconds)
            killed = run(folder, **job)["code"]
            if killed == 0:
                results.append({**job, "was_killed": False, "differences": []})
                continue
            ended = run(folder)["code"]
            wrong = differences(whole, folder) if ended == 0 else [f"the resumed run: {ended}"]
            results.append({**job, "was_killed": killed == -9, "differences": wrong})
            print(number, results[-1], file=sys.stderr, flush=True)
            if not wrong:
                shutil.rmtree(folder)
    failed = [result for result in results if result["differences"]]
    if not failed:
        shutil.rmtree(place)
    told = {
        "machine": machine(),
        "kills": sum(result["was_killed"] for result in results),
        "ended_before": sum(not result["was_killed"] for result in results),
        "equal": len(results) - len(failed),
        "results": results,
    }
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        for result in results:
            print(result)
        print(f"{told['kills']} kills, {told['equal']} runs equal, {len(failed)} not")
    if failed:
        raise SystemExit(f"see {place}")


if __name__ == "__main__":
    main()
