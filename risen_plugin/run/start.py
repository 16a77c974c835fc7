"""The beginning of a run: what is set apart and restored, what it stands on and records."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerState, TrainingArguments

from risen_plugin.config import effective_grpo
from risen_plugin.errors import ConfigError
from risen_plugin.instructions.families import told
from risen_plugin.instructions.probe_rows import load_probe
from risen_plugin.kit.intervals import least_changed
from risen_plugin.phases.leftovers.buffers import FILE as BUFFERS_FILE
from risen_plugin.phases.measuring import Surroundings
from risen_plugin.record.environment import device_names, surroundings
from risen_plugin.record.run_record import Record, writing
from risen_plugin.run.description import describe
from risen_plugin.run.fitness import check_arguments, check_model, check_targets, limit_rewards
from risen_plugin.run.state import Components
from risen_plugin.training.answering import longest_prompt, prompt_ids
from risen_plugin.training.losses import encode_probe
from risen_plugin.training.torch_processes import running_processes

_log = logging.getLogger("risen_plugin")
_NO_PROBE = (
    "there is nothing to measure retention on: give RisenConfig(probe=...) rows or a JSON Lines "
    "file, or attach the callback to a Trainer that has an eval_dataset"
)


def prepare(own: Components, args: TrainingArguments, model: Any, tokenizer: Any) -> None:
    """Check what the run stands on, and set the held-out rows apart.

    :raises RisenError: for arguments, a model or a tokenizer that do not fit.
    """
    check_arguments(args)
    check_model(model, tokenizer)
    check_targets(model, own.config.lora.target_modules)
    processes = running_processes()
    own.processes = own.telling.processes = processes
    own.telling.quiet = bool(args.disable_tqdm) or not processes.is_main
    limit_rewards(own.parts.rewards, args.ddp_timeout, processes.count)
    own.instructions.keeps_pool = processes.is_main
    own.instructions.longest = _longest(own, model)
    own.instructions.count_tokens = lambda prompt: len(prompt_ids(tokenizer, prompt))
    own.instructions.close_pool()
    # Drawn from the plugins' first state, so that a resumed run sets the same rows apart.
    own.load_state_dict(own.initial)
    own.instructions.take_over(processes.main(partial(_set_apart, own)))
    own.buffers.leave_out(own.instructions.is_held_out)
    if own.instructions.reserved:
        own.telling.say(
            f"RISEN reserves the {told(own.instructions.reserved)}: measured, never trained on"
        )


def _longest(own: Components, model: Any) -> int:
    grpo = effective_grpo(own.config.grpo)
    return longest_prompt(model, grpo["max_completion_length"])


def _set_apart(own: Components) -> dict[str, Any]:
    own.instructions.set_apart(own.config.guard.rows, own.config.guard.report_rows)
    return own.instructions.held_out()


def restore(own: Components, args: TrainingArguments, state: TrainerState) -> None:
    """Take up the state of the checkpoint that the run goes on from, if there is one."""
    gathered = own.processes.gather(partial(own.resuming.resume, args, state, own.telling.say))
    found = gathered[own.processes.rank]
    if found is not None:
        own.load_state_dict(found)
        if own.attached is not None and found.get("trainer"):
            own.attached.go_on_logging(found["trainer"])
    elif state.global_step:
        own.telling.say(
            f"step {state.global_step}: this run was begun without RISEN; it joins in from here"
        )


def surroundings_of(
    own: Components, args: TrainingArguments, model: Any, tokenizer: Any
) -> Surroundings:
    """What the phases of this run stand on.

    :raises ConfigError: if there are no rows to measure retention on.
    """
    most = own.config.guard.probe_rows
    return Surroundings(
        model=model,
        tokenizer=tokenizer,
        args=args,
        config=own.config,
        rewards=own.parts.rewards,
        panel=own.panel,
        instructions=own.instructions,
        pass_rates=own.pass_rates,
        probe=encode_probe(tokenizer, _probe_rows(own, most), _longest(own, model)),
        controllers=own.controllers,
        buffers=own.buffers,
        domain_reward=own.parts.domain,
        tasks=own.parts.tasks,
        domain=own.attached.domain(most) if own.attached else None,
        others=own.attached.restored() if own.attached else (),
        quiet=own.telling.quiet,
        processes=own.processes,
    )


def tell_too_few(own: Components, around: Surroundings) -> None:
    """Say where a harm cannot be sure, for want of rows."""
    sure = own.config.guard.confidence
    if sure is None:
        return
    least = least_changed(sure)
    for task in around.tasks:
        is_bounded = own.config.guard.tasks[task.name].max_drop is not None
        if is_bounded and len(task.rows) < least:
            own.telling.say(
                f"task '{task.name}' has {len(task.rows)} rows; where they pass or fail, it takes "
                f"{least} for a drop to be sure (guard.confidence {sure:g})"
            )


def _probe_rows(own: Components, most: int) -> list[Mapping[str, Any]]:
    if own.config.probe is not None:
        rows = load_probe(own.config.probe)[:most]
    else:
        rows = own.attached.evaluation_rows(most) if own.attached else []
    if not rows:
        raise ConfigError(_NO_PROBE)
    return rows


def open_record(own: Components, around: Surroundings, state: TrainerState) -> Record:
    """Begin the run's record, or go on with the one of the run that is resumed.

    :raises RecordError: if another run writes to the folder, or it takes no files.
    """
    args = around.args
    record = Record(str(args.output_dir), lambda: own.history.elapsed_s)
    resumed = _resumed_from(own, args)
    own.telling.record = record

    def begin() -> None:
        with writing(record.folder):
            record.begin(
                {**_described(own, around), "max_steps": state.max_steps}, step=state.global_step
            )
            if own.resuming.events is not None:
                record.cut(own.resuming.events)
        own.instructions.keep_pool(record.pool, resumed / record.pool.name)

    own.processes.main(begin)
    place, earlier = record.folder / BUFFERS_FILE, resumed / BUFFERS_FILE
    own.processes.gather(partial(own.buffers.keep, place, earlier, writes=own.processes.is_main))
    own.parts.plugins.on_failure = lambda plugin, how: own.telling.failure(
        step=state.global_step, number=None, plugin=plugin, reason=how
    )
    if own.attached is None and own.processes.is_main:
        _log.warning(
            "RisenCallback is not attached to the Trainer: phases are recorded under %s, but "
            "not in the Trainer's loggers, and compute_metrics is not measured; use "
            "RisenCallback(...).attach(trainer)",
            record.folder,
        )
    return record


def _resumed_from(own: Components, args: TrainingArguments) -> Path:
    """The folder of the record that a checkpoint, maybe of another folder, is of."""
    place = own.resuming.place
    return Record(str(args.output_dir) if place is None else place.parent).folder


def _described(own: Components, around: Surroundings) -> dict[str, Any]:
    """The description with what the run stands on."""
    description = describe(
        own.config,
        own.parts,
        buffers=own.buffers.describe(),
        reserved=own.instructions.reserved,
        processes=own.processes.count,
        output_dir=around.args.output_dir,
    )
    return description | surroundings(
        description,
        distributions=[origin.partition(" ")[0] for origin in own.parts.origins.values()],
        held_out={
            "guard": own.instructions.guard,
            "report": own.instructions.report,
            "unseen": own.instructions.unseen,
        },
        probe=around.probe,
        devices=device_names(around.model),
    )
