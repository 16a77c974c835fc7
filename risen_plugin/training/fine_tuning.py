"""A short stretch of fine-tuning on an adapter, inside the clean room: a burst's training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

from peft import PeftModel, get_peft_model
from torch.utils.data import SequentialSampler
from tqdm.auto import tqdm
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from risen_plugin.config import LoraSettings
from risen_plugin.training.adapters import fresh_lora
from risen_plugin.training.answering import Encoded
from risen_plugin.training.noise import without_neftune
from risen_plugin.training.protocols import Model, Tokenizer
from risen_plugin.training.seam import checkpointing_setting, checkpoints_activations


class _InOrder(Trainer):
    """Takes the rows in the order in which they were mixed."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]  # a list has a length


def build_fine_tuning(
    model: Model,
    tokenizer: Tokenizer,
    rows: Sequence[Encoded],
    *,
    outer: TrainingArguments,
    lora: LoraSettings,
    settings: Mapping[str, Any],
) -> Trainer:
    """A trainer on an adapter, with the precision and device of the outer one.

    :param settings: fields of ``TrainingArguments``, the seed among them.
    """
    arguments: dict[str, Any] = {
        **settings,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "bf16": bool(outer.bf16),
        "fp16": bool(outer.fp16),
        "use_cpu": bool(outer.use_cpu),
        "report_to": [],
        "ddp_backend": outer.ddp_backend,
        "ddp_timeout": outer.ddp_timeout,
        "save_strategy": "no",
        "eval_strategy": "no",
        "remove_unused_columns": False,
        "dataloader_pin_memory": bool(outer.dataloader_pin_memory) and not outer.use_cpu,
        "disable_tqdm": True,
        **checkpointing_setting(TrainingArguments, checkpoints_activations(outer)),
    }
    without_neftune(model)
    encoded: Any = [{"input_ids": ids, "labels": labels} for ids, labels in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of settings that are meant
        set_seed(settings["seed"])  # the adapter's first weights; a Trainer seeds itself later
        if not isinstance(model, PeftModel):
            model = cast(
                Model, get_peft_model(cast(PreTrainedModel, model), fresh_lora(model, lora))
            )
        trained = cast(PreTrainedModel, model)
        if checkpoints_activations(outer):
            trained.enable_input_require_grads()
        trainer = _InOrder(
            model=trained,
            args=TrainingArguments(**arguments),
            train_dataset=encoded,
            data_collator=DataCollatorForSeq2Seq(cast(PreTrainedTokenizerBase, tokenizer)),
            processing_class=cast(PreTrainedTokenizerBase, tokenizer),
        )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def fine_tune(trainer: Trainer, steps: int, label: str, *, quiet: bool) -> list[float]:
    """Train to the end behind one progress bar; the loss of each step."""
    losses: list[float] = []
    with tqdm(total=steps, desc=label, unit="step", leave=False, disable=quiet) as bar:
        trainer.add_callback(_Listener(losses, bar))
        trainer.train()
    return losses


class _Listener(TrainerCallback):
    def __init__(self, losses: list[float], bar: tqdm[Any]) -> None:
        self.losses = losses
        self.bar = bar

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))
