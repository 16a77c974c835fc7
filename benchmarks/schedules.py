"""Claim: fine-tuning and RISEN together, when measurements decide, beat either alone.

Every schedule gets the same seconds of one thread, from the embedded base on: the demo's data, the
demo's rewards, chunks of the same GRPO steps. What a phase costs, its guard included, is taken off
the fine-tuning; a phase begins only if at least half of it fits. Seconds are the processor's, so
that other work on the machine changes nothing; where there is none they are those of the clock.
Measured at the end, on rows that nobody trains on.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.shared import machine, print_table, threads_option, write_results
from risen_plugin import Decision, Progress

ALLOWED = 0.02  # of domain accuracy below fine-tuning only
FIXED = (
    "fine-tuning only",
    "RISEN only",
    "RISEN, fine-tuning",
    "fine-tuning, RISEN",
    "alternating",
)
MEASURED = ("plateau", "benefit")
ARMS = (*FIXED, *MEASURED)
COLUMNS = ("domain", "trained", "held_out", "retention", "rollouts", "phases", "kept", "seconds")


@dataclass
class Clock:
    """The seconds of a run that are used up.

    :param phase_s: what the latest RISEN phase took, its guard included; a guess before the first.
    """

    seconds: float
    began: float = 0.0
    phase_s: float = 30.0

    @property
    def spent(self) -> float:
        return time.process_time() - self.began

    @property
    def share(self) -> float:
        return self.spent / self.seconds

    @property
    def phases_left(self) -> float:
        """How many RISEN phases the seconds that are left are worth."""
        return (self.seconds - self.spent) / self.phase_s


@dataclass
class Timed:
    """Another scheduler, as long as at least half of a phase fits into the seconds that are left.

    So the runs take the same time in the mean, whatever a phase takes.

    :param knows_the_end: whether the scheduler is told that the run ends where the last phase is
        still to fit, so that it can end with one; the run then ends, whatever it decided.
    :param ends_with_risen: whether the run ends where no further phase fits.
    :param has_ended: whether it has come to that.
    """

    clock: Clock
    scheduler: Callable[[Progress], Decision]
    knows_the_end: bool = False
    ends_with_risen: bool = False
    has_ended: bool = False
    asked: float | None = None

    def __call__(self, progress: Progress) -> Decision:
        if self.asked is not None:
            self.clock.phase_s = self.clock.spent - self.asked
            self.asked = None
        if self.clock.phases_left < 0.5:
            self.has_ended = self.ends_with_risen
            return Decision("fine_tune", reason="the seconds are used up")
        if self.knows_the_end and self.clock.phases_left < 1:
            progress = dataclasses.replace(progress, max_steps=progress.step)
            self.has_ended = True
        decision = self.scheduler(progress)
        if decision.phase == "risen":
            self.asked = self.clock.spent
        return decision


@click.command()
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--arm", "arms", multiple=True, type=click.Choice(ARMS), default=ARMS)
@click.option("--seconds", default=120.0, show_default=True, help="For each run.")
@click.option("--steps", default=10, show_default=True, help="GRPO steps of a phase.")
@threads_option
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the settings, the machine and every figure to this file.",
)
def main(
    *,
    seeds: Sequence[int],
    arms: Sequence[str],
    seconds: float,
    steps: int,
    threads: int,
    json_file: Path | None,
) -> None:
    """Compare schedules that have the same time."""
    before = machine()
    from benchmarks import training

    training.prepare(threads)
    results: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for seed in seeds:
        for arm in arms:
            found = _run(arm, seed, seconds, steps)
            results[arm].append(found)
            click.echo(f"seed {seed} {arm}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
    _show(results)
    write_results(
        json_file,
        settings={"seeds": seeds, "seconds": seconds, "steps": steps},
        machine=before,
        results=results,
    )


def _show(results: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    means = {
        arm: {name: statistics.fmean(run[name] for run in runs) for name in COLUMNS}
        for arm, runs in results.items()
    }
    rows = [
        (
            arm,
            *(f"{mean[name]:.3f}" for name in COLUMNS[:4]),
            f"{mean['rollouts']:.0f}",
            f"{mean['kept']:.1f} of {mean['phases']:.1f}",
            f"{mean['seconds']:.0f}",
        )
        for arm, mean in means.items()
    ]
    head = (
        "schedule",
        "domain accuracy",
        "strict, trained families",
        "strict, held-out family",
        "loss on the base's own corpus",
        "rollouts",
        "phases kept",
        "seconds",
    )
    print_table("Means over the seeds, at equal time", head, rows)
    only = means.get("fine-tuning only")
    if only is None:
        return
    fit = {arm: m for arm, m in means.items() if m["domain"] >= only["domain"] - ALLOWED}
    ranked = sorted(fit, key=lambda arm: fit[arm]["trained"], reverse=True)
    click.echo(f"\nwithin {ALLOWED:g} of fine-tuning's domain accuracy: {', '.join(ranked)}")
    for arm in means.keys() - fit.keys():
        click.echo(f"not within: {arm} ({means[arm]['domain'] - only['domain']:+.3f})")


def _run(arm: str, seed: int, seconds: float, steps: int) -> dict[str, float]:
    from transformers import set_seed

    from benchmarks import training
    from risen_export.demo.settings import FULL
    from risen_export.demo.stages import Desk, StopAfter
    from risen_plugin import RisenCallback
    from risen_plugin.embedded.answers import WISHES

    desk = Desk(dataclasses.replace(FULL, reported=300), seed, None)
    families = sorted({wish.partition(":")[0] for wish in WISHES})
    reserved = random.Random(f"reserve {seed}").choice(families)
    clock = Clock(seconds)
    scheduler = _scheduler(arm, clock, steps)

    class Stop(StopAfter):
        """Ends the run when the processor's seconds are used up, or no phase fits at its end."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.began = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = clock.share >= 1 or scheduler.has_ended

    set_seed(seed)
    rate = 0.0 if arm == "RISEN only" else FULL.peak
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.plain_trainer(
            desk.model,
            desk.tokenizer,
            desk.data.train,
            folder,
            steps=_most_steps(arm, seconds),
            batch_size=1 if arm == "RISEN only" else FULL.batch_size,
            learning_rate=rate,
        )
        callback = RisenCallback(_config(desk, scheduler, reserved)).attach(trainer)
        _evaluates(trainer, desk)
        trainer.add_callback(Stop(seconds))
        began = time.process_time()
        trainer.train()
        spent = time.process_time() - began
    risen = [phase for phase in callback.phases if phase.kind == "risen"]
    return {
        **_measured(desk, reserved),
        "rollouts": float(sum(phase.metrics["rollouts"] for phase in risen)),
        "phases": float(len(risen)),
        "kept": float(sum(bool(phase.accepted) for phase in risen)),
        "seconds": spent,
    }


def _most_steps(arm: str, seconds: float) -> int:
    """Steps of the outer run.

    Those that measure think in shares of the run, so that it has to end where the seconds do: at
    about half of what fine-tuning alone would take, the other half being RISEN's.
    """
    steps = round(seconds / 0.3)  # of the demo's batches, by one thread
    return steps // 2 if arm in MEASURED else 100_000


def _evaluates(trainer: Any, desk: Any) -> None:
    from datasets import Dataset

    from risen_plugin.training.losses import encode_probe

    encoded = encode_probe(desk.tokenizer, desk.data.probe, 512)
    trainer.eval_dataset = Dataset.from_list([{"input_ids": i, "labels": k} for i, k in encoded])
    trainer.args.eval_strategy = "steps"
    trainer.args.eval_steps = 20
    trainer.args.per_device_eval_batch_size = 128


def _config(desk: Any, scheduler: Timed, reserved: str) -> Any:
    config = desk.risen_config()
    guard = dataclasses.replace(config.guard, report_rows=1)  # measured here, at the end
    return dataclasses.replace(config, scheduler=scheduler, guard=guard, reserve=[reserved])


def _scheduler(arm: str, clock: Clock, steps: int) -> Timed:
    from risen_plugin.builtin.schedulers.benefit import Benefit
    from risen_plugin.builtin.schedulers.plateau import Plateau

    def by(chooses: Callable[[float, Progress], bool], *, ends: bool = False) -> Timed:
        """A fixed order: RISEN where ``chooses`` says so, of the share of the seconds."""

        def decide(progress: Progress) -> Decision:
            is_apart = progress.phases[-1].steps >= 1  # a step of the outer run lies between
            chosen = is_apart and chooses(clock.share, progress)
            phase = ("risen", steps) if chosen else ("fine_tune", 0)
            return Decision(*phase, reason="the fixed order")

        return Timed(clock, decide, ends_with_risen=ends)

    fixed: dict[str, Timed] = {
        "fine-tuning only": by(lambda share, progress: False),
        "RISEN only": by(lambda share, progress: True),
        "RISEN, fine-tuning": by(lambda share, progress: share < 0.5),
        "fine-tuning, RISEN": by(lambda share, progress: share >= 0.5, ends=True),
        "alternating": by(lambda share, progress: progress.phases[-1].steps >= 40),
    }
    if arm in fixed:
        return fixed[arm]
    chosen = Plateau(steps=steps, burst=0) if arm == "plateau" else Benefit(steps=steps)
    return Timed(clock, chosen, knows_the_end=True, ends_with_risen=True)


def _measured(desk: Any, reserved: str) -> dict[str, float]:
    from risen_export.demo.stages import score_instructions
    from risen_plugin.embedded import corpus, orders
    from risen_plugin.instructions.held_out import families_of
    from risen_plugin.training.answering import answers_to
    from risen_plugin.training.clean_room import clean_room
    from risen_plugin.training.losses import encode_probe, probe_loss

    def told(rows: Sequence[Any]) -> list[Any]:
        return answers_to(
            desk.model,
            desk.tokenizer,
            rows,
            max_new_tokens=desk.settings.answer_tokens,
            batch_size=desk.settings.measured_at_once,
        )

    rows = desk.data.instructions
    unseen = [row for row in rows if reserved in families_of(row)]
    trained = [row for row in rows if reserved not in families_of(row)]
    with clean_room(desk.model, desk.tokenizer):
        right = [
            orders.is_right(answer[0]["content"], row["answer"])
            for answer, row in zip(told(desk.data.domain), desk.data.domain, strict=True)
        ]
        said = itertools.islice(corpus.conversations(90_000), 200)
        firsts = [{"prompt": turns[:1], "completion": turns[1:2]} for turns in said]
        general = encode_probe(desk.tokenizer, firsts, 512)
        return {
            "domain": sum(right) / len(right),
            "trained": score_instructions(trained, told(trained))["adherence_strict"],
            "held_out": score_instructions(unseen, told(unseen))["adherence_strict"],
            "retention": probe_loss(desk.model, general, batch_size=64),
        }


if __name__ == "__main__":
    main()
