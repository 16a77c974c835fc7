"""One training run, from its first event to its last: its phases begin here and end here.

The scheduler decides when a phase begins, and ``phases`` carries it out.
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import TrainerState

from risen_plugin.config import check_batches, check_control, effective_grpo
from risen_plugin.contracts import Decision, PhaseRecord
from risen_plugin.errors import RecordError, RisenError
from risen_plugin.kit.processes import is_everywhere
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.risen import RisenPhase
from risen_plugin.phases.trial import Trial
from risen_plugin.record.run_record import Record, writing
from risen_plugin.run.announcing import Announcer
from risen_plugin.run.deciding import decide
from risen_plugin.run.resuming import Resuming
from risen_plugin.run.state import RunState
from risen_plugin.training.adapters import as_saved
from risen_plugin.training.answering import longest_prompt
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.grpo import check_grpo_fields
from risen_plugin.training.outer_trainer import OuterTrainer


class ActiveRun:
    """Carries out the decisions of the scheduler, until the run ends.

    :param run_state: the state that outlives the run.
    :param context: the objects that its phases work with.
    :param outer: the Trainer, where the callback is attached to one.
    """

    def __init__(
        self,
        run_state: RunState,
        context: PhaseContext,
        *,
        record: Record,
        announcer: Announcer,
        resuming: Resuming,
        outer: OuterTrainer | None,
    ) -> None:
        self.run_state = run_state
        self.context = context
        self.record = record
        self.announcer = announcer
        self.resuming = resuming
        self.outer = outer

    # The story of a run: begin, decide after each step, save, end

    def begin(self, state: TrainerState) -> None:
        """Go on with a phase that was cut off, or begin to fine-tune."""
        pending = self.resuming.pending
        if pending is not None:
            self._check_parameters(pending)
            self.enter(state)
        else:
            present = self.run_state.history.present(state.global_step)
            self._observe("risen_phase_started", present, state)

    def decide(self, state: TrainerState) -> bool:
        """Ask the scheduler after a step; whether a phase waits for a checkpoint now."""
        run_state = self.run_state
        progress = run_state.history.progress(state.global_step, state.max_steps)
        parts = run_state.parts
        # Clocks differ, and a scheduler may look at them: one process decides for all.
        decision = self.context.processes.main(
            partial(decide, parts.schedule, progress, parts.scheduler.label)
        )
        if run_state.decisions.is_news(decision) and decision.phase == "fine_tune":
            self._announce_fine_tuning(decision, state.global_step)
        if decision.phase == "fine_tune":
            return False
        self._check_parameters(decision)
        if decision.phase == "burst" and not self._has_rows(decision, state.global_step):
            return False
        if self.resuming.defer(decision):
            return True
        self.enter(state)
        return False

    def saved(self, state: TrainerState, *, is_last: bool = False) -> None:
        """Complete a checkpoint that the Trainer has just written; begin the phase that waited.

        :param is_last: whether the run ends here, be it before its last step.
        """
        step = state.global_step
        with writing(Path(str(self.context.args.output_dir)) / f"checkpoint-{step}"):
            self.resuming.complete(step, self.state_dict(), self.record.position())
        self.enter(state, is_last=is_last)

    def enter(self, state: TrainerState, *, is_last: bool = False) -> None:
        """Begin the phase that was decided on, or go on with one that was cut off."""
        resuming = self.resuming
        if resuming.pending is None:
            return
        self.try_out(resuming.pending, state)
        resuming.phase_over()
        if is_last or state.global_step >= state.max_steps:  # no checkpoint follows
            with writing(self.record.folder):
                resuming.finish(
                    state, as_saved(self.context.model), self.state_dict(), self.record.position()
                )
        resuming.go_on()

    def try_out(self, decision: Decision, state: TrainerState) -> None:
        """Run one phase or burst, and announce its beginning and its end."""
        run_state, step = self.run_state, state.global_step
        entry = copy.deepcopy(self.state_dict())
        number = sum(phase.kind == decision.phase for phase in run_state.history.phases) + 1
        stretch = run_state.history.present(step)
        if stretch.steps:
            run_state.history.add(stretch)
            self._observe("risen_phase_ended", stretch, state, metrics=stretch.metrics)
        begun = PhaseRecord(decision.phase, decision.steps, step, decision.reason)
        try:
            trial = self._trial(decision, number, step)
            self._announce_beginning(trial)
            self._observe("risen_phase_started", begun, state)
            record = trial.run()
        except Exception as error:
            self._failed(error, entry, state, number)
            raise
        run_state.history.add(record)
        self._announce_end(record, trial, state)

    def end(self, state: TrainerState) -> None:
        """Carry out a phase that still waits, and let go of the folder."""
        self.enter(state)
        run_state, step = self.run_state, state.global_step
        if all(phase.kind != "risen" for phase in run_state.history.phases):
            why = run_state.decisions.reason or "its scheduler was not asked"
            self.announcer.announce(f"step {step}: the run ends without RISEN phase ({why})")
        last = run_state.history.present(step)
        if last.steps:
            self._observe("risen_phase_ended", last, state, metrics=last.metrics)
        run_state.instructions.close_pool()
        if self.context.processes.is_main:
            shutil.rmtree(self.record.rollout, ignore_errors=True)
        self.record.close()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as JSON values."""
        return self.run_state.state_dict(self.outer)

    # Before a phase

    def _trial(self, decision: Decision, number: int, step: int) -> Trial:
        """The RISEN phase or burst that was decided on.

        :param number: counted from 1 among the trials of its kind.
        """
        folder = self.record.phase_folder(number)
        announce = partial(self.announcer.event, step=step, number=number)
        if decision.phase == "burst":
            from risen_plugin.phases.burst import Burst  # most runs have none

            return Burst(
                self.context,
                decision,
                number=number,
                at_step=step,
                folder=folder.with_name(f"burst-{number:03d}"),
                announce=announce,
            )
        return RisenPhase(
            self.context,
            decision,
            number=number,
            at_step=step,
            folder=folder,
            announce=announce,
            checkpoints=self.resuming.phase(folder),
            run_state=lambda: {**self.state_dict(), "events": self.record.position()},
            held_out_adherence=self.run_state.history.held_out_adherence(),
        )

    def _has_rows(self, decision: Decision, step: int) -> bool:
        """Whether a burst has rows to fine-tune on; announces once why it has none."""
        buffers = self.run_state.buffers
        lacking = buffers.lacking(self.run_state.instructions.held_out.has)
        if lacking is not None and buffers.is_news(lacking):
            self.announcer.announce(f"step {step}: no burst ({decision.reason}): {lacking}")
        return lacking is None

    def _check_parameters(self, decision: Decision) -> None:
        config, label = self.run_state.config, self.run_state.parts.scheduler.label
        if decision.phase == "burst":
            from risen_plugin.phases.burst import check_burst_fields

            check_burst_fields(decision.parameters, config.buffers, label)
            return
        check_grpo_fields(decision.parameters, label)
        grpo = effective_grpo(config.grpo, decision.parameters)
        check_batches(grpo, label)
        check_control(config.control, grpo, label)
        longest_prompt(self.context.model, grpo["max_completion_length"], label)

    # After a phase that failed

    def _failed(
        self, error: Exception, entry: Mapping[str, Any], state: TrainerState, number: int
    ) -> None:
        processes = self.context.processes
        if processes.count == 1 or is_everywhere(error):
            self._rescue(error, entry, state)
            # The first process that ends takes the others with it, also one that still saves.
            processes.gather(lambda: None)
        reason = f"the phase failed: {error}"
        self.announcer.failure(step=state.global_step, number=number, plugin=None, reason=reason)

    def _rescue(self, error: Exception, entry: Mapping[str, Any], state: TrainerState) -> None:
        """Save the run as it was when the phase that failed began: hours of fine-tuning, maybe.

        The error then names its folder. A disk that is full is left as it was.
        """
        saved = self.resuming.place_before(state.global_step)
        self.resuming.phase_over()
        self.run_state.load_state_dict(entry)
        self.run_state.history.start_clock()
        place = self.record.folder / "before-failure"
        model, tokenizer = as_saved(self.context.model), self.context.tokenizer
        try:
            with clean_room(model, tokenizer):  # saving writes into the model's config
                if saved is not None:
                    place = saved
                elif self.outer is not None:
                    self.resuming.announce(state.global_step)
                    place = self.outer.checkpoint()
                elif self.context.processes.is_main:
                    model.save_pretrained(place)
                    tokenizer.save_pretrained(place)
        except (OSError, SafetensorError, RecordError, RuntimeError):
            if place.name == "before-failure":
                shutil.rmtree(place, ignore_errors=True)
            return
        where = f"the model as it was before the phase is in {place}"
        if isinstance(error, RisenError):
            error.args = (f"{error}; {where}",)
        else:
            error.add_note(where)

    # Announcing

    def _announce_fine_tuning(self, decision: Decision, step: int) -> None:
        """Announce why the run goes on with fine-tuning."""
        number = sum(record.kind == "risen" for record in self.run_state.history.phases)
        self.announcer.announce(f"step {step}: fine-tune goes on ({decision.reason})")
        self.announcer.event("decision", step=step, number=number, **dataclasses.asdict(decision))

    def _announce_beginning(self, trial: Trial) -> None:
        announcer, decision, step = self.announcer, trial.decision, trial.at_step
        if trial.steps_before is not None:
            done = f"{trial.steps_before} of {decision.steps} steps"
            announcer.announce(f"step {step}: {trial.label} goes on after {done}")
            return
        if self.resuming.begins_again:
            begins = f"{trial.label} begins again with"
        elif self.outer is not None and not self.outer.fine_tunes:
            begins = f"{trial.label} of"
        else:
            begins = f"fine-tune -> {trial.label} of"
        steps = f"{decision.steps} step{'' if decision.steps == 1 else 's'}"
        announcer.announce(f"step {step}: {begins} {steps} ({decision.reason})")
        trial.announce("decision", **dataclasses.asdict(decision))

    def _announce_end(self, record: PhaseRecord, trial: Trial, state: TrainerState) -> None:
        step, number = trial.at_step, trial.number
        left = self.run_state.buffers.line(record.metrics)
        self.announcer.verdict(record, trial.label, number, step=step, left=left)
        trial.announce("phase", **dataclasses.asdict(record))
        if self.outer is not None:
            self.outer.log(record, number)
        self._observe("risen_phase_ended", record, state, metrics=record.metrics)
        if step < state.max_steps:
            self._observe("risen_phase_started", self.run_state.history.present(step), state)

    def _observe(self, hook: str, phase: PhaseRecord, state: TrainerState, **more: Any) -> None:
        progress = self.run_state.history.progress(state.global_step, state.max_steps)
        self.announcer.observe(hook, phase, progress, **more)
