"""Claim: a RisenCallback that never chooses RISEN costs under 1 % of an optimizer step.

A difference of two runs cannot resolve 1 % of a step on a machine that does anything else, so the
time spent inside the callback's own event handlers is measured as well; that is the number the
claim is judged by.
"""

from __future__ import annotations

import copy
import gc
import itertools
import tempfile
import time
from collections import defaultdict
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
    threads_option,
    write_results,
)

LIMIT = 0.01
_NEVER = 1_000_000_000  # fine-tuning steps before the first RISEN phase
_ONCE = ("on_init_end", "on_train_begin", "on_train_end")
_LONG_RUN = 10_000  # logged losses, for what a late step of a long run costs


@dataclass(frozen=True)
class Run:
    """One run: seconds of each step, and of the callback's handlers by event."""

    steps_s: list[float]
    handlers_s: dict[str, list[float]]

    @property
    def handling_s(self) -> float:
        """Seconds inside the callback per step, what happens once a run left out."""
        spent = sum(sum(v) for event, v in self.handlers_s.items() if event not in _ONCE)
        return spent / (len(self.steps_s) + 1)  # the last step is not timed: it has no next


@click.command()
@click.option("--steps", default=40, show_default=True, help="Optimizer steps of each run.")
@click.option("--batch", default=32, show_default=True, help="Rows of one step.")
@threads_option
@measuring(repeats=7)
def main(steps: int, batch: int, threads: int, repeats: int, json_file: Path | None) -> None:
    """Time a plain Trainer with and without an idle RisenCallback."""
    before = machine()
    from benchmarks import training
    from risen_plugin.embedded import orders

    training.prepare(threads)
    model, tokenizer = training.load()
    rows = orders.draw(2000, 1)
    with tempfile.TemporaryDirectory() as folder:
        run = partial(_run, model, tokenizer, rows, folder, batch=batch)
        run(steps=2, idle=True)  # warms up
        runs = interleave(
            {
                "without": partial(run, steps=steps, idle=False),
                "with": partial(run, steps=steps, idle=True),
            },
            repeats,
        )
    steps_s = {name: [Spread.of(r.steps_s).median for r in made] for name, made in runs.items()}
    # Both arms of a round see the same batches, so each step is compared with its twin.
    twins = [
        ratio(a.steps_s, b.steps_s).median
        for a, b in zip(runs["with"], runs["without"], strict=True)
    ]
    handling = [r.handling_s for r in runs["with"]]
    share = ratio(handling, steps_s["without"])
    late = _late_step(model, tokenizer)
    results: dict[str, Any] = {
        "step_s": {name: Spread.of(values) for name, values in steps_s.items()},
        "with_over_without": Spread.of(twins),
        "handlers_s_per_step": Spread.of(handling),
        "handlers_share": share,
        "events_s_per_call": {
            event: Spread.of([s for r in runs["with"] for s in r.handlers_s[event]])
            for event in sorted(runs["with"][0].handlers_s)
        },
        "late_on_step_end_s": late,
        "late_share": late.median / Spread.of(steps_s["without"]).median,
    }
    print_table(
        f"Idle callback, {repeats} interleaved runs of {steps} steps of {batch} rows",
        ("", "median (least to most)"),
        [
            ("step without the callback, ms", results["step_s"]["without"].show(1, 1e3)),
            ("step with it, ms", results["step_s"]["with"].show(1, 1e3)),
            ("ratio of twin steps, with / without", results["with_over_without"].show(4)),
            ("inside the callback per step, µs", results["handlers_s_per_step"].show(1, 1e6)),
            ("its share of a step, %", share.show(4, 100)),
            (f"a step after {_LONG_RUN:,} logged losses, µs", late.show(1, 1e6)),
            ("its share of a step, %", f"{results['late_share'] * 100:.4f}"),
        ],
    )
    once = {e: s for e, s in results["events_s_per_call"].items() if e in _ONCE}
    shown = ", ".join(f"{event} {spread.show(1, 1e3)} ms" for event, spread in once.items())
    click.echo(f"\nonce per run, not counted above: {shown}")
    click.echo(f"under {LIMIT:.0%} of a step: {held(share.most < LIMIT)}")
    settings = {"steps": steps, "batch": batch, "threads": threads, "repeats": repeats}
    write_results(json_file, settings=settings, machine=before, results=results)


def _run(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    folder: str,
    *,
    steps: int,
    batch: int,
    idle: bool,
) -> Run:
    from transformers import TrainerCallback

    from benchmarks.training import plain_trainer, timed

    class Watch(TrainerCallback):
        """When each step began; a step ends where the next begins, other callbacks included."""

        begun: list[float] = []  # noqa: RUF012 one run per class

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.begun.append(time.perf_counter())

    watch = Watch()
    trainer = plain_trainer(
        copy.deepcopy(model),
        tokenizer,
        rows,
        folder,
        steps=steps + 1,
        batch_size=batch,
        learning_rate=1e-3,
        callbacks=[watch],
    )
    spent: dict[str, list[float]] = defaultdict(list)
    if idle:
        callback = _idle_callback().attach(trainer)
        for event in (name for name in dir(callback) if name.startswith("on_")):
            setattr(callback, event, timed(getattr(callback, event), spent[event].append))
    trainer.train()
    gc.collect()
    begun = watch.begun
    return Run(
        [b - a for a, b in itertools.pairwise(begun)],
        {event: seconds for event, seconds in spent.items() if seconds},
    )


def _idle_callback() -> Any:
    from risen_export.demo.desk import OrderDesk
    from risen_plugin import RisenCallback, use
    from risen_plugin.embedded import orders

    return RisenCallback(
        rewards=[use("constraints")],
        generator=OrderDesk(),
        scheduler=use("alternate", fine_tune=_NEVER, risen=1),
        probe=orders.draw(128, 2, wish_counts=(0,)),
    )


def _late_step(model: Any, tokenizer: Any) -> Spread:
    """What the handler of a step costs late in a run that has logged a loss at each step."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from benchmarks.training import timed

    callback = _idle_callback()
    state, control = TrainerState(), TrainerControl()
    state.max_steps = 2 * _LONG_RUN
    spent: list[float] = []
    step_end = timed(callback.on_step_end, spent.append)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(folder, use_cpu=True, report_to="none", disable_tqdm=True)
        callback.on_train_begin(args, state, control, model=model, processing_class=tokenizer)
        for step in range(_LONG_RUN):
            state.global_step = step
            callback.on_log(args, state, control, logs={"loss": 1.0})
        for _ in range(200):
            step_end(args, state, control)
        callback.on_train_end(args, state, control)
    return Spread.of(spent)


if __name__ == "__main__":
    main()
