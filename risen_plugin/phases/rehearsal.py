"""Try a phase once on the smallest batch, before anything is fine-tuned, and leave no trace of it.

Some models, adapters and settings fit each other only as far as their first answer or their first
update shows: no list of names knows them all. So the start of a run does what a phase does, with
two short instructions and answers of two tokens, in the clean room: it answers them greedily, takes
the loss of a probe row, builds TRL's trainer and takes one step. What is refused here would else be
found when the fine-tuning is done. Rewards are not asked; a stand-in scores the answers.
"""

from __future__ import annotations

import gc
import math
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel

from risen_plugin.config.grpo import Chosen, effective_grpo
from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError, RisenError, one_line, typed_line
from risen_plugin.instructions.rows import derived_seed
from risen_plugin.kit.checks import shown
from risen_plugin.kit.processes import OtherProcessError
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.sampling import RolloutError, named_way
from risen_plugin.training.adapters import Snapshot, base_of
from risen_plugin.training.answering import answers_to
from risen_plugin.training.asking import Asking, in_precision, precision_of
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.grpo import SETTINGS_REFUSED, Plan, build_trainer, train
from risen_plugin.training.losses import row_losses
from risen_plugin.training.vllm import check_vllm

_ROWS = 2  # of different lengths, so that one is padded
_TOKENS = 2  # of an answer; the second is made from the cache of the first

_SMALLEST: Mapping[str, Any] = {
    "num_generations": 2,
    "num_generations_eval": None,
    "per_device_train_batch_size": 2 * _ROWS,
    "gradient_accumulation_steps": 1,
    "generation_batch_size": None,
    "steps_per_generation": None,
    "max_completion_length": _TOKENS,
    "logging_steps": 1,
    "log_completions": False,
    "torch_compile": False,  # takes minutes
}
"""Fields of ``GRPOConfig`` that a rehearsal sets, whatever the phases have."""


def rehearse(context: PhaseContext, chosen: Sequence[Chosen]) -> None:
    """Try a phase; model, tokenizer, random states and files are as they were, by bits.

    :param chosen: the fields that are not at their defaults; later ones override earlier ones.
    :raises ConfigError: in one line: whose fault it is, the cause, and what to do.
    """
    fields = {field.name: field.value for field in chosen}
    if fields.get("use_vllm"):
        context.processes.main(partial(check_vllm, fields, context.model))
    try:
        _perform(context, fields)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            "there is no room in memory for the smallest RISEN phase beside the fine-tuning; lower "
            "the Trainer's batch or lora.r, or turn gradient checkpointing on; nothing was trained "
            "yet"
        ) from error
    except RolloutError:
        raise
    except (_FailedError, RisenError) as error:
        culprit = _culprit(context, chosen)
        if culprit is None:
            raise _refusal(context, error) from error
        raise ConfigError(
            f"{culprit.label}.{culprit.name} = {shown(culprit.value)} does not work here: "
            f"{_reason(error)}; leave it out, or give another value; nothing was trained yet"
        ) from error


def _perform(context: PhaseContext, fields: Mapping[str, Any]) -> None:
    """Do once what a phase does."""
    model, tokenizer = context.model, context.tokenizer
    grpo = {**effective_grpo(fields), **_SMALLEST}
    if grpo.pop("use_vllm", False):  # its engine takes minutes, and reads other settings
        grpo.pop("generation_kwargs", None)
    with (
        quiet_libraries(),
        tempfile.TemporaryDirectory(prefix="risen-") as folder,
        clean_room(model, tokenizer, *context.others),
        Snapshot(model) as snapshot,
        ExitStack() as held,
    ):
        asking = Asking(tokenizer, grpo, precision_of(context.args))
        outside = named_way(context, asking, Path(folder, "rollout")).outside
        if outside is not None:
            held.callback(outside.close)
        rows = _rows(context, asking)
        with _while("answering"):
            answers_to(model, asking, rows, batch_size=len(rows), outside=outside)
            with in_precision(model, asking.precision):
                losses = row_losses(model, context.probe[:1], batch_size=1)
        if not all(math.isfinite(nats) for nats, _ in losses):
            raise ConfigError(f"the loss of a probe row is {losses[0][0]}")
        plan = Plan(
            steps=1,
            grpo=grpo,
            lora=context.config.lora,
            seed=derived_seed(context.config.seed, "rehearsal", 0),
            output_dir=folder,
            label="",
            quiet=True,
        )

        def supply(count: int) -> list[Row]:
            return [rows[place % len(rows)] for place in range(count)]

        with _while("building TRL's trainer"):
            trainer = context.processes.together(
                partial(
                    build_trainer,
                    model,
                    tokenizer,
                    [StandIn()],
                    supply,
                    outer=context.args,
                    plan=plan,
                    outside=outside,
                )
            )
        with _while("training"):
            logs = train(trainer, plan)
        loss = logs.last("loss")
        if loss is not None and not math.isfinite(loss):
            raise ConfigError(f"the loss of GRPO is {loss}")
        with _while("merging the adapter"):  # as a phase does before it measures
            snapshot.settle(trainer.trained)
        del trainer
        snapshot.restore()
    gc.collect()  # a trainer and its adapter hold each other in cycles


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers from announcing a training that is none."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)


def _rows(context: PhaseContext, asking: Asking) -> list[Row]:
    """Two of the guard's rows: the shortest, and the next longer one where there is any."""
    lengths = {
        index: len(asking.prompt_ids(row["prompt"]))
        for index, row in enumerate(context.instructions.held_out.guard)
    }
    order = sorted(lengths, key=lengths.__getitem__)
    longer = [index for index in order if lengths[index] > lengths[order[0]]]
    chosen = [order[0], *(longer or order)[:1]]
    return [context.instructions.held_out.guard[index] for index in chosen]


class StandIn:
    """Scores answers so that they differ, in place of the rewards."""

    __name__ = "stand_in"
    weight = 1.0

    def __call__(
        self, *, prompts: list[Any], completions: list[Any], **columns: Any
    ) -> list[float]:
        return [float(place % 2) for place in range(len(completions))]


# Errors


class _FailedError(Exception):
    """An error of a rehearsal, with what it was doing."""

    def __init__(self, doing: str, error: Exception) -> None:
        super().__init__(f"{doing} ended in {typed_line(error)}")


@contextmanager
def _while(doing: str) -> Iterator[None]:
    try:
        yield
    except (RisenError, OtherProcessError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if _is_ours(error):
            raise  # a fault of this package
        raise _FailedError(doing, error) from error


def _is_ours(error: Exception) -> bool:
    """Whether an error came up in this package's own code."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("risen_plugin.")


def _reason(error: Exception) -> str:
    """The error's line without a part that the message around it says."""
    return one_line(error).removeprefix(SETTINGS_REFUSED).rstrip(".")


def _culprit(context: PhaseContext, chosen: Sequence[Chosen]) -> Chosen | None:
    """The one field without which the phase works; None if there is none, or no telling."""
    if context.processes.count > 1:  # they might not fail alike, and would wait for one another
        return None
    for field in chosen:
        if field.name in _SMALLEST:
            continue
        try:
            _perform(context, {f.name: f.value for f in chosen if f.name != field.name})
        except (RisenError, _FailedError, RuntimeError):
            continue
        return field
    return None


def _refusal(context: PhaseContext, error: Exception) -> ConfigError:
    """The model does not fit a phase, whatever is set."""
    model = context.model
    name = type(base_of(model)).__name__
    if isinstance(model, PeftModel):
        kind = model.peft_config[str(model.active_adapter)].peft_type
        name = f"{name} with its {str(getattr(kind, 'value', kind)).replace('_', ' ')} adapter"
        remedy = "train another kind of adapter, such as LoRA on linear layers, or leave RISEN out"
    else:
        remedy = "lora.target_modules may name other modules; else leave RISEN out for this model"
    return ConfigError(
        f"a trial of a RISEN phase fails on {name}: {_reason(error)}; {remedy}; nothing was "
        "trained yet"
    )
