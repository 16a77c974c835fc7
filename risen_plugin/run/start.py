"""The start of a run: from the Trainer's first event to an active run that is complete.

Checks that the Trainer fits, sets the held-out rows apart, takes up the state of a checkpoint, and
opens the record.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from risen_plugin.config import effective_grpo
from risen_plugin.contracts import Prompt, Row, text_of
from risen_plugin.instructions.held_out import families_in_words
from risen_plugin.instructions.rows import PromptLimit, load_probe
from risen_plugin.kit.intervals import least_changed
from risen_plugin.phases.context import LogSeries, PhaseContext, no_series
from risen_plugin.phases.leftovers.buffers import FILE as BUFFERS_FILE
from risen_plugin.phases.rehearsal import rehearse
from risen_plugin.record.description import (
    device_names,
    environment_of,
    model_of,
    since_first_start,
)
from risen_plugin.record.held_out import HELD_OUT, SETS, write_held_out
from risen_plugin.record.run_record import Record, writing
from risen_plugin.run.active import ActiveRun
from risen_plugin.run.announcing import Announcer
from risen_plugin.run.fitness import (
    check_arguments,
    check_model,
    check_probe,
    check_targets,
    limit_rewards,
)
from risen_plugin.run.resuming import Resuming
from risen_plugin.run.state import RunState
from risen_plugin.training.adapters import as_peft_model
from risen_plugin.training.answering import Encoded, longest_prompt
from risen_plugin.training.asking import Asking
from risen_plugin.training.losses import encode_probe
from risen_plugin.training.outer_trainer import OuterTrainer, running_processes
from risen_plugin.training.protocols import Model, Tokenizer
from risen_plugin.training.quantized import keep_trainable
from risen_plugin.training.uploads import check_uploads

_log = logging.getLogger("risen_plugin")


class Start:
    """The start of one run.

    :param state: the Trainer's.
    :param outer: the Trainer, where the callback is attached to one.
    :param callback: our own, which gets none of the series that it logs.
    :param whole: checkpoints that are known to be whole.
    :raises ConfigError: for arguments, a model or a tokenizer that do not fit.
    """

    def __init__(
        self,
        run_state: RunState,
        args: TrainingArguments,
        state: TrainerState,
        *,
        model: Model,
        tokenizer: Tokenizer | None,
        outer: OuterTrainer | None,
        callback: TrainerCallback,
        whole: Iterable[Path],
    ) -> None:
        check_arguments(args)
        if not run_state.config.upload_record:
            check_uploads(args)
        check_model(model, tokenizer)
        check_targets(model, run_state.config.lora.target_modules)
        self.run_state = run_state
        self.config = run_state.config
        self.args = args
        self.state = state
        self.model = as_peft_model(model)
        assert tokenizer is not None  # as checked
        self.tokenizer = tokenizer
        self.outer = outer
        self.callback = callback
        self.processes = running_processes()
        self.quiet = bool(args.disable_tqdm) or not self.processes.is_main
        history = run_state.history
        self.record = Record(str(args.output_dir), lambda: history.elapsed_s)
        self.announcer = Announcer(
            run_state.parts.plugins, self.record, self.processes, quiet=self.quiet
        )
        self.resuming = Resuming(self.config, run_state.made_of, args, self.processes, whole)

    def run(self) -> ActiveRun:
        """Start the run.

        :raises RisenError: for rows, a checkpoint or a folder that do not fit.
        """
        rewards = self.run_state.parts.rewards
        limit_rewards(rewards, self.args.ddp_timeout, self.processes.count)
        self._set_apart()
        goes_on = self._resume()
        context = self._context(self._first_probe_rows())
        keep_trainable(context.model)
        if not goes_on:
            rehearse(context, self.run_state.chosen)
            if self.run_state.at_start is not None:
                context = self.run_state.at_start(context, self.record.early_rollout)
        context = replace(context, probe=self._encoded(self._probe_rows()))
        self._announce_too_few(context)
        if self.args.save_only_model and self.args.save_strategy != "no":
            self.announcer.announce(
                "save_only_model leaves optimizer and schedule out of the checkpoints, so this run "
                "cannot be resumed from them"
            )
        self._open_record(context)
        self.run_state.history.start_clock()
        return ActiveRun(
            self.run_state,
            context,
            record=self.record,
            announcer=self.announcer,
            resuming=self.resuming,
            outer=self.outer,
        )

    def _set_apart(self) -> None:
        """Set the held-out rows apart, the same ones in every process and after a resumption."""
        instructions = self.run_state.instructions
        asking = Asking(self.tokenizer, effective_grpo(self.config.grpo))
        count = partial(_tokens_of, asking)
        instructions.begin(limit=PromptLimit(self._longest, count), draws=self.processes.is_main)
        # Drawn from the plugins' first state, so that a resumed run sets the same rows apart.
        self.run_state.reset()
        guard = self.config.guard

        held_out = self.processes.main(
            lambda: instructions.set_apart(
                guard.rows_apart, guard.report_rows, as_there_are=guard.is_auto
            )
        )
        instructions.take_over(held_out)
        self.run_state.buffers.leave_out(held_out.has)
        if held_out.reserved:
            families = families_in_words(held_out.reserved)
            self.announcer.announce(f"RISEN reserves the {families}: measured, never trained on")

    @property
    def _longest(self) -> int:
        grpo = effective_grpo(self.config.grpo)
        return longest_prompt(self.model, grpo["max_completion_length"])

    def _resume(self) -> bool:
        """Take up the state of the checkpoint that the run goes on from, if there is one.

        :returns: whether the run goes on as it was begun, with the same settings and plugins.
        """
        step, announce = self.state.global_step, self.announcer.announce
        saved = self.processes.together(partial(self.resuming.resume, step, announce))
        if saved is not None:
            self.run_state.load_state_dict(saved)
            if self.outer is not None and saved.get("trainer"):
                self.outer.go_on_logging(saved["trainer"])
        elif step:
            announce(f"step {step}: this run was begun without RISEN; it joins in from here")
        return saved is not None and not self.resuming.is_changed

    def _context(self, probe: Sequence[Mapping[str, Any]]) -> PhaseContext:
        """The context of all phases of this run.

        :raises DataError: for probe rows that cannot be read.
        """
        run_state, outer = self.run_state, self.outer
        most = self.config.guard.probe_rows
        return PhaseContext(
            model=self.model,
            tokenizer=self.tokenizer,
            args=self.args,
            config=self.config,
            rewards=run_state.parts.rewards,
            panel=run_state.panel,
            instructions=run_state.instructions,
            pass_rates=run_state.pass_rates,
            probe=self._encoded(probe),
            controllers=run_state.controllers,
            buffers=run_state.buffers,
            domain_reward=run_state.parts.domain,
            tasks=run_state.parts.tasks,
            domain=outer.domain(most) if outer else None,
            others=outer.restored() if outer else (),
            quiet=self.quiet,
            tolerant=self.record.tolerant,
            log_series=no_series if outer is None else self._series_logger(outer),
            processes=self.processes,
            rollouts=run_state.parts.rollouts,
            rollout_folder=self.record.rollout,
            say=self.announcer.announce,
        )

    def _encoded(self, probe: Sequence[Mapping[str, Any]]) -> list[Encoded]:
        return encode_probe(self.tokenizer, probe, self._longest)

    def _first_probe_rows(self) -> list[Mapping[str, Any]]:
        """Probe rows to try a phase with: a prompt, where the probe takes the model to be made."""
        probe = self.config.probe
        if probe is None or isinstance(probe, str | Path | Sequence):
            return self._probe_rows()
        return [{"text": text_of(self.run_state.instructions.held_out.guard[0]["prompt"])}]

    def _probe_rows(self) -> list[Mapping[str, Any]]:
        """The rows to measure retention on.

        :raises ConfigError: if there are none.
        """
        most = self.config.guard.probe_rows
        if self.config.probe is not None:
            rows = load_probe(self.config.probe)[:most]
        else:
            rows = self.outer.evaluation_rows(most) if self.outer else []
        check_probe(None, has_evaluation=bool(rows))
        return rows

    def _series_logger(self, outer: OuterTrainer) -> LogSeries:
        """Puts the series of phases, one after another, into the Trainer's loggers."""
        history, callback = self.run_state.history, self.callback

        def log(step: int, numbers: Mapping[str, float]) -> None:
            earlier = sum(phase.steps for phase in history.phases if phase.kind == "risen")
            outer.log_series(numbers, at=earlier + step, ours=callback)

        return log

    def _announce_too_few(self, context: PhaseContext) -> None:
        """Announce the tasks that have too few rows for a harm to be sure."""
        sure = self.config.guard.confidence
        if sure is None:
            return
        least = least_changed(sure)
        for task in context.tasks:
            is_bounded = self.config.guard.tasks[task.name].max_drop is not None
            if is_bounded and len(task.rows) < least:
                self.announcer.announce(
                    f"task '{task.name}' has {len(task.rows)} rows; where they pass or fail, it "
                    f"takes {least} for a drop to be sure (guard.confidence {sure:g})"
                )

    def _open_record(self, context: PhaseContext) -> None:
        """Begin the run's record, or go on with the one of the run that is resumed.

        :raises RecordError: if another run writes to the folder, or it takes no files.
        """
        record, run_state = self.record, self.run_state
        resumed = self._resumed_folder()

        def begin() -> None:
            with writing(record.folder):
                description = {**self._description(context), "max_steps": self.state.max_steps}
                if self.state.global_step:
                    description = since_first_start(description, record.description())
                record.begin(description, step=self.state.global_step)
                if self.resuming.events is not None:
                    record.cut(self.resuming.events)
            if record.early_rollout.is_dir():
                with record.tolerant(record.rollout):
                    shutil.rmtree(record.rollout, ignore_errors=True)  # of a run that was killed
                    record.early_rollout.replace(record.rollout)
            with record.tolerant(record.folder / HELD_OUT):
                write_held_out(record.folder, self._held_out())
            run_state.instructions.store_pool(record.pool, resumed / record.pool.name)

        self.processes.main(begin)
        place, earlier = record.folder / BUFFERS_FILE, resumed / BUFFERS_FILE
        is_main = self.processes.is_main
        self.processes.gather(partial(run_state.buffers.write_to, place, earlier, writes=is_main))
        if self.outer is None and is_main:
            _log.warning(
                "RisenCallback is not attached to the Trainer: phases are recorded under %s, but "
                "not in the Trainer's loggers, and compute_metrics is not measured; use "
                "RisenCallback(...).attach(trainer)",
                record.folder,
            )

    def _resumed_folder(self) -> Path:
        """The folder of the record that a checkpoint, maybe of another folder, is of."""
        place = self.resuming.checkpoint
        return Record(str(self.args.output_dir) if place is None else place.parent).folder

    def _description(self, context: PhaseContext) -> dict[str, Any]:
        """The content of ``run.json``: the run, with the versions and hashes of its environment."""
        description = self.run_state.describe(
            processes=self.processes.count, output_dir=self.args.output_dir
        )
        origins = self.run_state.parts.origins
        environment = environment_of(
            description,
            distributions=[origin.partition(" ")[0] for origin in origins.values()],
            held_out=self._held_out(),
            probe=context.probe,
            devices=device_names(context.model),
        )
        return {**description, "model": model_of(context.model), **environment}

    def _held_out(self) -> dict[str, Sequence[Row]]:
        """The rows set apart, by their purpose."""
        held_out = self.run_state.instructions.held_out
        return {name: getattr(held_out, name) for name in SETS}


def _tokens_of(asking: Asking, prompt: Prompt) -> int:
    return len(asking.prompt_ids(prompt))
