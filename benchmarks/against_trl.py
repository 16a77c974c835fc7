"""Claim: a RISEN phase is at least as fast as stock GRPOTrainer on the same work.

Same embedded model, rows, rewards, steps, batch, group, LoRA, learning rate and answer length.
Each run is a process of its own (``grpo_worker``), so that its memory is its own; the arms take
turns. The guard's measurements, which stock TRL does not make, are counted apart and shown.
"""

from __future__ import annotations

import json
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

ARMS = {
    "risen": "RISEN phase",
    "trl": "GRPOTrainer, TRL's defaults",
    "trl-fp32": "GRPOTrainer, fp32",
    "trl-same": "GRPOTrainer, fp32, no checkpointing",
}
Run = dict[str, float]


@click.command()
@click.option("--steps", default=12, show_default=True, help="GRPO steps of each run.")
@click.option("--batch", default=64, show_default=True, help="Rollouts of one step.")
@click.option("--group", default=8, show_default=True, help="Rollouts of one prompt.")
@click.option("--tokens", default=64, show_default=True, help="Longest answer.")
@click.option("--rate", default=1e-3, show_default=True, help="Learning rate.")
@threads_option
@measuring(repeats=5)
def main(
    *,
    steps: int,
    batch: int,
    group: int,
    tokens: int,
    rate: float,
    threads: int,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Compare a RISEN phase with GRPOTrainer as a TRL user writes it; defaults as in risen demo.

    "TRL's defaults" leaves unsaid what a user may leave unsaid: bf16 and gradient checkpointing
    are then on, and a checkpoint is saved at the end. "fp32" states the precision of the
    fine-tuning run. The last one states the rest: no gradient checkpointing, nothing saved.
    """
    before = machine()
    grpo = {
        "num_generations": group,
        "per_device_train_batch_size": batch,
        "max_completion_length": tokens,
        "learning_rate": rate,
    }
    rounds = dict.fromkeys(ARMS, 0)

    def run(arm: str) -> Run:
        rounds[arm] += 1  # each round has rows and a seed of its own
        arguments = ["--steps", steps, "--seed", rounds[arm], "--threads", threads]
        output = run_python(
            "-m", "benchmarks.grpo_worker", arm, json.dumps(grpo), *map(str, arguments),
            environment={"OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
        return dict(json.loads(output.splitlines()[-1]))

    runs = interleave({arm: partial(run, arm) for arm in ARMS}, repeats)
    results = {arm: _figures(made, runs["risen"]) for arm, made in runs.items()}
    print_table(
        f"{steps} steps of {batch} rollouts, {repeats} interleaved runs each, "
        "median (least to most)",
        (
            "",
            "s",
            "RISEN takes",
            "its GRPO takes",
            "rollouts/s",
            "tokens/s",
            "peak MB",
        ),
        [
            (
                title,
                results[arm]["all_s"].show(2),
                "" if arm == "risen" else f"{results[arm]['risen_over_this'].show(3)} x",
                "" if arm == "risen" else f"{results[arm]['risen_grpo_over_this'].show(3)} x",
                results[arm]["rollouts_per_s"].show(1),
                results[arm]["tokens_per_s"].show(0),
                results[arm]["peak_mb"].show(0),
            )
            for arm, title in ARMS.items()
        ],
    )
    risen = results["risen"]
    click.echo(
        f"\nRISEN's seconds hold entering {risen['enter_s'].show(2)}, GRPO "
        f"{risen['train_s'].show(2)} and leaving {risen['leave_s'].show(2)}; the guard's "
        f"measurements come on top: {risen['guard_s'].show(2)} s. Its peak holds the guard's "
        f"measurements; GRPO alone peaks at {risen['grpo_peak_mb'].show(0)} MB; the "
        f"process has {risen['resident_before_mb'].show(0)} MB before any of it"
    )
    verdicts = {
        arm: results[arm]["risen_over_this"].median <= 1.0 for arm in ARMS if arm != "risen"
    }
    for arm, is_held in verdicts.items():
        click.echo(f"at least as fast as {ARMS[arm]}: {held(is_held)}")
    settings = {"steps": steps, **grpo, "threads": threads, "repeats": repeats}
    write_results(json_file, settings=settings, machine=before, results={**results, "runs": runs})


def _figures(made: list[Run], risen: list[Run]) -> dict[str, Any]:
    def all_of(name: str, runs: list[Run]) -> list[float]:
        return [run[name] for run in runs]

    figures = {name: Spread.of(all_of(name, made)) for name in made[0]}
    return {
        **figures,
        "risen_over_this": ratio(all_of("all_s", risen), all_of("all_s", made)),
        "risen_grpo_over_this": ratio(all_of("train_s", risen), all_of("train_s", made)),
        "rollouts_per_s": ratio(all_of("rollouts", made), all_of("all_s", made)),
        "tokens_per_s": ratio(all_of("tokens", made), all_of("all_s", made)),
    }


if __name__ == "__main__":
    main()
