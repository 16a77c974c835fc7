"""The callback: Trainer events in, RISEN phases out.

Keeps the run's state, asks the scheduler after each step, starts phases, and tells observers,
loggers and the record. ``callbacks=[RisenCallback(...)]`` is enough; ``attach(trainer)`` also
reaches what Trainer events do not carry.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from risen_plugin import __version__
from risen_plugin.assembly import assemble
from risen_plugin.attached import Attached
from risen_plugin.buffers.buffers import FILE as BUFFERS_FILE
from risen_plugin.buffers.buffers import Buffers
from risen_plugin.burst import check_burst_fields, run_burst
from risen_plugin.clean_room import clean_room
from risen_plugin.config import DEFAULT_GRPO, GuardConfig, RisenConfig, check_batches
from risen_plugin.contracts import Decision, PhaseRecord, Progress
from risen_plugin.distributed import running_processes
from risen_plugin.errors import ConfigError, RecordError, RisenError
from risen_plugin.fitness import (
    check_arguments,
    check_model,
    check_targets,
    limit_rewards,
    longest_prompt,
)
from risen_plugin.held_out import Surroundings
from risen_plugin.history import History
from risen_plugin.instructions import Instructions, told
from risen_plugin.measure import encode_probe, prompt_ids
from risen_plugin.outcomes import Scores
from risen_plugin.panel import Panel
from risen_plugin.phase import run_phase
from risen_plugin.probe import load_probe
from risen_plugin.processes import ALONE, is_everywhere
from risen_plugin.record import Record, read_state, state_path, write_json, writing
from risen_plugin.reinforce import check_grpo_fields
from risen_plugin.schedule import decide
from risen_plugin.scoring import PassRates, totals, verdicts

_log = logging.getLogger("risen_plugin")
_NO_PROBE = (
    "there is nothing to measure retention on: give RisenConfig(probe=...) rows or a JSON Lines "
    "file, or attach the callback to a Trainer that has an eval_dataset"
)


class RisenCallback(TrainerCallback):
    """Switches a Trainer between fine-tuning and RISEN phases.

    :param config: the configuration; or its fields as keyword arguments.

    Example::

        RisenCallback(
            rewards=["constraints"],
            generator=use("constraints", path="prompts.jsonl"),
            scheduler=use("after", steps=60),
        ).attach(trainer)

    :raises RisenError: at once for unknown names, options, fields or columns; at the start of
        training for a model, tokenizer or arguments that do not fit.
    """

    def __init__(self, config: RisenConfig | None = None, **fields: Any) -> None:
        if config is not None and not isinstance(config, RisenConfig):
            raise ConfigError(
                f"RisenCallback takes a RisenConfig, not {config!r:.60}; for a YAML file give "
                "RisenConfig.from_yaml(path)"
            )
        if config is None:
            config = _config_from(fields)
        elif fields:
            config = dataclasses.replace(config, **fields)
        self.config = config
        check_grpo_fields(config.grpo, "grpo")
        self.parts = assemble(config)
        self.instructions = Instructions(
            self.parts, config.seed, curriculum=config.curriculum, reserve=config.reserve
        )
        self.pass_rates = PassRates(self.parts.rewards)
        self.panel = Panel(self.parts.rewards, config.breaker, self.parts.gate)
        self.buffers = Buffers(config.buffers, self.parts.rewards)
        self.panel.listeners += [self.pass_rates.take, self._answered, self.buffers.take]
        self.history = History(self.pass_rates, counts=self.buffers.counts)
        self._attached: Attached | None = None
        self._around: Surroundings | None = None
        self._record: Record | None = None
        self._processes = ALONE
        self._quiet = False
        self._resumed_at_end = False
        self._initial = copy.deepcopy(self.state_dict())

    def attach(self, trainer: Trainer) -> RisenCallback:
        """Add this callback to ``trainer`` and reach its loggers, metrics and evaluation set.

        :raises ConfigError: if the trainer's arguments or model do not fit, or another
            RisenCallback is there already.
        """
        if not isinstance(trainer, Trainer):
            raise ConfigError(f"attach takes a Trainer, not {trainer!r:.60}")
        others = [c for c in trainer.callback_handler.callbacks if isinstance(c, RisenCallback)]
        if any(other is not self for other in others):
            raise ConfigError(
                "this Trainer has a RisenCallback already; one run has one, with all the rewards "
                "and one scheduler"
            )
        check_arguments(trainer.args)
        check_model(trainer.model, trainer.processing_class)
        check_targets(trainer.model, self.config.lora.target_modules)
        self._attached = Attached(trainer)
        if not others:
            trainer.add_callback(self)
        return self

    @property
    def phases(self) -> tuple[PhaseRecord, ...]:
        """The phases of the run that have ended, oldest first."""
        return self.history.phases

    # Trainer events ---------------------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        check_arguments(args)
        model: Any = kwargs["model"]
        tokenizer: Any = kwargs.get("processing_class")
        check_model(model, tokenizer)
        check_targets(model, self.config.lora.target_modules)
        self._processes = processes = running_processes()
        self.panel.processes = processes
        self.instructions.keeps_pool = processes.is_main
        limit_rewards(self.parts.rewards, args.ddp_timeout, processes.count)
        grpo = {**DEFAULT_GRPO, **self.config.grpo}
        longest = longest_prompt(model, grpo["max_completion_length"])
        self.instructions.longest = longest
        self.instructions.count_tokens = lambda prompt: len(prompt_ids(tokenizer, prompt))
        self._quiet = bool(args.disable_tqdm) or not processes.is_main
        self.instructions.close_pool()
        # Drawn from the plugins' first state, so that a resumed run sets the same rows apart.
        self.load_state_dict(self._initial)
        guard = self.config.guard
        self.instructions.take_over(processes.main(partial(self._set_apart, guard)))
        if self.instructions.reserved:
            self._say(
                f"RISEN reserves the {told(self.instructions.reserved)}: measured, never trained on"
            )
        found = processes.main(partial(self._found, args, state))
        if found is not None:
            self.load_state_dict(found)
        self._around = Surroundings(
            model=model,
            tokenizer=tokenizer,
            args=args,
            config=self.config,
            rewards=self.parts.rewards,
            panel=self.panel,
            instructions=self.instructions,
            pass_rates=self.pass_rates,
            probe=encode_probe(tokenizer, self._probe_rows(), longest),
            buffers=self.buffers,
            domain=self._attached.domain(guard.probe_rows) if self._attached else None,
            others=self._attached.restored() if self._attached else (),
            quiet=self._quiet,
            processes=processes,
        )
        self._record = Record(str(args.output_dir))
        processes.main(partial(self._begin_record, args, state))
        place = self._record.folder / BUFFERS_FILE
        resumed = self._resumed_from(args) / BUFFERS_FILE
        processes.gather(partial(self.buffers.keep, place, resumed, writes=processes.is_main))
        self.history.start_clock()
        if self._attached is None and processes.is_main:
            _log.warning(
                "RisenCallback is not attached to the Trainer: phases are recorded under %s, but "
                "not in the Trainer's loggers, and compute_metrics is not measured; use "
                "RisenCallback(...).attach(trainer)",
                self._record.folder,
            )
        self._resumed_at_end = state.global_step >= state.max_steps
        self._observe("risen_phase_started", self.history.present(state.global_step), state)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Resumed in mid-epoch at max_steps, the Trainer takes one step too many before it looks
        # (transformers 5.23, _run_epoch). Without gradients the optimizer changes nothing.
        if self._resumed_at_end:
            for parameter in kwargs["model"].parameters():
                parameter.grad = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._resumed_at_end:
            state.global_step = state.max_steps
            control.should_training_stop = True
            return
        progress = self.history.progress(state.global_step, state.max_steps)
        label = self.parts.scheduler.label
        # Clocks differ, and a scheduler may look at them: one process decides for all.
        decision = self._processes.main(partial(decide, self.parts.schedule, progress, label))
        if decision.phase == "risen":
            self._check_parameters(decision.parameters, kwargs["model"])
            self._risen(decision, state, progress)
        elif decision.phase == "burst":
            check_burst_fields(decision.parameters, self.config.buffers, self.parts.scheduler.label)
            lacking = self.buffers.lacking(self.instructions.is_held_out)
            if lacking is None:
                self._risen(decision, state, progress)
            elif self.buffers.is_news(lacking):
                self._say(f"step {state.global_step}: no burst ({decision.reason}): {lacking}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs:
            self.history.add_losses(state.global_step, logs)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.history.add_evaluation(state.global_step, metrics or {})

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if self._processes.is_main and checkpoint.is_dir():
            with writing(checkpoint):
                write_json(state_path(checkpoint), self.state_dict())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._around is None:
            return
        last = self.history.present(state.global_step)
        if last.steps:
            self._observe("risen_phase_ended", last, state, metrics=last.metrics)
        self.instructions.close_pool()
        self._around = None  # holds the model

    # State ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as JSON values."""
        return {
            "version": __version__,
            "history": self.history.state_dict(),
            "instructions": self.instructions.state_dict(),
            "buffers": self.buffers.state_dict(),
            "plugins": {role: part.state_dict() for role, part in self.parts.stateful().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self.history.load_state_dict(state["history"])
        self.instructions.load_state_dict(state["instructions"])
        self.buffers.load_state_dict(state.get("buffers"))
        for role, part in self.parts.stateful().items():
            if role in state["plugins"]:
                part.load_state_dict(state["plugins"][role])

    def _answered(
        self,
        step: int,
        prompts: list[Any],
        completions: list[Any],
        columns: Mapping[str, Any],
        outcomes: Mapping[str, Scores],
    ) -> None:
        """Hand a scored batch to the curriculum: all that it needs of the rewards."""
        if not self._processes.is_main:
            return
        rewards = self.parts.rewards
        passed = verdicts(rewards, outcomes)
        self.instructions.answered(prompts, passed, totals(rewards, outcomes), completions)

    # Inside -----------------------------------------------------------------------------------

    def _risen(self, decision: Decision, state: TrainerState, progress: Progress) -> None:
        assert self._around is not None
        assert self._record is not None
        entry = copy.deepcopy(self.state_dict())
        kind = decision.phase
        number = sum(record.kind == kind for record in self.phases) + 1
        name, run = (f"RISEN phase {number}", run_phase)
        folder = self._record.phase_folder(number)
        if kind == "burst":
            name, run = (f"burst {number}", run_burst)
            folder = folder.with_name(f"burst-{number:03d}")
        stretch = progress.phases[-1]
        if stretch.steps:
            self.history.add(stretch)
            self._observe("risen_phase_ended", stretch, state, metrics=stretch.metrics)
        self._say(
            f"step {state.global_step}: fine-tune -> {name} of "
            f"{decision.steps} steps ({decision.reason})"
        )
        self._event(
            "decision", step=state.global_step, number=number, **dataclasses.asdict(decision)
        )
        planned = PhaseRecord(kind, decision.steps, state.global_step, decision.reason)
        self._observe("risen_phase_started", planned, state)
        self.instructions.context["held_out_adherence"] = [
            float(phase.metrics["guard/adherence_strict_after"])
            for phase in self.phases
            if "guard/adherence_strict_after" in phase.metrics
        ]
        try:
            record = run(
                self._around, decision, number=number, at_step=state.global_step, folder=folder
            )
        except Exception as error:
            if self._processes.count == 1 or is_everywhere(error):
                self._rescue(error, entry)
                # The first process that ends takes the others with it, also one that still saves.
                self._processes.gather(lambda: None)
            raise
        self.history.add(record)
        verdict = "kept" if record.accepted else "dropped"
        self._say(f"step {state.global_step}: {name} {verdict}: {record.metrics['verdict']}")
        held = self.buffers.told(record.metrics)
        if held:
            self._say(f"step {state.global_step}: {name}: {held}")
        for reward, example in record.metrics.get("error_examples", {}).items():
            self._say(
                f"step {state.global_step}: {name}: {reward} failed on "
                f"{record.metrics[f'reward_errors/{reward}']} answers, which were left out; "
                f"for example: {example}"
            )
        self._event("phase", step=state.global_step, number=number, **dataclasses.asdict(record))
        if self._attached is not None:
            self._attached.log(record, number)
        self._observe("risen_phase_ended", record, state, metrics=record.metrics)
        if state.global_step < state.max_steps:
            follows = self.history.present(state.global_step)
            self._observe("risen_phase_started", follows, state)

    def _rescue(self, error: Exception, entry: Mapping[str, Any]) -> None:
        """Save the run as it was when the phase that failed began: hours of fine-tuning, maybe.

        Where it lies is added to the error. A disk that takes no more keeps what it had.
        """
        assert self._around is not None
        assert self._record is not None
        self.load_state_dict(entry)
        self.history.start_clock()
        place = self._record.folder / "before-failure"
        model, tokenizer = self._around.model, self._around.tokenizer
        try:
            with clean_room(model, tokenizer):  # saving writes into the model's config
                if self._attached is not None:
                    place = self._attached.checkpoint()
                elif self._processes.is_main:
                    model.save_pretrained(place)
                    tokenizer.save_pretrained(place)
        except (OSError, SafetensorError, RecordError, RuntimeError):
            if place.name == "before-failure":
                shutil.rmtree(place, ignore_errors=True)
            return
        told = f"the model as it was before the phase is in {place}"
        if isinstance(error, RisenError):
            error.args = (f"{error}; {told}",)
        else:
            error.add_note(told)

    def _check_parameters(self, parameters: Mapping[str, Any], model: Any) -> None:
        label = self.parts.scheduler.label
        check_grpo_fields(parameters, label)
        grpo = {**DEFAULT_GRPO, **self.config.grpo, **parameters}
        check_batches(grpo, label)
        self.instructions.longest = longest_prompt(model, grpo["max_completion_length"], label)

    def _set_apart(self, guard: GuardConfig) -> dict[str, Any]:
        self.instructions.set_apart(guard.rows, guard.report_rows)
        return self.instructions.held_out()

    def _begin_record(self, args: TrainingArguments, state: TrainerState) -> None:
        assert self._record is not None
        self._record.begin(self._description(args), step=state.global_step)
        pool = self._record.pool
        self.instructions.keep_pool(pool, self._resumed_from(args) / pool.name)

    def _found(self, args: TrainingArguments, state: TrainerState) -> dict[str, Any] | None:
        """The state of the checkpoint that is resumed; None for a run without one of ours."""
        if state.global_step == 0:
            return None
        places = [Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"]
        if args.resume_from_checkpoint:
            places.insert(0, Path(args.resume_from_checkpoint))
        for place in places:
            found = read_state(place)
            if found is not None:
                return found
        self._say(
            f"step {state.global_step}: this run was begun without RISEN; it joins in from here"
        )
        return None

    def _resumed_from(self, args: TrainingArguments) -> Path:
        """The folder of the record that a checkpoint, maybe of another folder, is of."""
        if not args.resume_from_checkpoint:
            return Record(str(args.output_dir)).folder
        return Record(Path(args.resume_from_checkpoint).parent).folder

    def _probe_rows(self) -> list[Mapping[str, Any]]:
        most = self.config.guard.probe_rows
        if self.config.probe is not None:
            rows = load_probe(self.config.probe)[:most]
        else:
            rows = self._attached.evaluation_rows(most) if self._attached else []
        if not rows:
            raise ConfigError(_NO_PROBE)
        return rows

    def _description(self, args: TrainingArguments) -> dict[str, Any]:
        return {
            "risen_plugin": __version__,
            "plugins": dict(self.parts.origins),
            "rewards": [
                {
                    "name": r.__name__,
                    "label": r.label,
                    "weight": r.weight,
                    "on_error": r.on_error,
                    "timeout_s": r.timeout_s,
                    "uses": repr(r.reward),
                }
                for r in self.parts.rewards
            ],
            "generator": {"label": self.parts.generator.label},
            "scheduler": {
                "label": self.parts.scheduler.label,
                "uses": repr(self.parts.scheduler.value),
            },
            "guard": dataclasses.asdict(self.config.guard),
            "breaker": dataclasses.asdict(self.config.breaker),
            "gate": self.parts.gate.describe() if self.parts.gate else None,
            "lora": dataclasses.asdict(self.config.lora),
            "grpo": {**DEFAULT_GRPO, **self.config.grpo},
            "curriculum": self.config.curriculum and dataclasses.asdict(self.config.curriculum),
            "buffers": self.buffers.describe(),
            "reserved": sorted(self.instructions.reserved),
            "seed": self.config.seed,
            "processes": self._processes.count,
            "output_dir": args.output_dir,
        }

    def _event(self, name: str, **values: Any) -> None:
        assert self._record is not None
        if self._processes.is_main:
            with writing(self._record.folder):
                self._record.event(name, **values)

    def _say(self, line: str) -> None:
        """One line for the log; above the progress bars where nobody listens to the log."""
        if not self._processes.is_main:
            return
        if _log.isEnabledFor(logging.INFO):
            _log.info(line)
        elif not self._quiet:
            tqdm.write(line, file=sys.stderr)

    def _observe(self, hook: str, phase: PhaseRecord, state: TrainerState, **more: Any) -> None:
        if not self._processes.is_main:
            return
        progress = self.history.progress(state.global_step, state.max_steps)
        self.parts.plugins.observe(hook, phase=phase, progress=progress, **more)


def _config_from(fields: Mapping[str, Any]) -> RisenConfig:
    """A configuration from keyword arguments, with the messages that YAML gets."""
    from risen_plugin.config import check_keys

    known = {entry.name for entry in dataclasses.fields(RisenConfig)}
    check_keys(fields, known, "RisenCallback")
    for name in ("rewards", "generator", "scheduler"):
        if name not in fields:
            raise ConfigError(f"RisenCallback lacks '{name}'")
    return RisenConfig(**fields)
