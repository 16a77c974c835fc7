"""The runs that are measured: the embedded base, the demo's rows, a plain Trainer, one phase."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from risen_export.demo.desk import RightFields
from risen_plugin import RisenCallback
from risen_plugin.builtin.rewards import Constraints
from risen_plugin.config import RisenConfig
from risen_plugin.contracts import PhaseRecord
from risen_plugin.embedded import base_model, orders
from risen_plugin.training.losses import encode_probe

Row = dict[str, Any]
CONTEXT = 512  # tokens, the embedded model's


def prepare(threads: int) -> None:
    """Compute with ``threads`` and keep the libraries quiet."""
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    logging.getLogger("risen_plugin").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def load() -> tuple[Any, Any]:
    """The embedded base model in fp32 and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(base_model(), dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(base_model())


def instructions(count: int, seed: int) -> list[Row]:
    """The demo's questions with one or two wishes."""
    return orders.draw(count, seed, wish_counts=(1, 1, 2))


def plain_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    folder: str,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    callbacks: list[TrainerCallback] | None = None,
    schedule: str = "constant",
) -> Trainer:
    """An ordinary Trainer as the demo makes it, on the CPU.

    :param schedule: of the learning rate; ``linear`` warms up as the demo does.
    """
    encoded = encode_probe(tokenizer, rows, CONTEXT)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type=schedule,
            warmup_steps=10 if schedule == "linear" else 0,
            logging_steps=10,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"input_ids": i, "labels": k} for i, k in encoded]),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@dataclass(frozen=True)
class InOrder:
    """A generator that hands out given rows in their order, and then from the start again."""

    rows: tuple[Row, ...]

    def __call__(self, *, count: int, seed: int, start: int = 0, **context: Any) -> list[Row]:
        return [self.rows[(start + place) % len(self.rows)] for place in range(count)]


class Rewards:
    """The demo's two rewards as plain TRL reward functions, counting what was sampled."""

    def __init__(self) -> None:
        self.rollouts = 0
        self.tokens = 0

    def functions(self) -> list[Any]:
        """For ``reward_funcs`` and for ``RisenConfig.rewards`` alike."""
        constraints, fields = Constraints(), RightFields()

        def follows(**columns: Any) -> list[float | None]:
            self.rollouts += len(columns["completions"])
            self.tokens += sum(len(ids) for ids in columns["completion_ids"])
            return constraints(**columns)

        def states_fields(**columns: Any) -> list[float | None]:
            return fields(**columns)

        return [follows, states_fields]


@dataclass(frozen=True)
class PhaseRun:
    """One RISEN phase and the seconds that the Trainer waited for it."""

    record: PhaseRecord
    whole_s: float


def run_one_phase(model: Any, tokenizer: Any, config: RisenConfig, folder: Path) -> PhaseRun:
    """A Trainer that takes one step at learning rate 0, then a RISEN phase by ``config``.

    The step is there because a scheduler is asked after one; it leaves the weights as they are.
    """
    trainer = plain_trainer(
        model, tokenizer, instructions(1, 0), str(folder), steps=1, batch_size=1, learning_rate=0.0
    )
    callback = RisenCallback(config).attach(trainer)
    spent: list[float] = []
    callback.on_step_end = timed(callback.on_step_end, spent.append)  # type: ignore[method-assign]
    trainer.train()
    record = next(phase for phase in callback.phases if phase.kind == "risen")
    return PhaseRun(record, spent[-1])


def timed(function: Callable[..., Any], told: Callable[[float], None]) -> Callable[..., Any]:
    """``function``, telling the seconds of each call."""

    def call(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            told(time.perf_counter() - started)

    return call
