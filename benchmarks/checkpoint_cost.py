"""Claim: what makes a run resumable adds at most 3 % to a phase.

Runs a phase by the defaults on the embedded model, in a Trainer that saves, and times the
checkpoint that is forced before the phase, its completion by RISEN, and those of the phase itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import click

from benchmarks.shared import (
    Spread,
    machine,
    measuring,
    print_table,
    threads_option,
    write_results,
)

_STEPS = 10


@click.command()
@threads_option
@measuring(repeats=3)
def main(threads: int, repeats: int, json_file: Path | None) -> None:
    """Time the checkpoints of a run with a phase."""
    before = machine()
    from benchmarks import training

    training.prepare(threads)
    runs = [_run() for _ in range(repeats)]
    told = {name: Spread.of([run[name] for run in runs]) for name in runs[0]}
    print_table(
        f"One phase of {_STEPS} GRPO steps on the embedded model",
        ("what", "median (least to most)"),
        [(name, spread.show(4)) for name, spread in told.items()],
    )
    settings = {"steps": _STEPS, "threads": threads, "repeats": repeats}
    write_results(json_file, settings=settings, machine=before, results={"runs": runs})


def _run() -> dict[str, float]:
    from benchmarks import training
    from risen_plugin import RisenCallback, RisenConfig, use
    from risen_plugin.phases.checkpoints import PhaseCheckpoints
    from risen_plugin.run.resuming import Resuming

    model, tokenizer = training.load()
    spent: dict[str, list[float]] = {"phase": [], "complete": [], "save": []}
    sizes: list[int] = []
    write, complete = PhaseCheckpoints.write, Resuming.complete

    def weighed(self: PhaseCheckpoints, *arguments: Any, **given: Any) -> None:
        write(self, *arguments, **given)
        newest = max(self.path.glob("step-*"))
        sizes.append(sum(path.stat().st_size for path in newest.iterdir()))

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(
            PhaseCheckpoints, "write", training.timed(weighed, spent["phase"].append)
        ),
        mock.patch.object(Resuming, "complete", training.timed(complete, spent["complete"].append)),
    ):
        trainer = training.plain_trainer(
            model,
            tokenizer,
            training.instructions(1, 0),
            folder,
            steps=2,
            batch_size=1,
            learning_rate=0.0,
        )
        trainer.args.save_strategy = type(trainer.args.save_strategy)("steps")
        save: Any = trainer._save_checkpoint
        trainer._save_checkpoint = training.timed(save, spent["save"].append)  # type: ignore[method-assign]
        config = RisenConfig(
            rewards=training.Rewards().functions(),
            generator=training.InOrder(tuple(training.instructions(256, 1))),
            scheduler=use("after", steps=_STEPS, at=1),
            probe=training.instructions(16, 2),
        )
        callback = RisenCallback(config).attach(trainer)
        trainer.train()
    [record] = [phase for phase in callback.phases if phase.kind == "risen"]
    whole = sum(record.metrics[name] for name in ("guard_s", "enter_s", "reinforce_s", "leave_s"))
    return {
        "forced checkpoint by the Trainer, s": spent["save"][0],
        "completing it, s": spent["complete"][0],
        "checkpoints of the phase": len(spent["phase"]),
        "one of them, s": sum(spent["phase"]) / len(spent["phase"]),
        "one of them, MB": max(sizes) / 1e6,
        "all of them, share of the phase": sum(spent["phase"]) / whole,
        "all of them and completing, share": (sum(spent["phase"]) + spent["complete"][0]) / whole,
        "with the forced one, share": (sum(map(sum, spent.values())) / whole),
    }


if __name__ == "__main__":
    main()
