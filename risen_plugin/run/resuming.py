"""The checkpoints of a run: the one that it goes on from, and those before and after a phase.

Decides whether a phase waits for a checkpoint, finds the one that a Trainer was resumed from,
refuses one of another configuration, and finds the phase that was cut off. Files are left to
``record/checkpoints``, a phase's own state to ``phases/checkpoints``.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from transformers import TrainerState, TrainingArguments

from risen_plugin.config import RisenConfig
from risen_plugin.contracts import Decision
from risen_plugin.errors import ConfigError, RecordError
from risen_plugin.kit.processes import Processes
from risen_plugin.phases.checkpoints import FOLDER, PhaseCheckpoint, PhaseCheckpoints
from risen_plugin.record.checkpoints import Checkpoints, damage_of, is_ours, lacks_optimizer
from risen_plugin.record.description import differences
from risen_plugin.record.run_record import Record, read_state
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.outer_trainer import resumed_from
from risen_plugin.training.protocols import Model

AnnounceLine: TypeAlias = Callable[[str], None]


class Resuming:
    """The checkpoints of one run, and the phase that its newest one waits for or was cut off in.

    :param made_of: the settings and plugins that a resumed run must share with its checkpoint.
    :param whole: checkpoints that are known to be whole.
    :ivar pending: the decision for a phase that waits for its checkpoint, or was cut off.
    :ivar begins_again: whether that phase was cut off and left no checkpoint of its own.
    :ivar is_changed: whether settings or plugins have changed since its checkpoint.
    :ivar checkpoint: the folder that the run goes on from.
    :ivar events: where the events of the run ended by then.
    """

    def __init__(
        self,
        config: RisenConfig,
        made_of: Mapping[str, Any],
        args: TrainingArguments,
        processes: Processes,
        whole: Iterable[Path] = (),
    ) -> None:
        self.config = config
        self.args = args
        self.processes = processes
        self.made_of = {**made_of, "processes": args.world_size}
        self.pending: Decision | None = None
        self.begins_again = False
        self.checkpoint: Path | None = None
        self.events: int | None = None
        self.is_changed = False
        self._is_saved = False
        self._phase: PhaseCheckpoints | None = None
        self._whole = frozenset(whole)
        self._is_announced = False

    @property
    def _output_dir(self) -> str:
        return str(self.args.output_dir)

    # Before a run

    def resume(self, step: int, announce: AnnounceLine) -> Mapping[str, Any] | None:
        """The state of the checkpoint that the run goes on from; None if it has none of ours.

        :param step: the Trainer's.
        :raises RecordError: if that checkpoint is damaged, naming it and the one before it, or
            holds no optimizer.
        :raises ConfigError: if the run was begun with another configuration or other plugins.
        """
        args = self.args
        if step == 0:
            return None
        here = Checkpoints(self._output_dir).folder_of(step)
        configured = args.resume_from_checkpoint
        passed = resumed_from()
        candidates = [Path(configured) if configured else here, here]
        for place in candidates if passed is None else [passed]:
            state = self._read(place)
            if state is not None:
                break
        else:
            return None
        self.checkpoint = place
        self._check_optimizer(place, step, announce)
        changed = differences(state.get("made_of", {}), self.made_of)
        self.is_changed = bool(changed)
        if changed and not self.config.force:
            raise ConfigError(
                f"{place} is of a run with another configuration: {'; '.join(changed)}; go back to "
                "that, begin a new run in another output_dir, or accept it with force "
                "(RisenConfig(force=True), or --force)"
            )
        for line in changed:
            announce(f"step {step}: goes on with a change: {line}")
        if args.should_save and place.resolve() == here.resolve():
            for line in Checkpoints(here.parent).leave_after(step):
                announce(line)
        self.events = state.get("events")
        if not state.get("pending") and args.should_save and place.resolve() == here.resolve():
            forget_phases(here.parent)  # a run that was killed may not have come to it
        if state.get("pending"):
            self.pending = Decision(**state["pending"])
            self._is_saved = place.resolve() == here.resolve()
            self.begins_again = True
            if self.pending.phase == "risen":  # a burst is short, and begins anew
                return self._in_phase(state, announce)
        return state

    def _check_optimizer(self, place: Path, step: int, announce: AnnounceLine) -> None:
        """Refuse to begin the learning rate again where a run would go on with it.

        :raises RecordError: unless it is forced.
        """
        if not lacks_optimizer(place):
            return
        reason = f"{place} holds no optimizer and no schedule (save_only_model wrote it)"
        if not self.config.force:
            raise RecordError(
                f"{reason}, so the run would not go on but begin its learning rate again; begin "
                "a new run on that model in another output_dir, or accept it with force "
                "(RisenConfig(force=True), or --force)"
            )
        announce(f"step {step}: {reason}: optimizer and learning rate begin again")

    def _in_phase(self, state: Mapping[str, Any], announce: AnnounceLine) -> Mapping[str, Any]:
        """The state of the run within the phase that was cut off, or before it."""
        number = sum(phase["kind"] == "risen" for phase in state["history"]["phases"]) + 1
        is_alone = self.args.world_size == 1  # as where a phase begins: they are of one process
        self._phase = self._checkpoints(self._phase_folder(number), is_useful=is_alone)
        checkpoint: PhaseCheckpoint | None = None
        if is_alone and not self.is_changed:
            checkpoint = self._phase.find(announce)
        if checkpoint is None:
            return state
        self.begins_again = False
        run: Mapping[str, Any] = checkpoint.data["run"]
        self.events = run["events"]
        return run

    def _read(self, place: Path) -> dict[str, Any] | None:
        if is_ours(place) and place.resolve() not in self._whole:
            reason = damage_of(place)
            if reason is not None:
                others = [
                    other
                    for other in Checkpoints(place.parent).newest()
                    if other != place and is_ours(other) and damage_of(other) is None
                ]
                instead = f"resume from {others[0]}" if others else "begin anew"
                raise RecordError(f"the checkpoint {place} is damaged: {reason}; {instead}")
        return read_state(place)

    def _phase_folder(self, number: int) -> Path:
        """The phase's folder; brought here from the run that a checkpoint elsewhere is of."""
        assert self.checkpoint is not None
        here = Record(self._output_dir).phase_folder(number)
        other = Record(self.checkpoint.parent).phase_folder(number)
        if other.resolve() != here.resolve() and other.is_dir():
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(other, here)
        return here

    # Before and after a phase

    def defer(self, decision: Decision) -> bool:
        """Have a phase or burst begin next; whether it waits for a checkpoint.

        It does not in a run without any.
        """
        self.pending = decision
        return self.config.checkpoint_before_phase and self.args.save_strategy != "no"

    def announce(self, step: int) -> None:
        """A checkpoint is about to be written."""
        if self.args.should_save:
            self._is_announced = True
            Checkpoints.of(self._output_dir).announce(step)

    def withdraw(self) -> None:
        """The announced checkpoint did not come: another callback had the last word."""
        if self._is_announced:
            self._is_announced = False
            Checkpoints.of(self._output_dir).withdraw()

    def complete(self, step: int, state: Mapping[str, Any], events: int) -> None:
        """Complete a checkpoint that the Trainer has just written.

        :param events: where the events of the run end.
        """
        checkpoints = Checkpoints.of(self._output_dir)
        if self.args.should_save and checkpoints.folder_of(step).is_dir():
            checkpoints.complete(step, self._with(state, events))
            self._is_announced = False
            self._is_saved = self.pending is not None
            forget_phases(checkpoints.folder)
        self._is_saved = self.processes.agree(self._is_saved)

    def place_before(self, step: int) -> Path | None:
        """The checkpoint of the moment at which the present phase began."""
        return Checkpoints.of(self._output_dir).folder_of(step) if self._is_saved else None

    def phase(self, folder: Path) -> PhaseCheckpoints:
        """The checkpoints of the phase that begins or goes on."""
        phase, self._phase = self._phase, None
        if phase is not None and phase.folder == folder:
            return phase
        return self._checkpoints(folder, is_useful=self._is_saved and self.args.world_size == 1)

    def phase_over(self) -> None:
        """The phase that was pending has ended, or failed."""
        self.pending, self.begins_again = None, False

    def finish(
        self, trainer_state: TrainerState, model: Model, state: Mapping[str, Any], events: int
    ) -> None:
        """Put the result of the phase after it into the last checkpoint."""
        checkpoints = Checkpoints.of(self._output_dir)
        step = trainer_state.global_step
        if not (self.args.should_save and self._is_saved and checkpoints.folder_of(step).is_dir()):
            return
        with checkpoints.rewriting(step, self._with(state, events)) as folder:
            with clean_room(model):  # saving writes into the model's config
                model.save_pretrained(folder)
            trainer_state.save_to_json(str(folder / "trainer_state.json"))
        self._is_saved = False
        forget_phases(checkpoints.folder)

    def go_on(self) -> None:
        """The run goes on after a phase, and away from the checkpoint before it."""
        self._is_saved = False

    def _with(self, state: Mapping[str, Any], events: int) -> dict[str, Any]:
        pending = None if self.pending is None else dataclasses.asdict(self.pending)
        return {**state, "pending": pending, "events": events, "made_of": self.made_of}

    def _checkpoints(self, folder: Path, *, is_useful: bool = True) -> PhaseCheckpoints:
        return PhaseCheckpoints(folder, self.config.checkpoint_every if is_useful else 0)


def forget_phases(output_dir: Path) -> None:
    """Delete the checkpoints of phases that a newer checkpoint of the Trainer holds."""
    for place in Record(output_dir).folder.glob(f"phase-*/{FOLDER}"):
        shutil.rmtree(place, ignore_errors=True)
