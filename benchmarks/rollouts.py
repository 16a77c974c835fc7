"""Claim: answers sampled on onnxruntime take a fraction of the time, and teach as much.

``sampling``: one generation batch, by TRL's own ways and by the engine, in turn in one process.
``phases``: a RISEN phase end to end beside stock GRPOTrainer, each run a process of its own
(``rollout_worker``), over seeds, with their learning curves and the strict adherence of the int8
bundle that comes of each.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
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
    ratio,
    run_python,
    threads_option,
    write_results,
)

PROMPTS = (
    "Write a short letter to a friend about the sea. Use no commas.",
    "Name three animals and say why they matter, in capital letters only.",
    "Explain what a bridge is for in two paragraphs, and end with a question.",
    "Give me a recipe for bread in bullet points with at least five of them.",
)
SAMPLING = {
    "trl": "TRL, generate, fp32",
    "trl-bf16": "TRL, generate, bf16",
    "trl-continuous": "TRL, continuous batching, fp32",
    "trl-continuous-bf16": "TRL, continuous batching, bf16",
    "fp32": "engine, fp32",
    "int8-fast": "engine, int8-fast",
}
PHASES = {
    "trl-fp32": "GRPOTrainer, fp32",
    "trl-bf16": "GRPOTrainer, bf16 weights",
    "transformers": "RISEN, rollout transformers",
    "fp32": "RISEN, rollout onnx, fp32",
    "int8-fast": "RISEN, rollout onnx, int8-fast",
}
Times = dict[str, float]


@click.group()
def main() -> None:
    """Compare the engine's rollouts with TRL's."""


@main.command()
@click.option("--model", required=True, help="A folder, such as SmolLM2-135M-Instruct's.")
@click.option("--group", default=8, show_default=True, help="Answers to one prompt.")
@click.option("--tokens", default=96, show_default=True, help="Longest answer.")
@click.option("--arms", default=",".join(SAMPLING), show_default=True, help="Ways to compare.")
@threads_option
@measuring(repeats=5)
def sampling(
    *,
    model: str,
    group: int,
    tokens: int,
    arms: str,
    threads: int,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Sample one batch of 4 groups at temperature 0.7, with a LoRA adapter of rank 16.

    Answers may end early, so rates of tokens are compared. CPU seconds of the process stand beside:
    they stay the same where others use the machine too.
    """
    from benchmarks.rollout_worker import Batch

    before = machine()
    batch = Batch(model, group=group, tokens=tokens, threads=threads)
    chosen = {arm: partial(_timed, batch.way(arm)) for arm in arms.split(",")}
    for warm in chosen.values():
        warm()
    runs = interleave(chosen, repeats)
    rates = {
        kind: {arm: [one["tokens"] / one[kind] for one in made] for arm, made in runs.items()}
        for kind in ("seconds", "cpu_s")
    }
    base = next(iter(chosen))
    print_table(
        f"{group * len(PROMPTS)} answers of at most {tokens} tokens, {threads} threads, {repeats} "
        "interleaved rounds, median (least to most)",
        ("", "tokens/s", f"x {base}", "tokens per CPU s", f"x {base}"),
        [
            (
                SAMPLING[arm],
                Spread.of(rates["seconds"][arm]).show(1),
                ratio(rates["seconds"][arm], rates["seconds"][base]).show(2),
                Spread.of(rates["cpu_s"][arm]).show(1),
                ratio(rates["cpu_s"][arm], rates["cpu_s"][base]).show(2),
            )
            for arm in chosen
        ],
    )
    settings = {"group": group, "tokens": tokens, "threads": threads, "repeats": repeats}
    write_results(json_file, settings=settings, machine=before, results={"runs": runs})


def _timed(sample: Callable[[], int]) -> Times:
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sample()
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "tokens": float(tokens),
    }


@dataclass(frozen=True)
class _Arm:
    """The runs of one arm.

    :param curves: of each run, the mean reward of each step.
    """

    seconds: list[float]
    cpu_s: list[float]
    curves: list[list[float]]
    adherence: list[float]

    @classmethod
    def of(cls, runs: list[dict[str, Any]]) -> _Arm:
        names = ("all_s", "cpu_s", "rewards", "int8_adherence")
        return cls(*([run[name] for run in runs] for name in names))

    @property
    def learned(self) -> list[float]:
        """The mean reward of the last quarter of each run."""
        return [statistics.fmean(curve[-max(1, len(curve) // 4) :]) for curve in self.curves]


@main.command()
@click.option("--model", default="", help="A folder; the embedded model if left out.")
@click.option("--steps", default=24, show_default=True, help="GRPO steps of each run.")
@click.option("--batch", default=32, show_default=True, help="Rollouts of one step.")
@click.option("--group", default=8, show_default=True, help="Rollouts of one prompt.")
@click.option("--tokens", default=96, show_default=True, help="Longest answer.")
@click.option("--rate", default=1e-3, show_default=True, help="Learning rate.")
@click.option("--arms", default=",".join(PHASES), show_default=True, help="Ways to compare.")
@threads_option
@measuring(repeats=3)
def phases(
    *,
    model: str,
    steps: int,
    batch: int,
    group: int,
    tokens: int,
    rate: float,
    arms: str,
    threads: int,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Train a phase end to end; each repetition has rows and a seed of its own.

    The seconds of a RISEN phase hold the export of the base, and not the guard's measurements,
    which GRPOTrainer does not make.
    """
    before = machine()
    grpo = {
        "num_generations": group,
        "per_device_train_batch_size": batch,
        "max_completion_length": tokens,
        "learning_rate": rate,
    }
    chosen = arms.split(",")
    rounds = dict.fromkeys(chosen, 0)

    def run(arm: str) -> dict[str, Any]:
        rounds[arm] += 1
        arguments = ["--steps", steps, "--seed", rounds[arm], "--threads", threads]
        more = ["--model", model] if model else []
        output = run_python(
            "-m", "benchmarks.rollout_worker", arm, json.dumps(grpo), *map(str, arguments), *more,
            environment={"OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
        made: dict[str, Any] = json.loads(output.splitlines()[-1])
        # A round takes minutes, and what was measured should not be lost with the rest.
        click.echo(f"{arm}, seed {rounds[arm]}: {json.dumps(made)}", err=True)
        return made

    runs = interleave({arm: partial(run, arm) for arm in chosen}, repeats)
    found = {arm: _Arm.of(made) for arm, made in runs.items()}
    base = found[chosen[0]]
    print_table(
        f"{steps} steps of {batch} rollouts, {repeats} seeds, median (least to most)",
        ("", "s", f"{chosen[0]} takes", "in CPU s", "reward at the end", "int8 adherence"),
        [
            (
                PHASES[arm],
                Spread.of(one.seconds).show(1),
                f"{ratio(base.seconds, one.seconds).show(2)} x",
                f"{ratio(base.cpu_s, one.cpu_s).show(2)} x",
                Spread.of(one.learned).show(3),
                Spread.of(one.adherence).show(3),
            )
            for arm, one in found.items()
        ],
    )
    noise = max(base.learned) - min(base.learned)
    for arm, one in found.items():
        gap = statistics.fmean(one.learned) - statistics.fmean(base.learned)
        is_as_good = gap >= -noise
        click.echo(
            f"{PHASES[arm]}: reward at the end {gap:+.3f} beside {chosen[0]}, whose seeds are "
            f"{noise:.3f} apart: {held(is_as_good)}"
        )
    settings = {"steps": steps, **grpo, "threads": threads, "repeats": repeats}
    write_results(json_file, settings=settings, machine=before, results={"runs": runs})


if __name__ == "__main__":
    main()
