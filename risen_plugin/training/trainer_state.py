"""The state of a GRPO trainer within its training: read from one, and put into another.

Read between two batches of answers, after the step's log, when TRL holds no half-used batch. What
is read is JSON values and tensors, so that loading it can run no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from risen_plugin.training.clean_room import random_states, set_random_states

_OF_STATE = ("global_step", "num_input_tokens_seen", "total_flos")
_OF_TRAINER = ("_step", "_total_train_tokens", "_total_loss_scalar", "_globalstep_last_logged")
_CONTROLLED = ("beta", "temperature", "epsilon_low", "epsilon_high")
_ADAPTIVE_ENTROPY = ("entropy_coef", "_last_world_entropy")


def trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def used_up(trainer: Any) -> bool:
    """Whether the answers that were sampled so far are all trained on."""
    each = trainer.args.steps_per_generation * trainer.num_iterations
    return not trainer._step % each


def counters_of(trainer: Any) -> dict[str, Any]:
    """What a trainer counts and is controlled by, as JSON values."""
    names: tuple[str, ...] = (*_OF_TRAINER, *_CONTROLLED)
    if trainer.args.use_adaptive_entropy:  # TRL's own checkpoint, which ours replaces, holds them
        names += _ADAPTIVE_ENTROPY
    return {
        **{name: getattr(trainer.state, name) for name in _OF_STATE},
        **{name: getattr(trainer, name) for name in names},
        "loss": float(trainer._tr_loss),
        "metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},
    }


def optimization_of(trainer: Any) -> dict[str, Any]:
    """The state of optimizer, schedule and random generators, for the weights-only loader."""
    scaler = getattr(trainer.accelerator, "scaler", None)
    return {
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.lr_scheduler.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "random": random_states(),
    }


def put_weights(trainer: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Put trained weights into a trainer that was built anew."""
    with torch.no_grad():
        for name, parameter in trained_parameters(trainer.model).items():
            parameter.copy_(weights[name])


class GoingOn(TrainerCallback):
    """Sets a trainer to where another was, at the moments at which it has made what is to be set.

    :param counters: of the other, as :func:`counters_of` read them.
    :param optimization: of the other, as :func:`optimization_of` read it.
    """

    def __init__(
        self, trainer: Any, counters: Mapping[str, Any], optimization: Mapping[str, Any]
    ) -> None:
        self.trainer = trainer
        self.counters = counters
        self.optimization = optimization
        self.is_to_draw = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, counters = self.trainer, self.counters
        for name in _OF_STATE:
            setattr(state, name, counters[name])
        for name in (*_OF_TRAINER, *_CONTROLLED, *_ADAPTIVE_ENTROPY):
            if name in counters:
                setattr(trainer, name, counters[name])
        trainer._tr_loss += counters["loss"]
        for name, values in counters["metrics"].items():
            trainer._metrics["train"][name] = list(values)
        kwargs["optimizer"].load_state_dict(self.optimization["optimizer"])
        kwargs["lr_scheduler"].load_state_dict(self.optimization["scheduler"])
        scaler = getattr(trainer.accelerator, "scaler", None)
        if scaler is not None and self.optimization.get("scaler"):
            scaler.load_state_dict(self.optimization["scaler"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.is_to_draw:  # iterating over the dataloader has drawn a number of its own
            set_random_states(self.optimization["random"])
            self.is_to_draw = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.epoch = state.global_step / state.max_steps  # counted from where it went on
