"""Claim: recording adds at most 3 % to a RISEN phase.

Runs phases of the embedded model with the demo's rewards in a plain Trainer, and times each call
that records something inside them: the log of answers with what became of each constraint, the
adapter, ``phase.json``, the events, the loggers. The guard's measuring is counted as part of the
phase, and pass rates by constraint as recording, since they decide nothing. Told in CPU seconds,
which other work on the machine changes little.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import click

from benchmarks.shared import (
    Spread,
    held,
    machine,
    measuring,
    print_table,
    threads_option,
    write_results,
)

LIMIT = 0.03
_WHOLE = "the phase"
_PART = {
    "run": _WHOLE,
    "add": "log of answers",
    "close": "log of answers",
    "event": "events",
    "save_adapter": "adapter",
    "write": "checkpoints of the phase",
    "_write": "phase.json",
    "counts_by_constraint": "pass rates by constraint and family",
    "counts_by_family": "pass rates by constraint and family",
    "log_series": "loggers",
    "log": "loggers",
}


@click.command()
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True)
@threads_option
@measuring(repeats=3)
def main(steps: int, threads: int, repeats: int, json_file: Path | None) -> None:
    """Time what recording takes of a RISEN phase."""
    before = machine()
    from benchmarks import training

    training.prepare(threads)
    model, tokenizer = training.load()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats + 1):
            run = _phase(model, tokenizer, Path(folder) / str(number), steps)
            if number:  # the first one warms up
                runs.append(run)
    parts = sorted({part for run in runs for part in run[1]})
    shares = [sum(spent.values()) / whole for whole, spent in runs]
    rows = [("phase, CPU s", Spread.of([whole for whole, _ in runs]).show(2), "")]
    for part in parts:
        spent = [run[1][part] for run in runs]
        share = Spread.of([run[1][part] / run[0] for run in runs])
        rows.append((f"{part}, CPU ms", Spread.of(spent).show(1, 1e3), share.show(2, 100)))
    whole = Spread.of(shares)
    rows.append(("all recording", "", whole.show(2, 100)))
    title = f"Recording in a phase of {steps} GRPO steps of 64 rollouts, {repeats} phases"
    print_table(title, ("", "median (least to most)", "% of the phase"), rows)
    click.echo(f"\nat most {LIMIT:.0%} of a phase: {held(whole.most <= LIMIT)}")
    results = {
        "share": whole,
        "phase_s": [seconds for seconds, _ in runs],
        "parts_s": [spent for _, spent in runs],
    }
    settings = {"steps": steps, "threads": threads, "repeats": repeats}
    write_results(json_file, settings=settings, machine=before, results=results)


def _phase(model: Any, tokenizer: Any, folder: Path, steps: int) -> tuple[float, dict[str, float]]:
    """Seconds of one kept phase, and of what was recorded in it, by part."""
    from benchmarks.training import InOrder, Rewards, instructions, run_one_phase
    from risen_plugin import use
    from risen_plugin.config import GuardConfig, RisenConfig

    rows = instructions(600, 3)
    config = RisenConfig(
        rewards=Rewards().functions(),
        generator=InOrder(tuple(rows[:400])),
        held_out=InOrder(tuple(rows[400:])),
        scheduler=use("after", steps=steps),
        probe=rows[400:464],
        guard=GuardConfig(rows=64, report_rows=64, min_gain=-1.0, max_probe_loss_rise=1e9),
        grpo={
            "num_generations": 8,
            "per_device_train_batch_size": 64,
            "max_completion_length": 64,
            "learning_rate": 1e-6,
        },
    )
    with _timed() as spent:
        made = run_one_phase(model, tokenizer, config, folder)
    if not made.record.accepted:
        raise click.ClickException(f"unexpected verdict: {made.record.metrics['verdict']}")
    whole = spent.pop(_WHOLE)
    return whole, spent


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    """CPU seconds of the phase that runs in here, and by part of what is recorded in it."""
    from risen_plugin.phases import measuring as ends
    from risen_plugin.phases import trial
    from risen_plugin.phases.checkpoints import PhaseCheckpoints
    from risen_plugin.phases.risen import RisenPhase
    from risen_plugin.record.rollouts import RolloutLog
    from risen_plugin.record.run_record import Record
    from risen_plugin.training.outer_trainer import OuterTrainer

    spent: defaultdict[str, float] = defaultdict(float)

    def counted(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                spent[part] += time.process_time() - started

        return call

    owners: tuple[tuple[Any, tuple[str, ...]], ...] = (
        (RisenPhase, ("run",)),
        (RolloutLog, ("add", "close")),
        (Record, ("event",)),
        (trial, ("save_adapter",)),
        (trial.Trial, ("_write",)),
        (PhaseCheckpoints, ("write",)),
        (ends, ("counts_by_constraint", "counts_by_family")),
        (OuterTrainer, ("log", "log_series")),
    )
    with ExitStack() as patches:
        for owner, names in owners:
            for name in names:
                call = counted(getattr(owner, name), _PART[name])
                patches.enter_context(mock.patch.object(owner, name, call))
        yield spent


if __name__ == "__main__":
    main()
