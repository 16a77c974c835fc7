"""Checkpoints of a RISEN phase: all that it takes to go on inside it, bit for bit.

One lies under ``phase-NNN/checkpoints/`` for the newest two of them. It is written between two
batches of answers, after the step's log, when TRL holds no half-used batch. Nothing in it is
loaded that can run code: safetensors, JSON, and torch's weights-only loader.
"""

from __future__ import annotations

import json
import pickle
import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from risen_plugin.errors import one_line
from risen_plugin.record.checkpoints import damage, digest, publishing

FOLDER = "checkpoints"
_WEIGHTS, _TRAINING, _STATE = "trained.safetensors", "training.pt", "phase.json"
_FORMAT = 1
_KEPT = 2
MOST_SHARE = 0.03  # of the phase's time, when checkpoints are dear
_OF_STATE = ("global_step", "num_input_tokens_seen", "total_flos")
_OF_TRAINER = ("_step", "_total_train_tokens", "_total_loss_scalar", "_globalstep_last_logged")
_CONTROLLED = ("beta", "temperature", "epsilon_low", "epsilon_high")


@dataclass(frozen=True)
class Kept:
    """A phase as one of its checkpoints has it.

    :param data: what is kept as JSON.
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

    def restore(self, trainer: Any) -> None:
        """Put the weights into a trainer that was built anew, and have it go on from there."""
        trained = _trained(trainer.model)
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(self.weights[name])
        if self.is_finished:
            trainer.state.global_step = self.step
        else:
            trainer.add_callback(_GoingOn(self, trainer))


class _GoingOn(TrainerCallback):
    """Sets a trainer to where it was, at the moments at which it has made what is to be set."""

    def __init__(self, kept: Kept, trainer: Any) -> None:
        self.kept = kept
        self.trainer = trainer
        self.is_to_draw = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        told = self.kept.data["trainer"]
        trainer = self.trainer
        for name in _OF_STATE:
            setattr(state, name, told[name])
        for name in (*_OF_TRAINER, *_CONTROLLED):
            if name in told:
                setattr(trainer, name, told[name])
        trainer._initial_global_step = 0
        if hasattr(trainer, "_tr_loss"):  # transformers 4 keeps it in a local variable
            trainer._tr_loss += told["loss"]
        for name, values in told["metrics"].items():
            trainer._metrics["train"][name] = list(values)
        kwargs["optimizer"].load_state_dict(self.kept.training["optimizer"])
        kwargs["lr_scheduler"].load_state_dict(self.kept.training["scheduler"])
        scaler = getattr(trainer.accelerator, "scaler", None)
        if scaler is not None and self.kept.training.get("scaler"):
            scaler.load_state_dict(self.kept.training["scaler"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.is_to_draw:  # iterating over the dataloader has drawn a number of its own
            set_random_states(self.kept.training["random"])
            self.is_to_draw = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.epoch = state.global_step / state.max_steps  # counted from where it went on


@dataclass
class PhaseCheckpoints:
    """Writes and finds the checkpoints of one phase.

    :param folder: the phase's folder.
    :param every: GRPO steps between two of them; 0 for none.
    :param gather: tells the JSON values that belong to the phase and the run around it.
    """

    folder: Path
    every: int
    gather: Callable[[], dict[str, Any]] = dict
    kept: Kept | None = None
    spent_s: float = 0.0
    _digests: dict[str, str] = field(default_factory=dict)
    _last: int = 0
    _began: float = field(default_factory=time.perf_counter)

    @property
    def place(self) -> Path:
        return self.folder / FOLDER

    def find(self, say: Callable[[str], None]) -> Kept | None:
        """The newest checkpoint that is whole; tells of those that are not."""
        found = sorted(self.place.glob("step-*"), reverse=True)
        for index, folder in enumerate(found):
            kept, reason = self._whole(folder)
            if kept is not None:
                self.kept, self._digests = kept, dict(kept.data["parts"])
                self._last = kept.step
                return kept
            follows = f"{found[index + 1].name} is used" if index + 1 < len(found) else ""
            say(f"{folder} is damaged ({reason}); {follows or 'the phase begins anew'}")
        return None

    def clear(self) -> None:
        """Delete what an earlier try at the phase left, but for what it goes on from."""
        for path in self.folder.glob("*"):
            if path == self.place and self.kept is not None:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def follow(self, trainer: Any, write: Callable[[], None]) -> None:
        """Have checkpoints written by ``write`` while ``trainer`` trains."""
        if self.every:
            trainer.add_callback(_Asking(self, trainer))
            trainer.keep = write

    def is_due(self, trainer: Any) -> bool:
        """Whether it is time for one, and the answers sampled so far are used up."""
        args = trainer.args
        if trainer._step % (args.steps_per_generation * trainer.num_iterations):
            return False
        step = trainer.state.global_step
        if step - self._last < self.every or step >= trainer.state.max_steps:
            return False
        return self.spent_s <= MOST_SHARE * (time.perf_counter() - self._began)

    def write(self, trainer: Any, *, finished: bool = False) -> None:
        """Write a checkpoint of ``trainer`` as it is now.

        None of a phase that has just been told to stop: one that went on from there would not.
        """
        if not self.every or (trainer.control.should_training_stop and not finished):
            return
        started = time.perf_counter()
        step = int(trainer.state.global_step)
        with publishing(self.place / f"step-{step:06d}") as folder:
            data = {
                "format": _FORMAT,
                "finished": finished,
                "trainer": _trainer_state(trainer),
                **self.gather(),
            }
            for name in data["log"]["parts"]:
                self._digests[name] = self._digests.get(name) or digest(self.place / name)
            data["parts"] = self._digests
            (folder / _STATE).write_text(json.dumps(data, default=str), encoding="utf-8")
            held = {n: p.detach().cpu().contiguous() for n, p in _trained(trainer.model).items()}
            save_file(held, folder / _WEIGHTS)
            torch.save(_training_state(trainer, finished), folder / _TRAINING)
        for old in sorted(self.place.glob("step-*"))[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        self._last = step
        self.spent_s += time.perf_counter() - started

    def _whole(self, folder: Path) -> tuple[Kept | None, str | None]:
        """A checkpoint, or what is wrong with it in a few words."""
        try:
            reason = damage(folder)
            if reason is not None:
                return None, reason
            kept = _read(folder)
            reason = self._lacking(kept.data["parts"])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            return None, one_line(error)
        except pickle.UnpicklingError:
            return None, f"{_TRAINING} holds more than weights, and is not loaded"
        return (kept, None) if reason is None else (None, reason)

    def _lacking(self, parts: Mapping[str, str]) -> str | None:
        """Which part of the log of answers is not as it was, in a few words."""
        for name, wanted in parts.items():
            if not (self.place / name).is_file() or digest(self.place / name) != wanted:
                return f"{name} is not what was written"
        return None

    def drop(self) -> None:
        """Delete them: the phase is over, and so is the need for them."""
        shutil.rmtree(self.place, ignore_errors=True)


class _Asking(TrainerCallback):
    """Asks for a checkpoint, which the trainer writes after it has logged the step."""

    def __init__(self, checkpoints: PhaseCheckpoints, trainer: Any) -> None:
        self.checkpoints = checkpoints
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = self.checkpoints.is_due(self.trainer)


def _trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _trainer_state(trainer: Any) -> dict[str, Any]:
    own = {n: getattr(trainer, n) for n in (*_OF_TRAINER, *_CONTROLLED) if hasattr(trainer, n)}
    return {
        **{name: getattr(trainer.state, name) for name in _OF_STATE},
        **own,
        "loss": float(getattr(trainer, "_tr_loss", 0.0)),
        "metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},
    }


def _training_state(trainer: Any, finished: bool) -> dict[str, Any]:
    if finished:
        return {}
    scaler = getattr(trainer.accelerator, "scaler", None)
    return {
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.lr_scheduler.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "random": random_states(),
    }


def _read(folder: Path) -> Kept:
    data = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    if data["format"] != _FORMAT:
        raise ValueError(f"it has format {data['format']}, and this release reads {_FORMAT}")
    return Kept(
        folder,
        data,
        load_file(folder / _WEIGHTS),
        torch.load(folder / _TRAINING, map_location="cpu", weights_only=True),
    )


def random_states() -> dict[str, Any]:
    """Python's, numpy's and torch's random states, in what the weights-only loader accepts."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    version, numbers, following = random.getstate()
    return {
        "python": [version, list(numbers), following],
        "numpy": [kind, [int(key) for key in keys], place, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put back what :func:`random_states` told."""
    version, numbers, following = states["python"]
    random.setstate((version, tuple(numbers), following))
    kind, keys, place, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), place, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
