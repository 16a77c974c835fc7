"""One burst: a short fine-tuning on what RISEN phases left, kept or dropped as a phase is.

Runs inside the clean room at the present weights, on an adapter: a temporary one, merged into a
plain model, or the user's own on a PeftModel. Which rows it gets is decided by the buffers.
"""

from __future__ import annotations

import gc
import math
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model
from torch.utils.data import SequentialSampler
from tqdm.auto import tqdm
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from risen_plugin.config import BuffersConfig, effective_grpo
from risen_plugin.contracts import Decision, PhaseRecord
from risen_plugin.errors import ConfigError, near_miss
from risen_plugin.guard.changes import Changes, compare
from risen_plugin.guard.verdicts import Action, Verdict, judge_burst
from risen_plugin.instructions.supply import derived_seed
from risen_plugin.phases.guarding import Tell, untold
from risen_plugin.phases.measuring import State, Surroundings, measure_state, metrics_of
from risen_plugin.phases.steering import tell_measured
from risen_plugin.record.run_record import write_json
from risen_plugin.training.adapters import Snapshot, fresh_lora, merge, save_adapter
from risen_plugin.training.answering import longest_prompt
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.compat import checkpointing_setting, checkpoints_activations
from risen_plugin.training.losses import encode_probe

CHANGEABLE = ("learning_rate", "batch_size", "own_share", "min_gain", "max_probe_loss_rise")
_SET_APART = ("largest", "band", "unsolved_after", "demonstrations")
assert {*CHANGEABLE, *_SET_APART} == {entry.name for entry in fields(BuffersConfig)}


def check_burst_fields(
    parameters: Mapping[str, Any], config: BuffersConfig, label: str
) -> BuffersConfig:
    """The settings of one burst.

    :raises ConfigError: for a field that a scheduler cannot set for a burst, or a wrong value.
    """
    for name in parameters:
        if name not in CHANGEABLE:
            raise ConfigError(
                f"{label} may not set '{name}' for a burst{near_miss(name, CHANGEABLE) or ';'} "
                f"it may set {', '.join(CHANGEABLE)}"
            )
    try:
        return replace(config, **parameters)
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from error


def run_burst(
    around: Surroundings,
    decision: Decision,
    *,
    number: int,
    at_step: int,
    folder: Path,
    tell: Tell = untold,
) -> PhaseRecord:
    """Run one burst and return its record; ``folder`` receives what is kept of it.

    There is something to fine-tune on: :meth:`Buffers.lacking` was asked.

    :param tell: writes an event of the burst: its name, and values by name.
    """
    began = time.perf_counter()
    label = f"burst {number}"
    config = check_burst_fields(decision.parameters, around.config.buffers, label)
    grpo = effective_grpo(around.config.grpo)
    seed = derived_seed(around.config.seed, "burst", number)
    mixture = around.buffers.mixture(
        config, steps=decision.steps, seed=seed, leave_out=around.instructions.is_held_out
    )
    processes = around.processes
    if processes.is_main:
        shutil.rmtree(folder, ignore_errors=True)  # of a burst that a resumed run runs again
    guard_s = 0.0
    with (
        clean_room(around.model, around.tokenizer, *around.others),
        Snapshot(around.model) as snapshot,
    ):
        started = time.perf_counter()
        before = processes.agree(measure_state(around, around.model, grpo, f"{label}: before"))
        guard_s += time.perf_counter() - started
        longest = longest_prompt(around.model, 1) + 1
        rows = [
            {"input_ids": ids, "labels": labels}
            for ids, labels in encode_probe(around.tokenizer, mixture.rows, longest)
        ]
        settings = {
            "output_dir": str(folder),
            "max_steps": decision.steps,
            "seed": seed,
            "learning_rate": config.learning_rate,
            "per_device_train_batch_size": -(-config.batch_size // around.args.world_size),
        }
        trainer = processes.together(lambda: _build(around, rows, settings))
        losses = _train(trainer, decision.steps, label, quiet=around.quiet)
        started = time.perf_counter()
        after = processes.agree(measure_state(around, trainer.model, grpo, f"{label}: after"))
        guard_s += time.perf_counter() - started
        changes, verdict = _judged(around, config, before, after)
        tell_measured(tell, "before", 0, before, None, Action("go_on", "measured at entry"))
        action = Action("go_on" if verdict.accepted else "roll_back", verdict.reason)
        tell_measured(tell, "after", decision.steps, after, changes, action)
        if verdict.accepted:
            processes.main(partial(_keep, around, trainer.model, folder))
            if not isinstance(around.model, PeftModel):
                merge(trainer.model)
        else:
            snapshot.restore()
        del trainer
    gc.collect()  # the trainer and its adapter hold each other in cycles
    metrics = {
        **metrics_of(before, after, changes),
        "rows_own": mixture.own,
        "rows_demonstrations": mixture.demonstrations,
        "loss_first": losses[0] if losses else math.nan,
        "loss": losses[-1] if losses else math.nan,
        "guard_s": round(guard_s, 4),
        "seconds": round(time.perf_counter() - began, 4),
        "verdict": verdict.reason,
    }
    record = processes.agree(
        PhaseRecord("burst", decision.steps, at_step, decision.reason, verdict.accepted, metrics)
    )
    data = {
        **asdict(record),
        "parameters": dict(decision.parameters),
        "verdict": asdict(verdict),
        "logs": [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)],
    }
    processes.main(lambda: _write(around, folder, data))
    return record


def _keep(around: Surroundings, trained: Any, folder: Path) -> None:
    with around.keeping(folder):
        save_adapter(around.model, trained, folder)


def _write(around: Surroundings, folder: Path, data: Mapping[str, Any]) -> None:
    with around.keeping(folder):
        write_json(folder / "phase.json", data)


def _judged(
    around: Surroundings, config: BuffersConfig, before: State, after: State
) -> tuple[Changes, Verdict]:
    guard = replace(around.config.guard, max_probe_loss_rise=config.max_probe_loss_rise)
    changes = compare(before.by_row, after.by_row, guard, guard.confidence)
    outage = before.outage or after.outage
    if outage is not None:
        return changes, Verdict(False, outage)
    return changes, judge_burst(before.guard, after.guard, config.min_gain, changes)


class _InOrder(Trainer):
    """Takes the rows in the order in which they were mixed."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]  # a list has a length


def _build(around: Surroundings, rows: Any, settings: Mapping[str, Any]) -> Trainer:
    """A trainer on an adapter, with the precision and device of the outer one."""
    outer = around.args
    model = around.model
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns about what is meant here
        set_seed(settings["seed"])  # the adapter's first weights; a Trainer seeds itself later
        if not isinstance(model, PeftModel):
            model = get_peft_model(model, fresh_lora(around.config.lora))
        if checkpoints_activations(outer):
            model.enable_input_require_grads()
        trainer = _InOrder(
            model=model,
            args=TrainingArguments(**arguments),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(around.tokenizer),
            processing_class=around.tokenizer,
        )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def _train(trainer: Trainer, steps: int, label: str, *, quiet: bool) -> list[float]:
    """Train to the end behind one progress bar; the loss of each step."""
    losses: list[float] = []
    with tqdm(total=steps, desc=label, unit="step", leave=False, disable=quiet) as bar:
        trainer.add_callback(_Listener(losses, bar))
        trainer.train()
    return losses


class _Listener(TrainerCallback):
    def __init__(self, losses: list[float], bar: Any) -> None:
        self.losses = losses
        self.bar = bar

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))
