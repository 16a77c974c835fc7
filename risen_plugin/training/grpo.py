"""One stretch of GRPO through TRL's own trainer, on an adapter, inside the clean room.

Builds the trainer from the outer run's arguments, feeds it instructions as it asks for them and
collects its logs. Deciding, measuring and merging are left to the phase.
"""

from __future__ import annotations

import logging
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from datasets import IterableDataset
from peft import PeftModel
from tqdm.auto import tqdm
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from risen_plugin.config import LoraSettings, check_batches, effective_grpo
from risen_plugin.config.grpo import check_fields, rows_per_batch
from risen_plugin.errors import ConfigError, one_line
from risen_plugin.training.adapters import adapter_called_default, base_of, fresh_lora
from risen_plugin.training.noise import without_dropout, without_neftune
from risen_plugin.training.phase_trainer import SERIES, PhaseTrainer, Supply
from risen_plugin.training.protocols import Model, Tokenizer
from risen_plugin.training.seam import checkpointing_setting, checkpoints_activations

MANAGED: Mapping[str, str] = {
    "output_dir": "the phase has a folder of its own",
    "max_steps": "the scheduler decides the steps of a phase",
    "bf16": "precision comes from the outer Trainer's arguments",
    "fp16": "precision comes from the outer Trainer's arguments",
    "use_cpu": "the device comes from the outer Trainer's arguments",
    "report_to": "metrics go to the outer Trainer's loggers",
    "save_strategy": "the phase keeps its adapter itself",
    "eval_strategy": "the guard measures",
    "do_eval": "the guard measures",
    "neftune_noise_alpha": "answers are sampled and learned from without noise",
    "reward_weights": "weights belong to the rewards: weight",
    "shuffle_dataset": "the generator decides the order of instructions",
    "gradient_checkpointing": "it comes from the outer Trainer's arguments",
    "activation_checkpointing": "it comes from the outer Trainer's arguments",
    "push_to_hub": "nothing of a phase is uploaded",
    "seed": "it is derived from the configuration's seed and the phase",
    "disable_tqdm": "it comes from the outer Trainer's arguments",
    "dataloader_num_workers": "instructions are drawn one batch at a time",
    "ddp_backend": "it comes from the outer Trainer's arguments",
    "ddp_timeout": "it comes from the outer Trainer's arguments",
}


class RewardFunction(Protocol):
    """A reward as TRL calls it, with the name that TRL logs it by and its weight."""

    __name__: str
    weight: float

    def __call__(self, *, prompts: list[Any], completions: list[Any], **columns: Any) -> Any: ...


_PLACE = "risen_place"  # a row without a prompt, which TRL would refuse were it not replaced


def check_grpo_fields(fields: Mapping[str, Any], label: str) -> None:
    """Refuse a name that is no field of ``GRPOConfig`` or not for a phase to set, or a wrong value.

    Builds no ``GRPOConfig``: doing so disturbs the accelerator of a running Trainer.

    :raises ConfigError: naming the field and the near miss, or the values that it takes.
    """
    check_fields(GRPOConfig, fields, MANAGED, label)


@dataclass(frozen=True)
class Plan:
    """The task of one stretch of GRPO.

    :param steps: optimizer steps.
    :param grpo: fields of ``GRPOConfig``, the scheduler's parameters included.
    :param seed: of adapter, sampling and order.
    :param output_dir: the folder for files of TRL's own.
    :param label: of the progress bar.
    """

    steps: int
    grpo: Mapping[str, Any]
    lora: LoraSettings
    seed: int
    output_dir: str
    label: str
    quiet: bool = False


@dataclass
class GrpoLogs:
    """The logs of a stretch of GRPO: one entry per logging step.

    :param listener: gets the GRPO step and the numbers of each entry as it is logged.
    """

    entries: list[dict[str, float]] = field(default_factory=list)
    listener: Callable[[int, Mapping[str, float]], None] | None = None

    def first(self, name: str) -> float | None:
        return next((log[name] for log in self.entries if name in log), None)

    def last(self, name: str) -> float | None:
        return next((log[name] for log in reversed(self.entries) if name in log), None)

    def as_metrics(self) -> dict[str, float]:
        """The numbers that were logged last, and the first reward."""
        logged = {name: self.last(name) for name in SERIES} | {"reward_first": self.first("reward")}
        return {name: value for name, value in logged.items() if value is not None}


def build_trainer(
    model: Model,
    tokenizer: Tokenizer,
    rewards: Sequence[RewardFunction],
    supply: Supply,
    *,
    outer: TrainingArguments,
    plan: Plan,
    save: Callable[[PhaseTrainer], None] | None = None,
) -> PhaseTrainer:
    """TRL's trainer around ``model``: a fresh LoRA on a plain model, the user's adapter else.

    :param save: writes a checkpoint of the phase when a callback asks the trainer for one.
    :raises ConfigError: if TRL refuses the settings, with its reason.
    """
    with _settings_refused(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL and PEFT warn of settings that are meant
        args = GRPOConfig(**grpo_arguments(outer, plan, rewards))
    rows = rows_per_batch(effective_grpo(plan.grpo), outer.world_size)
    is_adapted = isinstance(model, PeftModel)
    base = base_of(model)
    without_neftune(model)
    if plan.grpo.get("disable_dropout", True):
        without_dropout(model)
    with (
        adapter_called_default(model, enabled=is_adapted and args.beta != 0.0),
        _settings_refused(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        trainer = PhaseTrainer(
            supply=supply,
            rows=rows,
            save=save,
            bare_forward=vars(base).get("forward"),
            model=model,
            reward_funcs=list(rewards),
            args=args,
            train_dataset=IterableDataset.from_generator(_places, gen_kwargs={"count": rows}),
            processing_class=tokenizer,
            peft_config=None if is_adapted else fresh_lora(plan.lora),
        )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def train(
    trainer: GRPOTrainer,
    plan: Plan,
    logs: GrpoLogs | None = None,
    *,
    steering: TrainerCallback | None = None,
) -> GrpoLogs:
    """Run the trainer to its end behind one progress bar.

    :param logs: collects the logs, also if the training does not come to its end.
    :param steering: may change the trainer's settings, or end it early.
    """
    logs = GrpoLogs() if logs is None else logs
    with tqdm(
        total=plan.steps, desc=plan.label, unit="step", leave=False, disable=plan.quiet
    ) as bar:
        trainer.add_callback(_Listener(logs, bar))
        if steering is not None:
            trainer.add_callback(steering)
        with _settings_refused(), _masking_is_meant(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            trainer.train()
    return logs


@contextmanager
def _masking_is_meant() -> Iterator[None]:
    """Keep TRL from printing a whole row for each batch with answers that may not count."""

    def is_other(record: logging.LogRecord) -> bool:
        return "All reward functions returned None" not in str(record.msg)

    logger = logging.getLogger(GRPOTrainer.__module__)
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


@contextmanager
def _settings_refused() -> Iterator[None]:
    """Turn a refusal of TRL's or PEFT's into one line: the settings are wrong.

    An error from deeper down, in torch or in our own code, is passed on as it is.
    """
    try:
        yield
    except (TypeError, ValueError, ImportError, NotImplementedError) as error:
        last = deque(traceback.walk_tb(error.__traceback__), maxlen=1)[0][0]
        library = last.f_globals.get("__name__", "").split(".")[0]
        if library not in ("trl", "peft"):
            raise
        reason = one_line(error)
        raise ConfigError(f"the settings under grpo or lora do not work: {reason}") from error


def grpo_arguments(
    outer: TrainingArguments, plan: Plan, rewards: Sequence[RewardFunction]
) -> dict[str, Any]:
    """The arguments of ``GRPOConfig``: defaults, the user's, and those that the phase manages."""
    chosen = effective_grpo(plan.grpo)
    check_batches(chosen)
    return {
        **chosen,
        "output_dir": plan.output_dir,
        "max_steps": plan.steps,
        "bf16": bool(outer.bf16),
        "fp16": bool(outer.fp16),
        "use_cpu": bool(outer.use_cpu),
        "report_to": [],
        "save_strategy": "no",
        "eval_strategy": "no",
        "reward_weights": [reward.weight for reward in rewards],
        "shuffle_dataset": False,
        "dataloader_num_workers": 0,
        "ddp_backend": outer.ddp_backend,
        "ddp_timeout": outer.ddp_timeout,
        "dataloader_pin_memory": bool(outer.dataloader_pin_memory) and outer.device.type != "cpu",
        "disable_tqdm": True,
        "seed": plan.seed,
        **checkpointing_setting(GRPOConfig, checkpoints_activations(outer)),
    }


def _places(count: int) -> Iterator[dict[str, int]]:
    """An endless stream of places in a generation batch of ``count`` rows.

    The dataloader fetches a batch ahead of the one that it hands out, so that those rows would
    be drawn before the batch in hand is scored. It gets places; the rows are drawn where they are
    answered.
    """
    while True:
        for place in range(count):
            yield {_PLACE: place}


class _Listener(TrainerCallback):
    def __init__(self, collected: GrpoLogs, bar: tqdm[Any]) -> None:
        self.collected = collected
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
        numbers = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float)
        }
        self.collected.entries.append({"step": float(state.global_step), **numbers})
        if self.collected.listener is not None:
            self.collected.listener(state.global_step, numbers)
        if "reward" in numbers:
            self.bar.set_postfix(reward=f"{numbers['reward']:.3f}")
