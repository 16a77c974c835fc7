"""One training run, from its first event to its last: phases begin here, end here and are told.

When a phase begins is the callback's business, what happens in it that of ``phase`` and ``burst``.
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerState, TrainingArguments

from risen_plugin.config import check_batches, check_control, effective_grpo
from risen_plugin.contracts import Decision, PhaseRecord
from risen_plugin.errors import RecordError, RisenError
from risen_plugin.kit.processes import is_everywhere
from risen_plugin.phases.burst import check_burst_fields, run_burst
from risen_plugin.phases.risen import run_phase
from risen_plugin.record.run_record import writing
from risen_plugin.run.deciding import decide
from risen_plugin.run.start import (
    open_record,
    prepare,
    restore,
    surroundings_of,
    tell_too_few,
)
from risen_plugin.run.state import Components
from risen_plugin.training.answering import longest_prompt
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.grpo import check_grpo_fields


@dataclass(frozen=True)
class _Planned:
    """A phase or burst that is about to run.

    :param done: steps of it that were done before it was cut off; None if it begins.
    """

    name: str
    number: int
    folder: Path
    run: Callable[..., PhaseRecord]
    done: int | None = None


class ActiveRun:
    """Carries out what the scheduler decides, until the run ends.

    :param own: the components of the callback, which outlive the run.
    :param ours: the callback, which is not told of its own logging.
    :raises RisenError: for arguments, a model, a tokenizer or a folder that do not fit.
    """

    def __init__(
        self,
        own: Components,
        args: TrainingArguments,
        state: TrainerState,
        *,
        model: Any,
        tokenizer: Any,
        ours: TrainerCallback,
    ) -> None:
        self.own = own
        self.args = args
        self.model = model
        self.tokenizer = tokenizer
        self.ours = ours
        prepare(own, args, model, tokenizer)
        restore(own, args, state)
        self.around = surroundings_of(own, args, model, tokenizer)
        tell_too_few(own, self.around)
        self.record = open_record(own, self.around, state)
        self.around.keeping = self.record.keeping
        self.around.told = self._tell_loggers
        own.history.start_clock()

    def begin(self, state: TrainerState) -> None:
        """Go on with a phase that was cut off, or begin to fine-tune."""
        if self.own.resuming.pending is not None:
            self._check_parameters(self.own.resuming.pending)
            self.enter(state)
        else:
            self._observe("risen_phase_started", self.own.history.present(state.global_step), state)

    def decide(self, state: TrainerState) -> bool:
        """Ask the scheduler after a step; whether a phase waits for a checkpoint now."""
        own = self.own
        progress = own.history.progress(state.global_step, state.max_steps)
        # Clocks differ, and a scheduler may look at them: one process decides for all.
        decision = own.processes.main(
            partial(decide, own.parts.schedule, progress, own.parts.scheduler.label)
        )
        if own.decisions.is_news(decision) and decision.phase == "fine_tune":
            self._go_on(decision, state.global_step)
        if decision.phase == "fine_tune":
            return False
        self._check_parameters(decision)
        if decision.phase == "burst" and not self._has_rows(decision, state.global_step):
            return False
        own.resuming.pending = decision
        if own.resuming.waits(self.args):
            return True
        self.enter(state)
        return False

    def saved(self, state: TrainerState, *, is_last: bool = False) -> None:
        """Complete a checkpoint that the Trainer has just written; begin what waited for it.

        :param is_last: whether the run ends here, be it before its last step.
        """
        own, step = self.own, state.global_step
        with writing(Path(str(self.args.output_dir)) / f"checkpoint-{step}"):
            own.resuming.complete(self.args, step, own.state_dict(), self.record.position())
        own.resuming.is_saved = own.processes.agree(own.resuming.is_saved)
        self.enter(state, is_last=is_last)

    def end(self, state: TrainerState) -> None:
        """Carry out what is left, and let go of the folder."""
        self.enter(state)
        own = self.own
        if all(phase.kind != "risen" for phase in own.history.phases):
            why = own.decisions.reason or "its scheduler was not asked"
            own.telling.say(f"step {state.global_step}: the run ends without RISEN phase ({why})")
        last = own.history.present(state.global_step)
        if last.steps:
            self._observe("risen_phase_ended", last, state, metrics=last.metrics)
        own.instructions.close_pool()
        self.record.close()

    def _go_on(self, decision: Decision, step: int) -> None:
        """Tell why the run goes on with fine-tuning."""
        own = self.own
        number = sum(record.kind == "risen" for record in own.history.phases)
        own.telling.say(f"step {step}: fine-tune goes on ({decision.reason})")
        own.telling.event("decision", step=step, number=number, **dataclasses.asdict(decision))

    def _has_rows(self, decision: Decision, step: int) -> bool:
        """Whether a burst has something to fine-tune on; tells what it lacks, once."""
        buffers = self.own.buffers
        lacking = buffers.lacking(self.own.instructions.is_held_out)
        if lacking is not None and buffers.is_news(lacking):
            self.own.telling.say(f"step {step}: no burst ({decision.reason}): {lacking}")
        return lacking is None

    def enter(self, state: TrainerState, *, is_last: bool = False) -> None:
        """Begin the phase that was decided on, or go on with one that was cut off."""
        resuming = self.own.resuming
        if resuming.pending is None:
            return
        self._risen(resuming.pending, state)
        resuming.pending, resuming.begins_again = None, False
        if is_last or state.global_step >= state.max_steps:  # no checkpoint follows
            with writing(self.record.folder):
                resuming.finish(
                    self.args, state, self.model, self.own.state_dict(), self.record.position()
                )
        resuming.is_saved = False

    def _risen(self, decision: Decision, state: TrainerState) -> None:
        """One phase or burst with all that is told of it."""
        own, step = self.own, state.global_step
        entry = copy.deepcopy(own.state_dict())
        planned = self._planned(decision)
        stretch = own.history.present(step)
        if stretch.steps:
            own.history.add(stretch)
            self._observe("risen_phase_ended", stretch, state, metrics=stretch.metrics)
        self._say_begins(planned, decision, step)
        begun = PhaseRecord(decision.phase, decision.steps, step, decision.reason)
        self._observe("risen_phase_started", begun, state)
        own.instructions.context["held_out_adherence"] = [
            float(phase.metrics["guard/adherence_strict_after"])
            for phase in own.history.phases
            if "guard/adherence_strict_after" in phase.metrics
        ]
        try:
            record = planned.run(
                self.around,
                decision,
                number=planned.number,
                at_step=step,
                folder=planned.folder,
                tell=partial(own.telling.event, step=step, number=planned.number),
            )
        except Exception as error:
            self._failed(error, entry, state, planned.number)
            raise
        own.history.add(record)
        self._tell_ended(record, planned, state)

    def _planned(self, decision: Decision) -> _Planned:
        own = self.own
        number = sum(record.kind == decision.phase for record in own.history.phases) + 1
        folder = self.record.phase_folder(number)
        if decision.phase == "burst":
            folder = folder.with_name(f"burst-{number:03d}")
            return _Planned(f"burst {number}", number, folder, run_burst)
        checkpoints = own.resuming.phase(self.args, folder)
        run = partial(run_phase, checkpoints=checkpoints, run_state=self._run_state)
        done = None if checkpoints.kept is None else checkpoints.kept.step
        return _Planned(f"RISEN phase {number}", number, folder, run, done)

    def _say_begins(self, planned: _Planned, decision: Decision, step: int) -> None:
        telling = self.own.telling
        if planned.done is not None:
            done = f"{planned.done} of {decision.steps} steps"
            telling.say(f"step {step}: {planned.name} goes on after {done}")
            return
        again = self.own.resuming.begins_again
        begins = f"{planned.name} begins again with" if again else f"fine-tune -> {planned.name} of"
        telling.say(f"step {step}: {begins} {decision.steps} steps ({decision.reason})")
        telling.event("decision", step=step, number=planned.number, **dataclasses.asdict(decision))

    def _tell_ended(self, record: PhaseRecord, planned: _Planned, state: TrainerState) -> None:
        own, step, number = self.own, state.global_step, planned.number
        held = own.buffers.told(record.metrics)
        own.telling.outcome(record, planned.name, number, step=step, held=held)
        own.telling.event("phase", step=step, number=number, **dataclasses.asdict(record))
        if own.attached is not None:
            own.attached.log(record, number)
        self._observe("risen_phase_ended", record, state, metrics=record.metrics)
        if step < state.max_steps:
            self._observe("risen_phase_started", own.history.present(step), state)

    def _failed(
        self, error: Exception, entry: Mapping[str, Any], state: TrainerState, number: int
    ) -> None:
        processes = self.own.processes
        if processes.count == 1 or is_everywhere(error):
            self._rescue(error, entry, state)
            # The first process that ends takes the others with it, also one that still saves.
            processes.gather(lambda: None)
        reason = f"the phase failed: {error}"
        self.own.telling.failure(step=state.global_step, number=number, plugin=None, reason=reason)

    def _rescue(self, error: Exception, entry: Mapping[str, Any], state: TrainerState) -> None:
        """Save the run as it was when the phase that failed began: hours of fine-tuning, maybe.

        Where it lies is added to the error. A disk that takes no more keeps what it had.
        """
        own = self.own
        saved = own.resuming.place_before(self.args, state.global_step)
        own.resuming.pending = None
        own.load_state_dict(entry)
        own.history.start_clock()
        place = self.record.folder / "before-failure"
        model, tokenizer = self.model, self.tokenizer
        try:
            with clean_room(model, tokenizer):  # saving writes into the model's config
                if saved is not None:
                    place = saved
                elif own.attached is not None:
                    own.resuming.announce(self.args, state.global_step)
                    place = own.attached.checkpoint()
                elif own.processes.is_main:
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

    def _check_parameters(self, decision: Decision) -> None:
        config, label = self.own.config, self.own.parts.scheduler.label
        if decision.phase == "burst":
            check_burst_fields(decision.parameters, config.buffers, label)
            return
        check_grpo_fields(decision.parameters, label)
        grpo = effective_grpo(config.grpo, decision.parameters)
        check_batches(grpo, label)
        check_control(config.control, grpo, label)
        most = grpo["max_completion_length"]
        self.own.instructions.longest = longest_prompt(self.model, most, label)

    def _run_state(self) -> dict[str, Any]:
        """The state of the run for a checkpoint of the phase that it is in."""
        return {**self.own.state_dict(), "events": self.record.position()}

    def _tell_loggers(self, number: int, step: int, numbers: Mapping[str, float]) -> None:
        if self.own.attached is not None:
            earlier = sum(phase.steps for phase in self.own.history.phases if phase.kind == "risen")
            self.own.attached.log_series(numbers, at=earlier + step, ours=self.ours)

    def _observe(self, hook: str, phase: PhaseRecord, state: TrainerState, **more: Any) -> None:
        progress = self.own.history.progress(state.global_step, state.max_steps)
        self.own.telling.observe(hook, phase, progress, **more)
