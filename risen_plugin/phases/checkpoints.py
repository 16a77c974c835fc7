"""Checkpoints of a RISEN phase: all that it takes to go on inside it, bit for bit.

One lies under ``phase-NNN/checkpoints/`` for the newest two of them. It is written between two
batches of answers, after the step's log, when TRL holds no half-used batch. Nothing in it is
loaded that can run code: safetensors, JSON, and torch's weights-only loader.
"""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from risen_plugin.errors import one_line
from risen_plugin.kit.files import damage, publishing, sha256
from risen_plugin.training.phase_trainer import (
    PhaseTrainer,
    counters_of,
    optimization_of,
    restore,
    trained_parameters,
    used_up,
)

FOLDER = "checkpoints"
_WEIGHTS, _TRAINING, _STATE = "trained.safetensors", "training.pt", "phase.json"
_FORMAT = 2
_NEWEST = 2
MOST_SHARE = 0.03  # of the phase's time, when checkpoints are dear


@dataclass(frozen=True)
class PhaseCheckpoint:
    """A RISEN phase as one of its checkpoints has it.

    :param data: the JSON values of phase and run.
    :param weights: the trained parameters, by name.
    :param training: the state of optimizer, schedule and random generators.
    """

    folder: Path
    data: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    training: Mapping[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether its GRPO steps are all taken."""
        return bool(self.data["finished"])

    @property
    def step(self) -> int:
        """GRPO steps taken."""
        return int(self.data["trainer"]["global_step"])

    def restore(self, trainer: PhaseTrainer) -> None:
        """Put the weights into a trainer that was built anew, and have it go on from there."""
        optimization = None if self.is_finished else self.training
        restore(trainer, self.weights, self.data["trainer"], optimization)


@dataclass
class PhaseCheckpoints:
    """Writes and finds the checkpoints of one phase.

    :param folder: the phase's folder.
    :param every: GRPO steps between two of them; 0 for none.
    :ivar resumed: the one that the phase goes on from, if it was cut off.
    """

    folder: Path
    every: int
    resumed: PhaseCheckpoint | None = None
    spent_s: float = 0.0
    _digests: dict[str, str] = field(default_factory=dict)
    _last: int = 0
    _began: float = field(default_factory=time.perf_counter)

    @property
    def path(self) -> Path:
        """The folder that they are in."""
        return self.folder / FOLDER

    def find(self, announce: Callable[[str], None]) -> PhaseCheckpoint | None:
        """The newest checkpoint that is whole; announces those that are not."""
        folders = sorted(self.path.glob("step-*"), reverse=True)
        for index, folder in enumerate(folders):
            checkpoint, reason = self._whole(folder)
            if checkpoint is not None:
                self.resumed, self._digests = checkpoint, dict(checkpoint.data["parts"])
                self._last = checkpoint.step
                return checkpoint
            follows = f"{folders[index + 1].name} is used" if index + 1 < len(folders) else ""
            announce(f"{folder} is damaged ({reason}); {follows or 'the phase begins anew'}")
        return None

    def clear(self) -> None:
        """Delete the files of an earlier try at the phase, but for those that it goes on from."""
        for path in self.folder.glob("*"):
            if path == self.path and self.resumed is not None:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def follow(self, trainer: PhaseTrainer) -> None:
        """Have ``trainer`` asked for checkpoints while it trains."""
        if self.every:
            trainer.add_callback(_CheckpointRequests(self, trainer))

    def is_due(self, trainer: PhaseTrainer) -> bool:
        """Whether it is time for one, and the answers sampled so far are used up."""
        if not used_up(trainer):
            return False
        step = trainer.state.global_step
        if step - self._last < self.every or step >= trainer.state.max_steps:
            return False
        return self.spent_s <= MOST_SHARE * (time.perf_counter() - self._began)

    def write(
        self,
        trainer: PhaseTrainer,
        state: Callable[[], Mapping[str, Any]],
        *,
        finished: bool = False,
    ) -> None:
        """Write a checkpoint of ``trainer`` as it is now.

        None of a phase that has just been stopped: one that went on from there would not.

        :param state: makes the JSON values of the phase and the run around it.
        :raises OSError: where the disk takes none.
        """
        if not self.every or (trainer.control.should_training_stop and not finished):
            return
        started = time.perf_counter()
        step = int(trainer.state.global_step)
        with publishing(self.path / f"step-{step:06d}") as folder:
            data = {
                "format": _FORMAT,
                "finished": finished,
                "trainer": counters_of(trainer),
                **state(),
            }
            for name in data["log"]["parts"]:
                self._digests[name] = self._digests.get(name) or sha256(self.path / name)
            data["parts"] = self._digests
            (folder / _STATE).write_text(json.dumps(data, default=str), encoding="utf-8")
            held = {
                n: p.detach().cpu().contiguous()
                for n, p in trained_parameters(trainer.trained).items()
            }
            save_file(held, folder / _WEIGHTS)
            try:
                torch.save({} if finished else optimization_of(trainer), folder / _TRAINING)
            except RuntimeError as error:  # torch's own, where a file cannot be written
                raise OSError(str(error)) from error
        for old in sorted(self.path.glob("step-*"))[:-_NEWEST]:
            shutil.rmtree(old, ignore_errors=True)
        self._last = step
        self.spent_s += time.perf_counter() - started

    def _whole(self, folder: Path) -> tuple[PhaseCheckpoint | None, str | None]:
        """A checkpoint, or its damage in a few words."""
        try:
            reason = damage(folder)
            if reason is not None:
                return None, reason
            checkpoint = _read(folder)
            reason = self._lacking(checkpoint.data["parts"])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            return None, one_line(error)
        except pickle.UnpicklingError:
            return None, f"{_TRAINING} holds more than weights, and is not loaded"
        return (checkpoint, None) if reason is None else (None, reason)

    def _lacking(self, parts: Mapping[str, str]) -> str | None:
        """Which part of the log of answers is not as it was, in a few words."""
        for name, wanted in parts.items():
            if not (self.path / name).is_file() or sha256(self.path / name) != wanted:
                return f"{name} is not what was written"
        return None

    def drop(self) -> None:
        """Delete them: the phase is over, and so is the need for them."""
        shutil.rmtree(self.path, ignore_errors=True)


class _CheckpointRequests(TrainerCallback):
    """Asks for a checkpoint, which the trainer writes after it has logged the step."""

    def __init__(self, checkpoints: PhaseCheckpoints, trainer: PhaseTrainer) -> None:
        self.checkpoints = checkpoints
        self.trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_save = self.checkpoints.is_due(self.trainer)


def _read(folder: Path) -> PhaseCheckpoint:
    data = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    if data["format"] != _FORMAT:
        raise ValueError(f"it has format {data['format']}, and this release reads {_FORMAT}")
    return PhaseCheckpoint(
        folder,
        data,
        load_file(folder / _WEIGHTS),
        torch.load(folder / _TRAINING, map_location="cpu", weights_only=True),
    )
