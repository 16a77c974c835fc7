"""One stretch of GRPO in a process of its own, for ``against_trl``; prints one line of JSON.

The arms share the model, the rows and their order, the reward functions and every setting that is
stated. What ``trl`` leaves unsaid is TRL's default; ``trl-fp32`` states the precision of the
fine-tuning run that a RISEN phase takes over; ``trl-same`` states the rest of it too.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from datasets import Dataset
from peft import LoraConfig
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks import training
from benchmarks.memory import forget_peak, peak_mb, resident_mb
from benchmarks.training import InOrder, Rewards, Row, run_one_phase
from risen_plugin import use
from risen_plugin.config import GuardConfig, LoraSettings, RisenConfig, effective_grpo
from risen_plugin.embedded import orders
from risen_plugin.instructions.rows import derived_seed
from risen_plugin.training.answering import answers
from risen_plugin.training.grpo import GrpoLogs, Plan, train
from risen_plugin.training.seam import checkpointing_setting

Measured = dict[str, float]
ARMS = ("risen", "trl", "trl-fp32", "trl-same")
_RANK, _ALPHA = 16, 32
_UNSAID: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-fp32": {"bf16": False},
    "trl-same": {
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        **checkpointing_setting(GRPOConfig, False),
    },
}


@dataclass(frozen=True)
class Work:
    """What both arms are given.

    :param fields: of ``GRPOConfig``.
    :param steps: GRPO steps.
    """

    model: Any
    tokenizer: Any
    rows: list[Row]
    rewards: Rewards
    fields: dict[str, Any]
    steps: int
    seed: int
    folder: str


@click.command()
@click.argument("arm", type=click.Choice(ARMS))
@click.argument("grpo", metavar="GRPO_FIELDS_AS_JSON")
@click.option("--steps", required=True, type=int)
@click.option("--seed", required=True, type=int)
@click.option("--threads", required=True, type=int)
def main(*, arm: str, grpo: str, steps: int, seed: int, threads: int) -> None:
    """Train once, and print the seconds, rollouts, tokens and peak memory."""
    training.prepare(threads)
    fields = effective_grpo(json.loads(grpo))
    model, tokenizer = training.load()
    count = steps * fields["per_device_train_batch_size"] // fields["num_generations"]
    rows = training.instructions(count, 100 + seed)
    _warm_up(model, tokenizer, rows)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(model, tokenizer, rows, Rewards(), fields, steps, seed, folder)
        before = resident_mb()
        forget_peak()
        measured = _risen(work) if arm == "risen" else _stock(work, _UNSAID[arm])
        measured["peak_mb"] = max(peak_mb(), measured.get("peak_mb", 0.0))
    click.echo(json.dumps({**measured, "resident_before_mb": before}))


def _warm_up(model: Any, tokenizer: Any, rows: list[Row]) -> None:
    """What a process does once: thread pools, kernels, imports.

    A phase comes after fine-tuning and a measurement, so its process is warm in any case.
    """
    prompts = [rows[place % len(rows)]["prompt"] for place in range(64)]
    answers(model, tokenizer, prompts, max_new_tokens=32, batch_size=64)
    ids = torch.tensor([tokenizer.encode("warm")])
    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    model.zero_grad()


def _risen(work: Work) -> Measured:
    guard = GuardConfig(min_gain=-1.0, max_probe_loss_rise=1e9)  # kept: merging is part of it
    held_out = orders.draw(
        guard.rows + guard.report_rows,
        200,
        wish_counts=(1, 1, 2),
        without=orders.prompts(work.rows),
    )
    config = RisenConfig(
        rewards=work.rewards.functions(),
        generator=InOrder(tuple(work.rows)),
        held_out=InOrder(tuple(held_out)),
        scheduler=use("after", steps=work.steps),
        probe=orders.draw(guard.probe_rows, 300, wish_counts=(0,)),
        guard=guard,
        lora=LoraSettings(r=_RANK, alpha=_ALPHA),
        grpo=work.fields,
        seed=work.seed,
    )
    peaks: dict[str, float] = {}
    with mock.patch("risen_plugin.phases.risen.train", partial(_watched_train, peaks)):
        made = run_one_phase(work.model, work.tokenizer, config, Path(work.folder))
    metrics = made.record.metrics
    told = ("enter_s", "leave_s", "guard_s", "rollouts", "tokens")
    return {
        "all_s": made.whole_s - metrics["guard_s"],
        "train_s": metrics["reinforce_s"],
        **{name: metrics[name] for name in told},
        "peak_mb": max(peaks.values()),
        "grpo_peak_mb": peaks["grpo"],
    }


def _watched_train(
    peaks: dict[str, float], trainer: GRPOTrainer, plan: Plan, logs: GrpoLogs
) -> GrpoLogs:
    """GRPO as the phase runs it, its peak of memory apart from the measurements before it."""
    peaks["measuring"] = peak_mb()
    forget_peak()
    train(trainer, plan, logs)
    peaks["grpo"] = peak_mb()
    return logs


def _stock(work: Work, unsaid: dict[str, Any]) -> Measured:
    started = time.perf_counter()
    trainer = GRPOTrainer(
        model=work.model,
        reward_funcs=work.rewards.functions(),
        args=GRPOConfig(
            **work.fields,
            output_dir=work.folder,
            max_steps=work.steps,
            seed=derived_seed(work.seed, "phase", 1),  # a phase's, so that both sample alike
            shuffle_dataset=False,
            use_cpu=True,
            **unsaid,
        ),
        train_dataset=Dataset.from_list(work.rows),
        processing_class=work.tokenizer,
        peft_config=LoraConfig(
            r=_RANK, lora_alpha=_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    built = time.perf_counter()
    trainer.train()
    trained = time.perf_counter()
    return {
        "all_s": trained - started,
        "train_s": trained - built,
        "rollouts": work.rewards.rollouts,
        "tokens": work.rewards.tokens,
    }


if __name__ == "__main__":
    main()
