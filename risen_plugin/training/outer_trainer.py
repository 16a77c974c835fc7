"""The Trainer that fine-tunes, and the processes that it runs in.

Reaches its loggers, metrics and evaluation set, which its events do not carry; ends its last step.
"""

from __future__ import annotations

import copy
import gc
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from risen_plugin.contracts import PhaseRecord
from risen_plugin.kit.processes import ALONE, Processes


class OuterTrainer:
    """A Trainer's loggers, ``compute_metrics`` and evaluation set."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    @property
    def fine_tunes(self) -> bool:
        """Whether its steps change the model; those of a run of RISEN alone do not."""
        return bool(getattr(self.trainer, "fine_tunes", True))

    def log(self, record: PhaseRecord, number: int) -> None:
        """Put the numbers of a phase or burst into the Trainer's loggers as ``risen/...``."""
        numbers = {
            f"risen/{name}": float(value)
            for name, value in record.metrics.items()
            if isinstance(value, int | float)
        }
        kind = "burst" if record.kind == "burst" else "phase"
        accepted = {f"risen/{kind}": float(number), "risen/accepted": float(bool(record.accepted))}
        # Logging clears the request for the step's own log, which is still to come.
        requested = self.trainer.control.should_log
        # The base class: SFTTrainer.log would average and clear its own training metrics.
        Trainer.log(self.trainer, {**accepted, **numbers})
        self.trainer.control.should_log = requested

    def log_series(self, numbers: Mapping[str, float], *, at: int, ours: TrainerCallback) -> None:
        """Put TRL's logs of a phase into the Trainer's loggers as ``risen/grpo/...``.

        While a phase runs the outer run's step stands still, and a logger would put its whole
        series at one place. So these series count GRPO steps: of all phases, one after another.
        Neither the Trainer's own history nor the terminal gets them.

        :param at: GRPO steps of the run so far.
        :param ours: our own callback, which does not get them.
        """
        trainer = self.trainer
        state = copy.copy(trainer.state)
        state.global_step = at
        logs = {f"risen/grpo/{name}": value for name, value in numbers.items()}
        for callback in trainer.callback_handler.callbacks:
            if callback is ours or isinstance(callback, PrinterCallback | ProgressCallback):
                continue
            callback.on_log(
                trainer.args,
                state,
                copy.copy(trainer.control),
                logs=dict(logs),
                model=trainer.model,
                processing_class=trainer.processing_class,
            )

    def unlogged(self) -> dict[str, Any] | None:
        """The loss that the Trainer has summed up and not logged yet, which no checkpoint holds.

        None before it trains.
        """
        trainer = self.trainer
        if not hasattr(trainer, "_tr_loss"):
            return None
        return {"loss": float(trainer._tr_loss), "logged_at": trainer._globalstep_last_logged}

    def go_on_logging(self, unlogged: Mapping[str, Any]) -> None:
        """Have the next logged loss be the mean that an uninterrupted run logs."""
        trainer = self.trainer
        trainer._tr_loss += unlogged["loss"]
        trainer._globalstep_last_logged = unlogged["logged_at"]

    def checkpoint(self) -> Path:
        """Save a checkpoint of the present step, as the Trainer itself would, and name its folder.

        Only at the end of a step, where optimizer, scheduler and step count agree.
        """
        trainer = self.trainer
        assert trainer.model is not None
        trial = getattr(trainer, "_trial", None)  # there once train() has been called
        trainer._save_checkpoint(trainer.model, trial=trial)
        trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
        return Path(self.run_dir()) / f"checkpoint-{trainer.state.global_step}"

    def run_dir(self) -> str:
        """The folder of its checkpoints: one for each trial where hyperparameters are searched."""
        return str(self.trainer._get_output_dir(getattr(self.trainer, "_trial", None)))

    def evaluation_rows(self, most: int) -> list[Mapping[str, Any]]:
        """The first rows of the evaluation set; of the first one where it is a dict of sets."""
        dataset = self._evaluation_set()
        if dataset is None:
            return []
        if hasattr(dataset, "__len__"):
            return [dataset[index] for index in range(min(most, len(dataset)))]
        return [row for row, _ in zip(dataset, range(most), strict=False)]

    def domain(self, most: int) -> Callable[[], Mapping[str, float]] | None:
        """Measures ``compute_metrics`` on at most ``most`` evaluation rows; None without one."""
        trainer, dataset = self.trainer, self._evaluation_set()
        if trainer.compute_metrics is None or not hasattr(dataset, "select"):
            return None
        rows = dataset.select(range(min(most, len(dataset))))

        def measure() -> Mapping[str, float]:
            loop = trainer.evaluation_loop(
                self._loader_of(rows), "RISEN: domain", metric_key_prefix="domain"
            )
            prefix = "domain_"
            return {
                name.removeprefix(prefix): float(value)
                for name, value in (loop.metrics or {}).items()
                if isinstance(value, int | float)
            }

        return measure

    def _loader_of(self, rows: Any) -> Any:
        """The Trainer's own loader for ``rows``.

        With persistent workers it would hand out the loader that it keeps, whatever the rows.
        """
        arguments = self.trainer.args
        kept = arguments.dataloader_persistent_workers
        arguments.dataloader_persistent_workers = False
        try:
            return self.trainer.get_eval_dataloader(rows)
        finally:
            arguments.dataloader_persistent_workers = kept

    def restored(self) -> tuple[Any, ...]:
        """Objects that measuring through the Trainer changes and the clean room puts back."""
        return (self.trainer, self.trainer.accelerator)

    def _evaluation_set(self) -> Any:
        dataset = self.trainer.eval_dataset
        if isinstance(dataset, dict):
            return next(iter(dataset.values()), None)
        return dataset


class NoStepTooMany(TrainerCallback):
    """Lets a Trainer that is resumed at its last step change and record nothing more.

    Resumed in mid-epoch there, it takes one step too many before it looks (transformers 5.23,
    ``_run_epoch``). Without gradients the optimizer changes nothing.
    """

    def __init__(self) -> None:
        self.is_at_end = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.is_at_end = state.global_step >= state.max_steps

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.is_at_end:
            for parameter in kwargs["model"].parameters():
                parameter.grad = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.is_at_end:
            state.global_step = state.max_steps
            control.should_training_stop = True
            # All of it is there from the step that was the last.
            control.should_save = control.should_evaluate = control.should_log = False


def running_trainer(callback: TrainerCallback) -> OuterTrainer | None:
    """The Trainer whose event ``callback`` is called for, read off the call that we are in.

    A Trainer passes itself to no callback (transformers 5.23).
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        trainer = frame.f_locals.get("self")
        if isinstance(trainer, Trainer):
            mine = any(one is callback for one in trainer.callback_handler.callbacks)
            return OuterTrainer(trainer) if mine else None
    return None


def resumed_from() -> Path | None:
    """The checkpoint that the running ``Trainer.train`` resumes from.

    A Trainer passes it to no callback, and its arguments hold it only where the user set it there
    (transformers 5.23), so it is read off the call that we are in.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if isinstance(frame.f_locals.get("self"), Trainer):
            checkpoint = frame.f_locals.get("resume_from_checkpoint")
            if isinstance(checkpoint, str | os.PathLike):
                return Path(checkpoint)
    return None


class TorchProcesses(Processes):
    """Exchanges through torch's default process group."""

    def __init__(self) -> None:
        super().__init__(dist.get_rank(), dist.get_world_size())

    def exchange(self, value: bytes) -> list[bytes]:
        received: list[bytes] = [b""] * self.count
        dist.all_gather_object(received, value)
        return received


def running_processes() -> Processes:
    """The processes of this run."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return TorchProcesses()
    return ALONE


def leave_processes() -> None:
    """Leave the group of processes, if there is one, and end its threads with it.

    For the end of a process: a thread of the backend that lets go of a tensor while Python ends
    may abort it (pytorch/pytorch#190489), and NCCL warns of a group that is left. The threads
    end with the last model that was trained in the group, which a garbage collection may have to
    find.
    """
    if dist.is_available() and dist.is_initialized():
        # The last to hold the group joins its threads, one of which may be waiting for the GIL to
        # let go of a tensor. The group's Python object releases the GIL for that, a model's C++
        # parts do not (pytorch/pytorch#56297): so it is held here until the models are gone.
        group = dist.group.WORLD
        dist.destroy_process_group()
        gc.collect()
        del group
