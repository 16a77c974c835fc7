"""Where a run stands between its checkpoints: what is written before a phase, and found again.

Decides whether a phase waits for a checkpoint, finds the one that a Trainer was resumed from,
refuses what does not belong together, and finds the phase that was cut off. Files are left to
``checkpoints``, a phase's own state to ``phase_state``.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerState, TrainingArguments

from risen_plugin.config import RisenConfig
from risen_plugin.contracts import Decision
from risen_plugin.errors import ConfigError, RecordError
from risen_plugin.phases.checkpoints import FOLDER, PhaseCheckpoints
from risen_plugin.record.checkpoints import Checkpoints, damage_of, is_ours
from risen_plugin.record.made_of import differences, made_of
from risen_plugin.record.run_record import Record, read_state
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.outer_trainer import given_to_train

Say = Callable[[str], None]


class Resuming:
    """What a run's checkpoints hold beside the state of its parts.

    :param pending: the decision for a phase that waits for its checkpoint, or was cut off.
    :param begins_again: whether that phase was cut off and left no checkpoint of its own.
    """

    def __init__(self, config: RisenConfig, origins: Mapping[str, str], version: str) -> None:
        self.config = config
        self.made_of = made_of(config, origins, version)
        self.pending: Decision | None = None
        self.begins_again = False
        self.place: Path | None = None
        self.events: int | None = None
        self.is_saved = False
        self._phase: PhaseCheckpoints | None = None
        self._whole: set[Path] = set()
        self._is_announced = False

    # Before a run

    def mend(self, args: TrainingArguments, say: Say) -> None:
        """Set aside checkpoints that are not whole, before the Trainer looks for the newest."""
        if not args.output_dir:
            return
        with args.main_process_first(local=False, desc="looking at checkpoints"):
            if args.process_index == 0:
                checkpoints = Checkpoints(str(args.output_dir))
                for line in checkpoints.mend():
                    say(line)
                self._whole = {place.resolve() for place in checkpoints.newest()[:1]}

    def resume(
        self, args: TrainingArguments, state: TrainerState, say: Say
    ) -> Mapping[str, Any] | None:
        """The state of the checkpoint that the run goes on from; None if it has none of ours.

        :raises RecordError: if that checkpoint is damaged, naming it and the one before it.
        :raises ConfigError: if the run was begun with another configuration or other plugins.
        """
        self.pending, self.place, self.events, self._phase = None, None, None, None
        self.is_saved = self.begins_again = False
        self.made_of = {**self.made_of, "processes": args.world_size}
        if state.global_step == 0:
            return None
        own = Checkpoints(str(args.output_dir)).place(state.global_step)
        given = args.resume_from_checkpoint
        told = given_to_train()
        places = [told] if told is not None else [Path(given) if given else own, own]
        for place in places:
            found = self._read(place)
            if found is not None:
                break
        else:
            return None
        self.place = place
        changed = differences(found.get("made_of", {}), self.made_of)
        if changed and not self.config.force:
            raise ConfigError(
                f"{place} is of a run with another configuration: {'; '.join(changed)}; go back to "
                "that, begin a new run in another output_dir, or accept it with force "
                "(RisenConfig(force=True), or --force)"
            )
        for line in changed:
            say(f"step {state.global_step}: goes on with a change: {line}")
        if args.should_save and place.resolve() == own.resolve():
            for line in Checkpoints(own.parent).leave_after(state.global_step):
                say(line)
        self.events = found.get("events")
        if not found.get("pending") and args.should_save and place.resolve() == own.resolve():
            forget_phases(own.parent)  # a run that was killed may not have come to it
        if found.get("pending"):
            self.pending = Decision(**found["pending"])
            self.is_saved = place.resolve() == own.resolve()
            self.begins_again = True
            if self.pending.phase == "risen":  # a burst is short, and begins anew
                return self._in_phase(args, found, say, is_changed=bool(changed))
        return found

    def _in_phase(
        self, args: TrainingArguments, found: Mapping[str, Any], say: Say, *, is_changed: bool
    ) -> Mapping[str, Any]:
        """The state of the run within the phase that was cut off, or before it."""
        number = sum(phase["kind"] == "risen" for phase in found["history"]["phases"]) + 1
        is_alone = args.world_size == 1  # as where a phase begins: they are of one process
        self._phase = self._checkpoints(self._phase_folder(args, number), is_useful=is_alone)
        kept = self._phase.find(say) if is_alone and not is_changed else None
        if kept is None:
            return found
        self.begins_again = False
        run: Mapping[str, Any] = kept.data["run"]
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

    def _phase_folder(self, args: TrainingArguments, number: int) -> Path:
        """The phase's folder; brought here from the run that a checkpoint elsewhere is of."""
        assert self.place is not None
        own = Record(str(args.output_dir)).phase_folder(number)
        other = Record(self.place.parent).phase_folder(number)
        if other.resolve() != own.resolve() and other.is_dir():
            shutil.rmtree(own, ignore_errors=True)
            shutil.copytree(other, own)
        return own

    # Before and after a phase

    def waits(self, args: TrainingArguments) -> bool:
        """Whether a phase begins only after a checkpoint; it does not in a run without any."""
        return self.config.checkpoint_before_phase and args.save_strategy != "no"

    def announce(self, args: TrainingArguments, step: int) -> None:
        """A checkpoint is about to be written."""
        if args.should_save:
            self._is_announced = True
            Checkpoints.of(str(args.output_dir)).announce(step)

    def withdraw(self, args: TrainingArguments) -> None:
        """No checkpoint came of what was announced: another callback had the last word."""
        if self._is_announced:
            self._is_announced = False
            Checkpoints.of(str(args.output_dir)).withdraw()

    def complete(
        self, args: TrainingArguments, step: int, state: Mapping[str, Any], events: int
    ) -> None:
        """Complete a checkpoint that the Trainer has just written."""
        checkpoints = Checkpoints.of(str(args.output_dir))
        if args.should_save and checkpoints.place(step).is_dir():
            checkpoints.complete(step, self._with(state, events))
            self._is_announced = False
            self.is_saved = self.pending is not None
            forget_phases(checkpoints.folder)

    def place_before(self, args: TrainingArguments, step: int) -> Path | None:
        """The checkpoint of the moment at which the present phase began."""
        return Checkpoints.of(str(args.output_dir)).place(step) if self.is_saved else None

    def phase(self, args: TrainingArguments, folder: Path) -> PhaseCheckpoints:
        """The checkpoints of the phase that begins or goes on."""
        found, self._phase = self._phase, None
        if found is not None and found.folder == folder:
            return found
        return self._checkpoints(folder, is_useful=self.is_saved and args.world_size == 1)

    def finish(
        self,
        args: TrainingArguments,
        trainer_state: TrainerState,
        model: Any,
        state: Mapping[str, Any],
        events: int,
    ) -> None:
        """Let the last checkpoint hold what the phase after it has come to."""
        checkpoints = Checkpoints.of(str(args.output_dir))
        step = trainer_state.global_step
        if not (args.should_save and self.is_saved and checkpoints.place(step).is_dir()):
            return
        with checkpoints.rewriting(step, self._with(state, events)) as folder:
            with clean_room(model):  # saving writes into the model's config
                model.save_pretrained(folder)
            trainer_state.save_to_json(str(folder / "trainer_state.json"))
        self.is_saved = False
        forget_phases(checkpoints.folder)

    def _with(self, state: Mapping[str, Any], events: int) -> dict[str, Any]:
        pending = None if self.pending is None else dataclasses.asdict(self.pending)
        return {**state, "pending": pending, "events": events, "made_of": self.made_of}

    def _checkpoints(self, folder: Path, *, is_useful: bool = True) -> PhaseCheckpoints:
        return PhaseCheckpoints(folder, self.config.checkpoint_every if is_useful else 0)


def forget_phases(output_dir: Path) -> None:
    """Delete the checkpoints of phases that a newer checkpoint of the Trainer holds."""
    for place in Record(output_dir).folder.glob(f"phase-*/{FOLDER}"):
        shutil.rmtree(place, ignore_errors=True)
