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
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from risen_plugin import __version__
from risen_plugin.assembly import assemble
from risen_plugin.attached import Attached
from risen_plugin.buffers.buffers import FILE as BUFFERS_FILE
from risen_plugin.buffers.buffers import Buffers
from risen_plugin.burst import check_burst_fields, run_burst
from risen_plugin.clean_room import clean_room
from risen_plugin.config import (
    DEFAULT_GRPO,
    GuardConfig,
    RisenConfig,
    check_batches,
    check_control,
)
from risen_plugin.contracts import Decision, PhaseRecord, Progress
from risen_plugin.control import Controllers
from risen_plugin.decisions import Decisions
from risen_plugin.description import describe
from risen_plugin.distributed import running_processes
from risen_plugin.errors import ConfigError, RecordError, RisenError
from risen_plugin.families import told
from risen_plugin.fitness import (
    check_arguments,
    check_model,
    check_targets,
    limit_rewards,
    longest_prompt,
)
from risen_plugin.held_out import Surroundings
from risen_plugin.history import History
from risen_plugin.instructions import Instructions
from risen_plugin.measure import encode_probe, prompt_ids
from risen_plugin.outcomes import Scores
from risen_plugin.panel import Panel
from risen_plugin.phase import run_phase
from risen_plugin.probe import load_probe
from risen_plugin.processes import ALONE, is_everywhere
from risen_plugin.record import Record, writing
from risen_plugin.reinforce import check_grpo_fields
from risen_plugin.resuming import Resuming
from risen_plugin.schedule import decide
from risen_plugin.scoring import PassRates, totals, verdicts
from risen_plugin.surroundings import device_names, surroundings
from risen_plugin.telling import Telling

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
        self.decisions = Decisions()
        self.controllers = Controllers(config.control)
        self.resuming = Resuming(config, self.parts.origins, __version__)
        self.telling = Telling(self.parts.plugins)
        self._attached: Attached | None = None
        self._around: Surroundings | None = None
        self._record: Record | None = None
        self._processes = ALONE
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
        self.resuming.mend(trainer.args, _log.warning)
        return self

    @property
    def phases(self) -> tuple[PhaseRecord, ...]:
        """The phases of the run that have ended, oldest first."""
        return self.history.phases

    # Trainer events ---------------------------------------------------------------------------

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.resuming.mend(args, _log.warning)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        check_arguments(args)
        model: Any = kwargs["model"]
        tokenizer: Any = kwargs.get("processing_class")
        check_model(model, tokenizer)
        check_targets(model, self.config.lora.target_modules)
        self._processes = self.telling.processes = processes = running_processes()
        self.panel.processes = processes
        self.instructions.keeps_pool = processes.is_main
        limit_rewards(self.parts.rewards, args.ddp_timeout, processes.count)
        grpo = {**DEFAULT_GRPO, **self.config.grpo}
        longest = longest_prompt(model, grpo["max_completion_length"])
        self.instructions.longest = longest
        self.instructions.count_tokens = lambda prompt: len(prompt_ids(tokenizer, prompt))
        self.telling.quiet = bool(args.disable_tqdm) or not processes.is_main
        self.instructions.close_pool()
        # Drawn from the plugins' first state, so that a resumed run sets the same rows apart.
        self.load_state_dict(self._initial)
        guard = self.config.guard
        self.instructions.take_over(processes.main(partial(self._set_apart, guard)))
        if self.instructions.reserved:
            self.telling.say(
                f"RISEN reserves the {told(self.instructions.reserved)}: measured, never trained on"
            )
        self._restore(args, state)
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
            controllers=self.controllers,
            buffers=self.buffers,
            domain_reward=self.parts.domain,
            tasks=self.parts.tasks,
            domain=self._attached.domain(guard.probe_rows) if self._attached else None,
            others=self._attached.restored() if self._attached else (),
            quiet=self.telling.quiet,
            processes=processes,
        )
        self._record = Record(str(args.output_dir), lambda: self.history.elapsed_s)
        self.telling.record = self._record
        processes.main(partial(self._begin_record, args, state, model))
        self._around.keeping = self._record.keeping
        self._around.told = self._tell_loggers
        place = self._record.folder / BUFFERS_FILE
        resumed = self._resumed_from(args) / BUFFERS_FILE
        processes.gather(partial(self.buffers.keep, place, resumed, writes=processes.is_main))
        self.parts.plugins.on_failure = lambda plugin, how: self.telling.failure(
            step=state.global_step, number=None, plugin=plugin, reason=how
        )
        self.history.start_clock()
        if self._attached is None and processes.is_main:
            _log.warning(
                "RisenCallback is not attached to the Trainer: phases are recorded under %s, but "
                "not in the Trainer's loggers, and compute_metrics is not measured; use "
                "RisenCallback(...).attach(trainer)",
                self._record.folder,
            )
        self._resumed_at_end = state.global_step >= state.max_steps
        if self.resuming.pending is not None:
            self._check_parameters(self.resuming.pending, model)
            self._enter(state)
        else:
            self._observe("risen_phase_started", self.history.present(state.global_step), state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.resuming.withdraw(args)
        self._enter(state)  # the checkpoint that it waited for did not come

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._enter(state)
        if control.should_save:
            self.resuming.announce(args, state.global_step)

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
            control.should_save = False  # it is there
            return
        progress = self.history.progress(state.global_step, state.max_steps)
        label = self.parts.scheduler.label
        # Clocks differ, and a scheduler may look at them: one process decides for all.
        decision = self._processes.main(partial(decide, self.parts.schedule, progress, label))
        if self.decisions.is_news(decision) and decision.phase == "fine_tune":
            self._go_on(decision, state)
        if decision.phase != "fine_tune":
            self._check_parameters(decision, kwargs["model"])
            if decision.phase == "risen" or self._has_rows(decision, state):
                self.resuming.pending = decision
                if self.resuming.waits(args):
                    control.should_save = True
                else:
                    self._enter(state)
        if control.should_save:
            self.resuming.announce(args, state.global_step)

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
        if "loss" in (logs or {}):
            self._note("log", state, logs)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.history.add_evaluation(state.global_step, metrics or {})
        self._note("evaluation", state, metrics)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self._record is not None
        with writing(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"):
            self.resuming.complete(
                args, state.global_step, self.state_dict(), self._record.position()
            )
        self.resuming.is_saved = self._processes.agree(self.resuming.is_saved)
        self._enter(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._around is None:
            return
        self._enter(state)
        if all(phase.kind != "risen" for phase in self.phases):
            why = self.decisions.reason or "its scheduler was not asked"
            self.telling.say(f"step {state.global_step}: the run ends without RISEN phase ({why})")
        last = self.history.present(state.global_step)
        if last.steps:
            self._observe("risen_phase_ended", last, state, metrics=last.metrics)
        self.instructions.close_pool()
        self._around = None  # holds the model
        if self._record is not None:
            self._record.close()

    # State ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as JSON values."""
        return {
            "version": __version__,
            "trainer": self._attached.unlogged() if self._attached else None,
            "history": self.history.state_dict(),
            "decisions": self.decisions.state_dict(),
            "instructions": self.instructions.state_dict(),
            "buffers": self.buffers.state_dict(),
            "plugins": {role: part.state_dict() for role, part in self.parts.stateful().items()},
            "controllers": self.controllers.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self.history.load_state_dict(state["history"])
        self.decisions.load_state_dict(state.get("decisions", {}))
        self.instructions.load_state_dict(state["instructions"])
        self.controllers.load_state_dict(state.get("controllers", {}))
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

    def _go_on(self, decision: Decision, state: TrainerState) -> None:
        """Tell why the run goes on with fine-tuning."""
        number = sum(record.kind == "risen" for record in self.phases)
        self.telling.say(f"step {state.global_step}: fine-tune goes on ({decision.reason})")
        self.telling.event(
            "decision", step=state.global_step, number=number, **dataclasses.asdict(decision)
        )

    def _has_rows(self, decision: Decision, state: TrainerState) -> bool:
        """Whether a burst has something to fine-tune on; tells what it lacks, once."""
        lacking = self.buffers.lacking(self.instructions.is_held_out)
        if lacking is not None and self.buffers.is_news(lacking):
            self.telling.say(f"step {state.global_step}: no burst ({decision.reason}): {lacking}")
        return lacking is None

    def _enter(self, state: TrainerState) -> None:
        """Begin the phase that was decided on, or go on with one that was cut off."""
        decision = self.resuming.pending
        if decision is None:
            return
        assert self._around is not None
        assert self._record is not None
        self._risen(decision, state, self.history.progress(state.global_step, state.max_steps))
        self.resuming.pending, self.resuming.begins_again = None, False
        if state.global_step >= state.max_steps:  # no checkpoint follows
            with writing(self._record.folder):
                self.resuming.finish(
                    self._around.args,
                    state,
                    self._around.model,
                    self.state_dict(),
                    self._record.position(),
                )
        self.resuming.is_saved = False

    def _risen(self, decision: Decision, state: TrainerState, progress: Progress) -> None:
        assert self._around is not None
        assert self._record is not None
        entry = copy.deepcopy(self.state_dict())
        kind = decision.phase
        number = sum(record.kind == kind for record in self.phases) + 1
        folder = self._record.phase_folder(number)
        run: Callable[..., PhaseRecord]
        goes_on = None
        if kind == "burst":
            name, run = f"burst {number}", run_burst
            folder = folder.with_name(f"burst-{number:03d}")
        else:
            checkpoints = self.resuming.phase(self._around.args, folder)
            goes_on = checkpoints.kept
            name = f"RISEN phase {number}"
            run = partial(run_phase, checkpoints=checkpoints, run_state=self._run_state)
        stretch = progress.phases[-1]
        if stretch.steps:
            self.history.add(stretch)
            self._observe("risen_phase_ended", stretch, state, metrics=stretch.metrics)
        if goes_on is None:
            again = self.resuming.begins_again
            begins = f"{name} begins again with" if again else f"fine-tune -> {name} of"
            self.telling.say(
                f"step {state.global_step}: {begins} {decision.steps} steps ({decision.reason})"
            )
            self.telling.event(
                "decision", step=state.global_step, number=number, **dataclasses.asdict(decision)
            )
        else:
            self.telling.say(
                f"step {state.global_step}: {name} goes on after {goes_on.step} of "
                f"{decision.steps} steps"
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
                self._around,
                decision,
                number=number,
                at_step=state.global_step,
                folder=folder,
                tell=partial(self.telling.event, step=state.global_step, number=number),
            )
        except Exception as error:
            if self._processes.count == 1 or is_everywhere(error):
                self._rescue(error, entry, state)
                # The first process that ends takes the others with it, also one that still saves.
                self._processes.gather(lambda: None)
            self.telling.failure(
                step=state.global_step,
                number=number,
                plugin=None,
                reason=f"the phase failed: {error}",
            )
            raise
        self.history.add(record)
        held = self.buffers.told(record.metrics)
        self.telling.outcome(record, name, number, step=state.global_step, held=held)
        self.telling.event(
            "phase", step=state.global_step, number=number, **dataclasses.asdict(record)
        )
        if self._attached is not None:
            self._attached.log(record, number)
        self._observe("risen_phase_ended", record, state, metrics=record.metrics)
        if state.global_step < state.max_steps:
            follows = self.history.present(state.global_step)
            self._observe("risen_phase_started", follows, state)

    def _rescue(self, error: Exception, entry: Mapping[str, Any], state: TrainerState) -> None:
        """Save the run as it was when the phase that failed began: hours of fine-tuning, maybe.

        Where it lies is added to the error. A disk that takes no more keeps what it had.
        """
        assert self._around is not None
        assert self._record is not None
        saved = self.resuming.place_before(self._around.args, state.global_step)
        self.resuming.pending = None
        self.load_state_dict(entry)
        self.history.start_clock()
        place = self._record.folder / "before-failure"
        model, tokenizer = self._around.model, self._around.tokenizer
        try:
            with clean_room(model, tokenizer):  # saving writes into the model's config
                if saved is not None:
                    place = saved
                elif self._attached is not None:
                    self.resuming.announce(self._around.args, state.global_step)
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

    def _check_parameters(self, decision: Decision, model: Any) -> None:
        label, parameters = self.parts.scheduler.label, decision.parameters
        if decision.phase == "burst":
            check_burst_fields(parameters, self.config.buffers, label)
            return
        check_grpo_fields(parameters, label)
        grpo = {**DEFAULT_GRPO, **self.config.grpo, **parameters}
        check_batches(grpo, label)
        check_control(self.config.control, grpo, label)
        self.instructions.longest = longest_prompt(model, grpo["max_completion_length"], label)

    def _set_apart(self, guard: GuardConfig) -> dict[str, Any]:
        self.instructions.set_apart(guard.rows, guard.report_rows)
        return self.instructions.held_out()

    def _begin_record(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        assert self._record is not None
        with writing(self._record.folder):
            self._record.begin(
                {**self._described(args, model), "max_steps": state.max_steps},
                step=state.global_step,
            )
            if self.resuming.events is not None:
                self._record.cut(self.resuming.events)
        pool = self._record.pool
        self.instructions.keep_pool(pool, self._resumed_from(args) / pool.name)

    def _restore(self, args: TrainingArguments, state: TrainerState) -> None:
        found = self._processes.gather(
            partial(self.resuming.resume, args, state, self.telling.say)
        )[self._processes.rank]
        if found is not None:
            self.load_state_dict(found)
            if self._attached is not None and found.get("trainer"):
                self._attached.go_on_logging(found["trainer"])
        elif state.global_step:
            self.telling.say(
                f"step {state.global_step}: this run was begun without RISEN; it joins in from here"
            )

    def _resumed_from(self, args: TrainingArguments) -> Path:
        """The folder of the record that a checkpoint, maybe of another folder, is of."""
        place = self.resuming.place
        return Record(str(args.output_dir) if place is None else place.parent).folder

    def _probe_rows(self) -> list[Mapping[str, Any]]:
        most = self.config.guard.probe_rows
        if self.config.probe is not None:
            rows = load_probe(self.config.probe)[:most]
        else:
            rows = self._attached.evaluation_rows(most) if self._attached else []
        if not rows:
            raise ConfigError(_NO_PROBE)
        return rows

    def _described(self, args: TrainingArguments, model: Any) -> dict[str, Any]:
        """The description with what the run stands on."""
        assert self._around is not None
        description = describe(
            self.config,
            self.parts,
            buffers=self.buffers.describe(),
            reserved=self.instructions.reserved,
            processes=self._processes.count,
            output_dir=args.output_dir,
        )
        return description | surroundings(
            description,
            distributions=[origin.partition(" ")[0] for origin in self.parts.origins.values()],
            held_out={
                "guard": self.instructions.guard,
                "report": self.instructions.report,
                "unseen": self.instructions.unseen,
            },
            probe=self._around.probe,
            devices=device_names(model),
        )

    def _run_state(self) -> dict[str, Any]:
        """The state of the run for a checkpoint of the phase that it is in."""
        assert self._record is not None
        return {**self.state_dict(), "events": self._record.position()}

    def _note(self, name: str, state: TrainerState, numbers: Mapping[str, Any] | None) -> None:
        if self._around is not None:
            self.telling.note(name, state.global_step, numbers)

    def _tell_loggers(self, number: int, step: int, numbers: Mapping[str, float]) -> None:
        if self._attached is not None:
            earlier = sum(phase.steps for phase in self.phases if phase.kind == "risen")
            self._attached.log_series(numbers, at=earlier + step, ours=self)

    def _observe(self, hook: str, phase: PhaseRecord, state: TrainerState, **more: Any) -> None:
        progress = self.history.progress(state.global_step, state.max_steps)
        self.telling.observe(hook, phase, progress, **more)


def _config_from(fields: Mapping[str, Any]) -> RisenConfig:
    """A configuration from keyword arguments, with the messages that YAML gets."""
    from risen_plugin.config import check_keys

    known = {entry.name for entry in dataclasses.fields(RisenConfig)}
    check_keys(fields, known, "RisenCallback")
    for name in ("rewards", "generator"):
        if name not in fields:
            raise ConfigError(f"RisenCallback lacks '{name}'")
    return RisenConfig(**fields)
