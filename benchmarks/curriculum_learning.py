"""Claim: with the curriculum, uniform sampling's gain is reached with fewer rollouts.

Per seed the embedded base is fine-tuned as in the demo, once for all arms. Each arm then runs the
demo's GRPO steps on the demo's own distribution of instructions and is measured on the way,
greedily, on instructions that nobody trains on. Every sampled answer counts as a rollout, also in
groups without variance. What is compared: rollouts until 90 % of the gain that uniform sampling
ends with.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.shared import held, machine, print_table, threads_option, write_results

SHARE = 0.9  # of uniform sampling's gain
LIMIT = 0.6  # of its rollouts
ARMS = ("uniform", "curriculum")


@dataclass(frozen=True)
class Trial:
    """What every arm of every seed is run with; see the options."""

    steps: int
    answers: int
    group: int
    rate: float
    every: int
    reported: int
    curriculum: dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """Held-out strict adherence by rollouts.

    :param flat: share of groups without variance, step by step.
    :param figures: what the pool did.
    """

    points: tuple[tuple[int, float], ...]
    flat: tuple[float, ...]
    figures: dict[str, float]

    @property
    def gain(self) -> float:
        """The mean of the last two measurements, less the first."""
        return statistics.fmean(value for _, value in self.points[-2:]) - self.points[0][1]

    def rollouts_to(self, wanted: float) -> float | None:
        """Rollouts when ``wanted`` was first reached, between two measurements in proportion."""
        for (before, low), (after, high) in zip(self.points, self.points[1:], strict=False):
            if high >= wanted:
                return before + (after - before) * max(0.0, (wanted - low) / (high - low))
        return None


@click.command()
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--steps", default=16, show_default=True, help="GRPO steps.")
@click.option("--answers", default=64, show_default=True, help="Sampled answers of one step.")
@click.option("--group", default=8, show_default=True, help="Answers to one instruction.")
@click.option("--rate", default=1e-3, show_default=True, help="Learning rate of the steps.")
@click.option("--every", default=1, show_default=True, help="Steps between measurements.")
@click.option("--reported", default=250, show_default=True, help="Held-out instructions.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    help="A field of CurriculumConfig as JSON; may be given several times.",
)
@click.option("--arm", "arms", multiple=True, type=click.Choice(ARMS), default=ARMS)
@threads_option
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the settings, the machine and every curve to this file.",
)
def main(
    *,
    seeds: Sequence[int],
    steps: int,
    answers: int,
    group: int,
    rate: float,
    every: int,
    reported: int,
    changes: Sequence[str],
    arms: Sequence[str],
    threads: int,
    json_file: Path | None,
) -> None:
    """Compare the curriculum with uniform sampling by rollouts to the same gain."""
    before = machine()
    from benchmarks import training

    training.prepare(threads)
    fields = {name: json.loads(value) for name, _, value in (c.partition("=") for c in changes)}
    trial = Trial(steps, answers, group, rate, every, reported, fields)
    results: dict[int, dict[str, Curve]] = {}
    rows, ratios = [], []
    for seed in seeds:
        curves = results[seed] = _seed(seed, trial, arms)
        for arm, curve in curves.items():
            click.echo(f"seed {seed} {arm}: " + " ".join(f"{n}:{v:.3f}" for n, v in curve.points))
            click.echo("    without variance: " + " ".join(f"{share:.2f}" for share in curve.flat))
            click.echo(f"    {curve.figures}")
        if "uniform" not in curves:
            continue
        uniform = curves["uniform"]
        wanted = uniform.points[0][1] + SHARE * uniform.gain
        needed = {arm: curve.rollouts_to(wanted) for arm, curve in curves.items()}
        ratio = _ratio(needed.get("curriculum"), needed["uniform"])
        ratios.append(ratio)
        rows.append(
            (
                str(seed),
                f"{uniform.points[0][1]:.3f}",
                f"{uniform.gain:.3f}",
                f"{wanted:.3f}",
                *(_shown(needed.get(arm)) for arm in ARMS),
                _shown(ratio, 2),
            )
        )
    if rows:
        head = ("seed", "before", "uniform's gain", "wanted", *ARMS, "ratio")
        print_table(f"Rollouts to {SHARE:.0%} of uniform sampling's gain", head, rows)
        known = [ratio for ratio in ratios if ratio is not None]
        is_held = len(known) == len(ratios) and statistics.fmean(known) <= LIMIT
        click.echo(f"\nat most {LIMIT:g} times the rollouts in the mean: {held(is_held)}")
    write_results(
        json_file,
        settings={"seeds": seeds, "trial": trial},
        machine=before,
        results={"curves": results, "ratios": ratios},
    )


def _ratio(of: float | None, over: float | None) -> float | None:
    return None if of is None or not over else of / over


def _shown(value: float | None, digits: int = 0) -> str:
    return "not reached" if value is None else f"{value:.{digits}f}"


def _seed(seed: int, trial: Trial, arms: Sequence[str]) -> dict[str, Curve]:
    from transformers import set_seed

    from benchmarks import training
    from risen_export.demo.settings import FULL
    from risen_export.demo.stages import Desk
    from risen_plugin.config import CurriculumConfig

    desk = Desk(dataclasses.replace(FULL, reported=trial.reported), seed, None)
    set_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        training.plain_trainer(
            desk.model,
            desk.tokenizer,
            desk.data.train,
            folder,
            steps=FULL.fine_tune_steps,
            batch_size=FULL.batch_size,
            learning_rate=FULL.peak,
            schedule="linear",
        ).train()
        curves = {}
        for arm in arms:
            curriculum = None if arm == "uniform" else CurriculumConfig(**trial.curriculum)
            set_seed(seed)
            model = copy.deepcopy(desk.model)
            curves[arm] = _arm(desk, model, Path(folder) / arm, trial=trial, curriculum=curriculum)
    return curves


def _arm(desk: Any, model: Any, folder: Path, *, trial: Trial, curriculum: Any) -> Curve:
    from transformers import TrainerCallback, TrainingArguments

    from risen_plugin.config import effective_grpo
    from risen_plugin.instructions.supply import Instructions
    from risen_plugin.rewards.adherence import grade, verdicts
    from risen_plugin.rewards.batch import PassRates
    from risen_plugin.rewards.panel import Panel
    from risen_plugin.run.assembly import assemble
    from risen_plugin.training.clean_room import clean_room
    from risen_plugin.training.grpo import Plan, build_trainer, train

    config = desk.risen_config()
    parts = assemble(config)
    instructions = Instructions(
        parts.generator, parts.held_out, parts.asked, config.seed, curriculum=curriculum
    )
    instructions.set_apart(config.guard.rows, config.guard.report_rows)
    instructions.store_pool(folder / "pool.sqlite")
    rates = PassRates()
    panel = Panel(parts.rewards, listeners=[rates.take, instructions.take])
    panel.begin(group=trial.group)
    if curriculum is not None:  # as a phase does with what its guard has measured anyway
        told = _answers(desk, model, instructions.held_out.guard)
        instructions.count_measured(
            verdicts(parts.rewards, grade(parts.rewards, instructions.held_out.guard, told))
        )
    points = [(0, _adherence(desk, model))]

    class Measure(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % trial.every == 0:
                with clean_room(kwargs["model"], desk.tokenizer):
                    points.append((rates.rollouts, _adherence(desk, kwargs["model"])))

    plan = Plan(
        steps=trial.steps,
        grpo=effective_grpo(
            config.grpo,
            {
                "per_device_train_batch_size": trial.answers,
                "num_generations": trial.group,
                "learning_rate": trial.rate,
            },
        ),
        lora=config.lora,
        seed=config.seed,
        output_dir=str(folder),
        label="curriculum" if curriculum else "uniform",
    )
    trainer = build_trainer(
        model,
        desk.tokenizer,
        panel.trl_rewards,
        lambda count: instructions.next(count, rates.rates()),
        outer=TrainingArguments(str(folder), use_cpu=True, report_to=[]),
        plan=plan,
    )
    trainer.add_callback(Measure())
    logs = train(trainer, plan)
    flat = [log["frac_reward_zero_std"] for log in logs.entries if "frac_reward_zero_std" in log]
    figures = {name: round(value, 4) for name, value in instructions.figures().items()}
    instructions.close_pool()
    return Curve(tuple(points), tuple(flat), figures)


def _adherence(desk: Any, model: Any) -> float:
    from risen_export.demo.stages import score_instructions

    rows = desk.data.instructions
    return float(score_instructions(rows, _answers(desk, model, rows))["adherence_strict"])


def _answers(desk: Any, model: Any, rows: Sequence[Any]) -> list[Any]:
    from risen_plugin.training.answering import answers_to

    return answers_to(
        model,
        desk.tokenizer,
        rows,
        max_new_tokens=desk.settings.answer_tokens,
        batch_size=desk.settings.measured_at_once,
    )


if __name__ == "__main__":
    main()
