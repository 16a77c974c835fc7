"""Carry out a run: rows, model and Trainer from a :class:`RunConfig`, then train and save.

Fine-tuning is TRL's ``SFTTrainer``; the phases are the callback's. A run without data gets a
Trainer whose only step changes nothing, so that RISEN alone has the same record and checkpoints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets.utils.logging import disable_progress_bar
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from risen_plugin.callback import RisenCallback
from risen_plugin.commands.advise.machine import processes_started
from risen_plugin.commands.train.card import README, card
from risen_plugin.commands.train.folders import content_of, empty
from risen_plugin.commands.train.models import check_name, load_run
from risen_plugin.commands.train.own_answers import OwnAnswers
from risen_plugin.commands.train.rows import Row, read_rows, split_off
from risen_plugin.commands.train.run_config import DataSource, RunConfig
from risen_plugin.contracts import PhaseRecord
from risen_plugin.errors import ConfigError, RecordError, RisenError, located, one_line
from risen_plugin.kit.files import write_text
from risen_plugin.record.checkpoints import lacks_optimizer
from risen_plugin.record.run_record import writing
from risen_plugin.run.fitness import check_arguments
from risen_plugin.run.foretelling import Choose, Foretelling
from risen_plugin.training.asking import precision_of
from risen_plugin.training.clean_room import finite_attention
from risen_plugin.training.outer_trainer import NoStepTooMany
from risen_plugin.training.sft import (
    NO_CHECKPOINTING,
    NothingToLearn,
    SftArguments,
    check_sft_fields,
    sft_config,
    sft_trainer,
    train_from,
)

_log = logging.getLogger("risen_plugin")
MANAGED: Mapping[str, str] = {
    "output_dir": "it is the run's output",
    "seed": "it is the run's seed",
    "resume_from_checkpoint": "--resume asks for it",
    "dataset_text_field": "the columns of data say it",
    "model_init_kwargs": "dtype says how the model is loaded",
    "disable_tqdm": "--quiet asks for it",
}


@dataclass(frozen=True)
class Prepared:
    """A run that has been checked as far as it can be without a model.

    :param described: the mapping written to ``run.yaml`` in the output folder; None writes none.
    """

    run: RunConfig
    output: Path
    args: SftArguments
    train_rows: Sequence[Row]
    eval_rows: Sequence[Row]
    callback: RisenCallback | None
    own_answers: OwnAnswers | None
    described: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Finished:
    """The result of a run.

    :param is_main: whether this process prints for all processes of the run.
    :param losses: evaluation loss before and after, in nats per token; None where not measured.
    :param seconds: from the first step to the saved model.
    """

    output: Path
    steps: int
    losses: tuple[float, float] | None
    phases: tuple[PhaseRecord, ...]
    seconds: float
    is_main: bool = True

    @property
    def is_kept(self) -> bool:
        """Whether a phase was kept."""
        return any(phase.accepted for phase in self.phases)

    @property
    def is_adapter(self) -> bool:
        return (self.output / "adapter_config.json").is_file()


def prepare(
    run: RunConfig,
    output: Path,
    *,
    quiet: bool = False,
    described: Mapping[str, Any] | None = None,
) -> Prepared:
    """Check names, rows and settings, and read the rows; loads no model.

    :param described: the mapping that the run was read from, to be saved beside its result.
    :raises RisenError: naming the setting or row that does not fit, in one line.
    """
    check_name(run.model)
    train_rows: list[Row] = []
    eval_rows: list[Row] = []
    if run.data is not None:
        with located("data"):
            train_rows = read_rows(run.data)
    if isinstance(run.evaluation, DataSource):
        with located("evaluation"):
            eval_rows = read_rows(run.evaluation)
    elif run.evaluation is not None:
        train_rows, eval_rows = split_off(train_rows, run.evaluation, run.seed)
    args = arguments(run, output, quiet=quiet)
    own_answers: OwnAnswers | None = None
    callback: RisenCallback | None = None
    if run.risen is not None:
        check_arguments(args)
        config = run.risen
        if config.probe is None and not eval_rows:
            own_answers = OwnAnswers(quiet=quiet, precision=precision_of(args))
            config = dataclasses.replace(config, probe=own_answers)  # type: ignore[arg-type]
        elif config.probe is None and run.data is None:
            config = dataclasses.replace(config, probe=eval_rows)
        callback = RisenCallback(config)
    return Prepared(run, output, args, train_rows, eval_rows, callback, own_answers, described)


def arguments(run: RunConfig, output: Path, *, quiet: bool = False) -> SftArguments:
    """TRL's arguments: ours where nothing is said, then the run's.

    :raises ConfigError: for an unknown or managed field, a wrong value, and what TRL refuses.
    """
    check_sft_fields(run.fine_tune, MANAGED, "fine_tune")
    # An unquoted no is false in YAML.
    chosen = {
        k: "no" if v is False and k.endswith("_strategy") else v for k, v in run.fine_tune.items()
    }
    fields = {**defaults(run), **chosen}
    return sft_config(**fields, output_dir=str(output), seed=run.seed, disable_tqdm=quiet)


def defaults(run: RunConfig) -> dict[str, Any]:
    """Our defaults for the fields of ``SFTConfig`` that ``fine_tune`` leaves out."""
    has_gpu = torch.cuda.is_available()
    bf16 = has_gpu and torch.cuda.is_bf16_supported() and not run.fine_tune.get("fp16")
    chosen: dict[str, Any] = {
        "bf16": bf16,
        "report_to": "none",
        "log_level_replica": "error",  # as quieten() has it in the first process
        "logging_steps": 10,
        "dataloader_pin_memory": has_gpu,
        # Without it, each of several processes trains alone, and bf16 is refused.
        "use_cpu": not has_gpu and (processes_started() > 1 or bool(run.fine_tune.get("bf16"))),
        **NO_CHECKPOINTING,
    }
    if run.data is None:
        # One step that changes nothing, a checkpoint to go on from, and the phase after it.
        waits = run.risen is not None and run.risen.checkpoint_before_phase
        saving = {"save_strategy": "steps", "save_steps": 1} if waits else {"save_strategy": "no"}
        return {**chosen, **saving, "max_steps": 1, "per_device_train_batch_size": 1}
    chosen |= {"save_strategy": "steps", "save_steps": 0.25, "save_total_limit": 2}
    if run.lora is not None:
        chosen["learning_rate"] = 2e-4
    if run.evaluation is not None:
        chosen |= {"eval_strategy": "steps", "eval_steps": 0.1, "eval_on_start": True}
    return chosen


def build(prepared: Prepared, model: Any, tokenizer: Any) -> Trainer:
    """The Trainer of the run around ``model``, with the callback attached.

    :raises ConfigError: if model, tokenizer or rows do not fit.
    """
    run, args = prepared.run, prepared.args
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = _trainer(prepared, model, tokenizer)
    except RisenError:
        raise
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = one_line(error)
        raise ConfigError(f"the Trainer refuses {run.model} with these rows: {reason}") from error
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if prepared.callback is not None:
        if prepared.own_answers is not None:
            answering: Any = trainer.model  # a Trainer takes any module
            prepared.own_answers.bind(prepared.callback, answering, tokenizer)
        prepared.callback.attach(trainer)
    else:
        trainer.add_callback(NoStepTooMany())
    if not args.disable_tqdm and run.data is not None:
        trainer.add_callback(_Bar())
    return trainer


@dataclass(frozen=True)
class Checked:
    """A run that could begin.

    :param parameters: of the model, adapters included.
    :param trained: those of them that fine-tuning, or the run's adapter, changes.
    :param rows: to train on, and to evaluate on.
    :param held_out: instructions that decide about a phase, and those that are only reported.
    """

    parameters: int
    trained: int
    rows: tuple[int, int]
    held_out: tuple[int, int] | None


class _BegunError(Exception):
    """Everything before the first step has been done."""


class _StopsBeforeSteps(TrainerCallback):
    """Ends a Trainer that has begun, after every callback that was added before this one."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        raise _BegunError


@finite_attention()
def check(prepared: Prepared) -> Checked:
    """Do all that :func:`train` does before its first step, and save nothing.

    :param prepared: with an output folder that is thrown away afterwards, since a record begins.
    :raises RisenError: as :func:`train` raises it then.
    """
    quieten()
    run = prepared.run
    model, tokenizer = load_run(run)
    transformers.set_seed(run.seed)
    trainer = build(prepared, model, tokenizer)
    trainer.add_callback(_StopsBeforeSteps())
    with contextlib.suppress(_BegunError):
        trainer.train()
    held_out = None
    if prepared.callback is not None:
        rows = prepared.callback.run_state.instructions.held_out
        held_out = (len(rows.guard), len(rows.report))
    weights = list(model.parameters())
    return Checked(
        sum(p.numel() for p in weights),
        sum(p.numel() for p in weights if p.requires_grad),
        (len(prepared.train_rows), len(prepared.eval_rows)),
        held_out,
    )


@finite_attention()
def train(prepared: Prepared, *, resume: bool = False, only_kept: bool = False) -> Finished:
    """Load the model, train, save model and tokenizer into the output folder.

    :param only_kept: save no model unless a phase was kept.
    :raises RisenError: in one line; a run that has not begun leaves no files behind.
    """
    quieten()
    run, output = prepared.run, prepared.output
    earlier_files = content_of(output)
    started = time.perf_counter()
    trainer: Trainer | None = None
    model, tokenizer = load_run(run)
    try:
        transformers.set_seed(run.seed)
        trainer = build(prepared, model, tokenizer)
        last = get_last_checkpoint(str(output)) if resume else None
        if last and prepared.callback is None and lacks_optimizer(Path(last)):
            raise RecordError(
                f"{last} holds no optimizer and no schedule (fine_tune.save_only_model), so the "
                "run would begin its learning rate again; begin a new run in another folder"
            )
        if resume and trainer.is_world_process_zero():
            _log.info(
                "%s", f"resuming from {last}" if last else "no checkpoint yet: from the start"
            )
        if trainer.is_world_process_zero() and not resume:
            _write_description(prepared)
        train_from(trainer, last)
        if trainer.is_world_process_zero() and resume:  # a refused run leaves run.yaml as it was
            _write_description(prepared)
        losses = _losses(trainer, prepared.eval_rows)
        phases = prepared.callback.phases if prepared.callback is not None else ()
        with writing(output):
            saves = not only_kept or any(phase.accepted for phase in phases)
            if saves:
                trainer.save_model()
            if trainer.is_world_process_zero():
                if saves:
                    steps = trainer.state.global_step if run.data is not None else 0
                    # In place of PEFT's or TRL's, whose form nobody has filled in.
                    write_text(output / README, card(run, output, steps, phases))
                _delete_checkpoints(prepared)
    except KeyboardInterrupt:
        if trainer is not None:
            _close_bars(trainer)
        raise
    except RisenError:
        if trainer is not None:
            _close_bars(trainer)
        begun = trainer is not None and trainer.state.global_step > 0
        if not earlier_files and not begun:
            empty(output)
        raise
    steps = trainer.state.global_step if run.data is not None else 0
    seconds = time.perf_counter() - started
    is_main = bool(trainer.is_world_process_zero())
    return Finished(output, steps, losses, phases, seconds, is_main)


def foretelling(prepared: Prepared, choose: Choose | None = None) -> Foretelling:
    """What says at the start of a run with phases how long the first of them will take.

    ``callback.run_state.at_start`` has it called.

    :param choose: as of :class:`Foretelling`.
    """
    callback, own = prepared.callback, prepared.own_answers
    assert callback is not None
    own_rows = int if own is None else lambda: len(own.rows())
    return Foretelling(callback.run_state, own_rows, choose)


def _write_description(prepared: Prepared) -> None:
    if prepared.described is None:
        return
    import yaml

    text = yaml.safe_dump(dict(prepared.described), sort_keys=False, allow_unicode=True)
    with writing(prepared.output):
        prepared.output.mkdir(parents=True, exist_ok=True)
        write_text(prepared.output / "run.yaml", text)


def quieten() -> None:
    """Turn off the libraries' progress bars and warnings."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)  # between the libraries


def _trainer(
    prepared: Prepared, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Trainer:
    if prepared.run.data is None:
        return NothingToLearn(model, tokenizer, prepared.args)
    return sft_trainer(model, tokenizer, prepared.args, prepared.train_rows, prepared.eval_rows)


def _losses(trainer: Trainer, eval_rows: Sequence[Row]) -> tuple[float, float] | None:
    """The evaluation loss before training and after it, phases included."""
    if not eval_rows or trainer.eval_dataset is None:
        return None
    history = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    now = trainer.evaluate().get("eval_loss")
    if now is None:
        return None
    return (float(history[0] if history else now), float(now))


def _delete_checkpoints(prepared: Prepared) -> None:
    """Delete the checkpoints of a run of RISEN alone, which hold no more than its result."""
    if prepared.run.data is None:
        for checkpoint in prepared.output.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)


def _close_bars(trainer: Trainer) -> None:
    """End the bar's line, so that the next message begins a new one."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, _Bar) and callback.training_bar is not None:
            callback.training_bar.close()


class _Bar(ProgressCallback):
    """The Trainer's progress bar, with the losses beside it instead of dictionaries below it."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, str] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        for name, title in (("loss", "loss"), ("eval_loss", "evaluation")):
            if logs and name in logs:
                self.shown[title] = f"{float(logs[name]):.3f}"
        if self.training_bar is not None and self.shown:
            self.training_bar.set_postfix(self.shown)
