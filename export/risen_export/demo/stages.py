"""The demo's training: fine-tuning with RISEN phases in one run, and the two baselines."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from risen_export.demo.desk import OrderDesk, RightFields
from risen_export.demo.settings import Settings
from risen_export.merging import merge
from risen_export.merging.source import resolve
from risen_plugin import RisenCallback, use
from risen_plugin.builtin.rewards import Constraints
from risen_plugin.config import GuardConfig, LoraSettings, RisenConfig, Weighted
from risen_plugin.contracts import Completion, text_of
from risen_plugin.embedded import base_model, orders
from risen_plugin.rewards.adherence import adherence, grade
from risen_plugin.rewards.calling import wrap
from risen_plugin.training.answering import answers
from risen_plugin.training.asking import Asking, check_chat
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.losses import encode_probe, probe_loss
from risen_plugin.training.protocols import Model

Row = dict[str, Any]
Figures = dict[str, float]


@dataclass(frozen=True)
class Data:
    """Disjoint rows: to train on, for the guard's probe, and to report."""

    train: list[Row]
    probe: list[Row]
    instructions: list[Row]
    domain: list[Row]

    @classmethod
    def draw(cls, settings: Settings, seed: int) -> Data:
        instructions = orders.draw(settings.reported, 10_000 + seed, wish_counts=(1, 1, 2))
        taken = orders.prompts(instructions)
        domain = orders.draw(settings.reported, 20_000 + seed, wish_counts=(0,), without=taken)
        taken |= orders.prompts(domain)
        probe = orders.draw(settings.guarded, 30_000 + seed, wish_counts=(0,), without=taken)
        taken |= orders.prompts(probe)
        train = orders.draw(settings.rows, 40_000 + seed, without=taken)
        return cls(train, probe, instructions, domain)

    @property
    def reported(self) -> frozenset[str]:
        """Prompts that neither the guard nor training may see."""
        return frozenset(orders.prompts(self.instructions) | orders.prompts(self.domain))


class Desk:
    """The model of one demo, with its data, its training and its measurement."""

    def __init__(self, settings: Settings, seed: int, model: str | None) -> None:
        self.settings = settings
        self.seed = seed
        # Read as for an export, which refuses damaged or incomplete files in one line.
        loaded = merge.load(resolve(model or base_model()))
        # The classes of transformers have some of what is used of them at run time alone.
        self.tokenizer: Any = loaded.tokenizer
        self.model: Any = loaded.model
        check_chat(self.tokenizer)
        self.data = Data.draw(settings, seed)

    def figures(self, model: Model, label: str) -> Figures:
        """Adherence, domain accuracy and probe loss on the rows that are only reported."""
        with clean_room(model, self.tokenizer):
            replies = self._answers(model, self.data.instructions, f"{label}: instructions")
            facts = self._answers(model, self.data.domain, f"{label}: domain")
            encoded = encode_probe(self.tokenizer, self.data.domain, 512)
            loss = probe_loss(model, encoded, batch_size=self.settings.measured_at_once)
        followed = score_instructions(self.data.instructions, replies)
        right = [
            orders.is_right(text_of(answer), row["answer"])
            for answer, row in zip(facts, self.data.domain, strict=True)
        ]
        return {**followed, "domain_accuracy": sum(right) / len(right), "probe_loss": loss}

    def fine_tune_with_risen(self, folder: Path) -> tuple[RisenCallback, Before]:
        """One ordinary Trainer, one callback: fine-tuning, then a RISEN phase."""
        settings = self.settings
        set_seed(self.seed)
        before = Before(self)
        trainer = self._trainer(
            self.model,
            self.data.train,
            folder,
            steps=settings.fine_tune_steps,
            schedule="linear",
            callbacks=[before],
        )
        callback = RisenCallback(self.risen_config()).attach(trainer)
        trainer.train()
        trainer.save_model()
        return callback, before

    def risen_config(self) -> RisenConfig:
        """The configuration that a user would write; all other fields have their defaults."""
        settings = self.settings
        return RisenConfig(
            rewards=[use("constraints"), Weighted(RightFields())],
            generator=OrderDesk(without=self.data.reported),
            scheduler=use("after", steps=settings.risen_steps),
            probe=self.data.probe,
            guard=GuardConfig(
                rows=settings.guarded,
                report_rows=0,  # the demo reports on rows of its own, and on more of them
                # Half of the desks begin some answers with a lead-in; settling that coin flip
                # costs up to 0.05 nats per recorded token and no fact.
                max_probe_loss_rise=0.1,
                batch_size=settings.measured_at_once,
            ),
            lora=LoraSettings(r=16, alpha=32),
            grpo={
                "num_generations": settings.group,
                "per_device_train_batch_size": settings.risen_batch,
                "max_completion_length": settings.answer_tokens,
                "learning_rate": settings.risen_rate,
            },
            seed=self.seed,
        )

    def continue_fine_tuning(
        self, before: Before, folder: Path, seconds: float, *, filtered: bool
    ) -> tuple[Model, int]:
        """Continue fine-tuning from before RISEN for ``seconds``, with the optimizer at its peak.

        :param filtered: train only on the recorded answers that the rewards pass.
        """
        rows = passing(self.data.train) if filtered else self.data.train
        set_seed(self.seed + 1)
        model = copy.deepcopy(before.model)
        stop = StopAfter(seconds)
        # More steps than fit: the clock ends it.
        trainer = self._trainer(
            model, rows, folder, steps=100_000, schedule="constant", callbacks=[stop]
        )
        optimizer = trainer.create_optimizer()
        optimizer.load_state_dict(before.optimizer)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = self.settings.peak
        trainer.train()
        return model, trainer.state.global_step

    def _trainer(
        self,
        model: PreTrainedModel,
        rows: Sequence[Row],
        folder: Path,
        *,
        steps: int,
        schedule: str,
        callbacks: list[TrainerCallback],
    ) -> Trainer:
        settings = self.settings
        encoded = encode_probe(self.tokenizer, rows, 512)
        dataset = Dataset.from_list([{"input_ids": i, "labels": k} for i, k in encoded])
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=str(folder),
                max_steps=steps,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.peak,
                lr_scheduler_type=schedule,
                warmup_steps=10 if schedule == "linear" else 0,
                logging_steps=50,
                save_strategy="no",
                report_to=[],
                use_cpu=not torch.cuda.is_available(),
                dataloader_pin_memory=False,
                disable_tqdm=False,
                seed=self.seed,
            ),
            train_dataset=dataset,
            data_collator=DataCollatorForSeq2Seq(self.tokenizer),
            processing_class=self.tokenizer,
            callbacks=callbacks,
        )
        trainer.remove_callback(ProgressCallback)
        if schedule == "linear":
            trainer.add_callback(_Bar())
        return trainer

    def _answers(self, model: Model, rows: Sequence[Row], label: str) -> list[Completion]:
        most = {"max_completion_length": self.settings.answer_tokens}
        made = answers(
            model,
            Asking(self.tokenizer, most),
            [row["prompt"] for row in rows],
            batch_size=self.settings.measured_at_once,
            progress=label,
        )
        return list(made.completions)


class Before(TrainerCallback):
    """Measures the model after fine-tuning, just before RISEN, and copies it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.model: Any = None
        self.optimizer: dict[str, Any] = {}
        self.figures: Figures = {}
        self.seconds = 0.0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step != state.max_steps:
            return
        started = time.monotonic()
        self.figures = self.desk.figures(kwargs["model"], "before RISEN")
        self.model = copy.deepcopy(kwargs["model"])
        self.optimizer = copy.deepcopy(kwargs["optimizer"].state_dict())
        self.seconds = time.monotonic() - started


class _Bar(ProgressCallback):
    """The Trainer's progress bar, with the loss beside it instead of dictionaries below it."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3f}")


class StopAfter(TrainerCallback):
    """Ends a run after ``seconds`` of wall-clock time, behind a progress bar of seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started = 0.0
        self.bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started = time.monotonic()
        self.bar = tqdm(total=round(self.seconds), desc="fine-tuning on", unit="s", leave=False)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        spent = time.monotonic() - self.started
        self.bar.update(min(round(spent), self.bar.total) - self.bar.n)
        if spent >= self.seconds:
            self.bar.close()
            control.should_training_stop = True


def score_instructions(rows: Sequence[Row], completions: Sequence[Completion]) -> Figures:
    """Strict and soft adherence of answers to their constraints."""
    rewards = [wrap(Constraints(), "constraints", "reward 'constraints'")]
    measured = adherence(rewards, grade(rewards, rows, completions))
    return {"adherence_strict": measured.strict, "adherence_soft": measured.soft}


def passing(rows: Sequence[Row]) -> list[Row]:
    """The recorded rows whose answer passes both rewards."""
    rewards = [
        wrap(Constraints(), "constraints", "reward 'constraints'"),
        wrap(RightFields(), "fields", "reward 'fields'"),
    ]
    scores = grade(rewards, rows, [row["completion"] for row in rows])
    verdicts = zip(*scores.values(), strict=True)
    return [
        row
        for row, scored in zip(rows, verdicts, strict=True)
        if all(score is None or score >= 1.0 for score in scored)
    ]
