"""Claim: the guard keeps no phase by chance, and a harmful phase leaves nothing behind.

A reward that is drawn by lot teaches nothing, though it moves the weights: at most 1 of 20 such
phases may be kept, on instructions and answers that differ from phase to phase. A reward that pays
for wrong fields destroys the domain: every such phase must be rolled back by a guard that measures
the domain, and the run must end with the weights of fine-tuning alone, bit for bit. A sound reward
is there to show that the guard keeps what pays. The embedded model, fine-tuned first.
"""

from __future__ import annotations

import copy
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.shared import (
    cores,
    held,
    machine,
    print_table,
    threads_option,
    write_results,
)

_RATE = 1e-3  # the demo's


@dataclass(frozen=True)
class Phase:
    """What became of one phase."""

    reward: str
    seed: int
    accepted: bool
    before: float
    after: float
    gain_low: float
    loss_rise: float
    forward_kl: float
    guard_s: float
    reinforce_s: float
    verdict: str


@click.command()
@click.option("--phases", type=click.IntRange(min=0), default=20, show_default=True)
@click.option(
    "--names-domain/--probe-alone",
    default=True,
    show_default=True,
    help="Whether the guard of harmful phases measures the domain, or the probe's loss alone.",
)
@click.option("--sound", type=click.IntRange(min=0), default=3, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=12, show_default=True)
@click.option("--fine-tune-steps", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--rows", type=click.IntRange(min=7), default=128, show_default=True)
@click.option("--answers", type=click.IntRange(min=8), default=64, show_default=True)
@threads_option
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
def main(  # noqa: PLR0917 one argument per option
    phases: int,
    names_domain: bool,
    sound: int,
    steps: int,
    fine_tune_steps: int,
    rows: int,
    answers: int,
    threads: int,
    json_file: Path | None,
) -> None:
    """Phases of rewards by lot, of a harmful one and of a sound one."""
    before = machine()
    from benchmarks import training

    training.prepare(min(threads, cores()))
    model, tokenizer = training.load()
    with tempfile.TemporaryDirectory() as folder:
        training.plain_trainer(
            model,
            tokenizer,
            training.instructions(fine_tune_steps * 32, 1),
            folder,
            steps=fine_tune_steps,
            batch_size=32,
            learning_rate=_RATE,
        ).train()
    bench = _Bench(model, tokenizer, steps, rows, answers, names_domain)
    made = [bench.phase("by lot", seed) for seed in range(phases)]
    kept_by_chance = sum(phase.accepted for phase in made)
    paying = [bench.phase("sound", 100 + seed) for seed in range(sound)]
    harmful, is_same = bench.harmful()
    _show([*made, *paying, *harmful])
    by_lot_held = kept_by_chance <= max(1, phases // 20)
    click.echo(
        f"\nby lot: {kept_by_chance} of {phases} kept, at most 1 of 20: {held(by_lot_held)}"
        f"\nharmful: {sum(not p.accepted for p in harmful)} of {len(harmful)} rolled back, weights "
        f"equal fine-tuning alone: {held(is_same and not any(p.accepted for p in harmful))}"
        f"\nsound: {sum(p.accepted for p in paying)} of {sound} kept"
    )
    write_results(
        json_file,
        settings={
            "threads": threads,
            "steps": steps,
            "fine_tune_steps": fine_tune_steps,
            "rows": rows,
            "answers": answers,
            "names_domain": names_domain,
        },
        machine=before,
        results={"by_lot": made, "sound": paying, "harmful": harmful, "same_weights": is_same},
    )


class _Bench:
    """Phases from one fine-tuned model."""

    def __init__(  # noqa: PLR0917 one argument per option
        self,
        model: Any,
        tokenizer: Any,
        steps: int,
        rows: int,
        answers: int,
        names_domain: bool,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.steps = steps
        self.rows = rows
        self.answers = answers
        self.names_domain = names_domain

    def phase(self, reward: str, seed: int) -> Phase:
        """One phase on a copy of the model; ``seed`` is of everything that is drawn."""
        from benchmarks.training import run_one_phase
        from risen_plugin import use

        model = copy.deepcopy(self.model)
        config = self._config(reward, seed, use("after", steps=self.steps))
        with tempfile.TemporaryDirectory() as folder:
            made = run_one_phase(model, self.tokenizer, config, Path(folder))
        phase = _phase(reward, seed, made.record)
        click.echo(
            f"{reward} {seed}: {'kept' if phase.accepted else 'dropped'}: {phase.verdict}", err=True
        )
        return phase

    def harmful(self) -> tuple[list[Phase], bool]:
        """Fine-tuning with harmful phases between, and without: their records, and if both ended
        with the same weights.
        """
        import torch

        from benchmarks.training import instructions, plain_trainer
        from risen_plugin import RisenCallback, use
        from risen_plugin.contracts import Decision

        def never(progress: Any) -> Decision:
            return Decision("fine_tune")

        ends, records = [], []
        for scheduler in (never, use("alternate", fine_tune=5, risen=self.steps)):
            model = copy.deepcopy(self.model)
            with tempfile.TemporaryDirectory() as folder:
                trainer = plain_trainer(
                    model,
                    self.tokenizer,
                    instructions(15 * 32, 2),
                    folder,
                    steps=15,
                    batch_size=32,
                    learning_rate=_RATE / 10,
                )
                callback = RisenCallback(self._config("harmful", 7, scheduler)).attach(trainer)
                trainer.train()
                records = [phase for phase in callback.phases if phase.kind == "risen"]
            ends.append(model.state_dict())
        first, second = ends
        is_same = all(torch.equal(first[name], second[name]) for name in first)
        return [_phase("harmful", number, r) for number, r in enumerate(records, 1)], is_same

    def _config(self, reward: str, seed: int, scheduler: Any) -> Any:
        from risen_export.demo.desk import OrderDesk, RightFields
        from risen_plugin.config import GuardConfig, RisenConfig, Weighted, use
        from risen_plugin.embedded import orders

        drawn = random.Random(seed)
        right = RightFields()
        named: dict[str, Any] = {"domain": Weighted(right), "max_domain_drop": 0.02}

        def by_lot(completions: list[Any], **columns: Any) -> list[float]:
            return [float(drawn.random() < 0.5) for _ in completions]

        def wrong_fields(**columns: Any) -> list[float]:
            return [1.0 - (score or 0.0) for score in right(**columns)]

        rewards: list[Any] = {
            "by lot": [
                Weighted(by_lot, graded=False),
                use("constraints", weight=0.0),
                Weighted(right, weight=0.0),
            ],
            "sound": [use("constraints"), Weighted(right)],
            "harmful": [Weighted(wrong_fields)],
        }[reward]
        return RisenConfig(
            rewards=rewards,
            generator=OrderDesk(),
            scheduler=scheduler,
            probe=orders.draw(self.rows, 30_000 + seed, wish_counts=(0,)),
            guard=GuardConfig(
                rows=self.rows,
                report_rows=0,
                max_probe_loss_rise=0.1,
                batch_size=self.rows,
                **(named if reward == "harmful" and self.names_domain else {}),
            ),
            grpo={
                "num_generations": 8,
                "per_device_train_batch_size": self.answers,
                "max_completion_length": 64,
                "learning_rate": _RATE,
            },
            seed=seed,
        )


def _phase(reward: str, seed: int, record: Any) -> Phase:
    metrics = record.metrics
    return Phase(
        reward,
        seed,
        bool(record.accepted),
        metrics["guard/adherence_strict_before"],
        metrics["guard/adherence_strict_after"],
        metrics["guard/gain_low"],
        metrics["guard/probe_loss_rise"],
        metrics["guard/forward_kl"],
        metrics["guard_s"],
        metrics["reinforce_s"],
        metrics["verdict"],
    )


def _show(phases: list[Phase]) -> None:
    print_table(
        "Phases of rewards by lot, of a sound and of a harmful one",
        [
            "reward",
            "phase",
            "adherence",
            "gain for sure",
            "loss rise",
            "forward KL",
            "guard s",
            "kept",
        ],
        [
            (
                phase.reward,
                str(phase.seed),
                f"{phase.before:.3f} -> {phase.after:.3f}",
                f"{phase.gain_low:+.3f}",
                f"{phase.loss_rise:+.4f}",
                f"{phase.forward_kl:.4f}",
                f"{phase.guard_s:.1f}",
                "yes" if phase.accepted else "no",
            )
            for phase in phases
        ],
    )


if __name__ == "__main__":
    main()
