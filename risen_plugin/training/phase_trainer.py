"""The GRPO trainer of a phase: TRL's, with rows drawn when they are answered.

Its settings can change while it trains: TRL reads ``beta`` at each use. The temperature is
written in up to three places, one of them out of reach in a closure, so it is set when the next
answers are sampled, and their likelihoods are taken at the same one. Its state is read between two
batches of answers, after the step's log, when TRL holds no half-used batch: JSON values and
tensors, so that loading it can run no code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.grpo_config import GRPOConfig

from risen_plugin.contracts import Row
from risen_plugin.guard.rules import Orders
from risen_plugin.training.adapters import base_of
from risen_plugin.training.asking import as_asked, precision_of
from risen_plugin.training.clean_room import random_states, set_random_states
from risen_plugin.training.mismatch import MISMATCH, WeighedTrainer
from risen_plugin.training.protocols import AdaptedModel, Model
from risen_plugin.training.seam import LIGERS_LOSS, fused_lm_head

if TYPE_CHECKING:
    from risen_plugin.training.anchoring import Anchors

ANCHOR_KL = "anchor_kl"
"""The name of the divergence from the anchors in the log, in nats per token."""
SERIES = (
    *("reward", "reward_std", "kl", "entropy", "frac_reward_zero_std"),
    *(MISMATCH, ANCHOR_KL),
)
"""The numbers of TRL's log that the record and the events of a phase have."""

_OF_STATE = ("global_step", "num_input_tokens_seen", "total_flos")
_OF_TRAINER = ("_step", "_total_train_tokens", "_total_loss_scalar", "_globalstep_last_logged")
_CONTROLLED = ("beta", "temperature", "epsilon_low", "epsilon_high")
_ADAPTIVE_ENTROPY = ("entropy_coef", "_last_world_entropy")

Supply: TypeAlias = Callable[[int], list[Row]]
"""Draws instructions, as many as it is asked for."""


class PhaseTrainer(WeighedTrainer):
    """Draws the rows of a generation batch when it is to be answered, and not before.

    TRL takes the answers of all processes one after another for the batch, and groups them by their
    place in it; so each process answers its own stretch of it.

    :param supply: draws rows, as many as it is asked for.
    :param rows: those of one generation batch.
    :param save: writes a checkpoint of the phase when one is asked for.
    :param bare_forward: the model's forward before TRL's; None for the one of its class.
    :param anchors: that the model is held to; None for none.
    """

    args: GRPOConfig
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: torch.optim.lr_scheduler.LambdaLR | None

    def __init__(
        self,
        *,
        supply: Supply,
        rows: int,
        save: Callable[[PhaseTrainer], None] | None,
        bare_forward: Callable[..., Any] | None,
        anchors: Anchors | None = None,
        **fields: Any,
    ) -> None:
        self.supply = supply
        self.rows = rows
        self.save = save
        self.bare_forward = bare_forward
        self.anchors = anchors
        self._next_temperature: float | None = None
        super().__init__(**fields)

    @property
    def trained(self) -> AdaptedModel:
        """The model in training, with its adapter."""
        return cast(AdaptedModel, self.model)

    def sample_at(self, temperature: float) -> None:
        """Sample at another temperature from the next answers on.

        It may not change between answers and the updates by them.
        """
        self._next_temperature = temperature

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, and the weighted divergence from the anchors."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self.anchors is None:
            return loss
        read = self.anchors.of(self._step, self.current_gradient_accumulation_steps)
        if not read:
            return loss
        found = self.anchors.divergence(self.accelerator.unwrap_model(model), read)
        self._metrics["train"][ANCHOR_KL].append(float(found.detach().mean()))
        return loss + self.anchors.weight * found.sum() / self.anchors.each_step

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Have the phase, which alone asks for one, write its checkpoint."""
        if self.save is not None:
            self.save(self)

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        with as_asked(self.trained, precision_of(self.args)):
            return super()._generate_single_turn(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self._next_temperature is not None:
            set_temperature(self, self._next_temperature)
            self._next_temperature = None
        drawn = self.supply(self.rows)
        first = self.accelerator.process_index * len(inputs)
        made: dict[str, Any] = super()._generate_and_score_completions(
            [dict(drawn[(first + place) // self.num_generations]) for place in range(len(inputs))]
        )
        return made


def trained_parameters(model: Model) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def used_up(trainer: PhaseTrainer) -> bool:
    """Whether the answers that were sampled so far are all trained on."""
    each = (trainer.args.steps_per_generation or 1) * trainer.num_iterations
    return not trainer._step % each


def counters_of(trainer: PhaseTrainer) -> dict[str, Any]:
    """The counters of a trainer and the settings that controllers change, as JSON values."""
    names: tuple[str, ...] = (*_OF_TRAINER, *_CONTROLLED)
    if trainer.args.use_adaptive_entropy:  # TRL's own checkpoint, which ours replaces, holds them
        names += _ADAPTIVE_ENTROPY
    return {
        **{name: getattr(trainer.state, name) for name in _OF_STATE},
        **{name: getattr(trainer, name) for name in names},
        "loss": float(trainer._tr_loss),
        "metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},
    }


def optimization_of(trainer: PhaseTrainer) -> dict[str, Any]:
    """The state of optimizer, schedule and random generators, for the weights-only loader."""
    scaler = getattr(trainer.accelerator, "scaler", None)
    assert trainer.optimizer is not None
    assert trainer.lr_scheduler is not None
    return {
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.lr_scheduler.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "random": random_states(),
    }


def restore(
    trainer: PhaseTrainer,
    weights: Mapping[str, torch.Tensor],
    counters: Mapping[str, Any],
    optimization: Mapping[str, Any] | None,
) -> None:
    """Put the state of another trainer into one that was built anew.

    :param counters: as :func:`counters_of` read them.
    :param optimization: as :func:`optimization_of` read it; None if no step is left to train.
    """
    with torch.no_grad():
        for name, parameter in trained_parameters(trainer.trained).items():
            parameter.copy_(weights[name])
    if optimization is None:
        trainer.state.global_step = int(counters["global_step"])
    else:
        trainer.add_callback(_StateRestorer(trainer, counters, optimization))


class _StateRestorer(TrainerCallback):
    """Puts a trainer into the state of another, once it has made the objects that hold it.

    :param counters: of the other, as :func:`counters_of` read them.
    :param optimization: of the other, as :func:`optimization_of` read it.
    """

    def __init__(
        self, trainer: PhaseTrainer, counters: Mapping[str, Any], optimization: Mapping[str, Any]
    ) -> None:
        self.trainer = trainer
        self.counters = counters
        self.optimization = optimization
        self.is_to_draw = True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
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

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.is_to_draw:  # iterating over the dataloader has drawn a number of its own
            set_random_states(self.optimization["random"])
            self.is_to_draw = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        state.epoch = state.global_step / state.max_steps  # counted from where it went on


class LiveSettings:
    """The settings of a GRPO trainer that can be changed while it runs."""

    def __init__(self, trainer: PhaseTrainer) -> None:
        self.trainer = trainer
        self.rate = 1.0

    def settings(self) -> dict[str, float]:
        """The settings of the step that was logged last."""
        groups = self.trainer.optimizer.param_groups if self.trainer.optimizer else []
        rates = {"learning_rate": float(groups[0]["lr"])} if groups else {}
        return {
            "beta": float(self.trainer.beta),
            **rates,
            "temperature": float(self.trainer.temperature),
        }

    def go_on(self, orders: Orders) -> None:
        """Hold to the orders of a phase that was cut off; its optimizer has the rate."""
        self.rate = 1.0 if orders.rate is None else orders.rate
        if orders.temperature is not None:
            self.trainer.sample_at(orders.temperature)

    def follow(self, orders: Orders) -> None:
        """Change the settings as ordered; the temperature from the next answers on."""
        if orders.beta is not None:
            self.trainer.beta = orders.beta
        if orders.rate is not None and orders.rate != self.rate:
            self._scale_rate(orders.rate / self.rate)
            self.rate = orders.rate
        if orders.temperature is not None and orders.temperature != self.trainer.temperature:
            self.trainer.sample_at(orders.temperature)

    def _scale_rate(self, factor: float) -> None:
        assert self.trainer.optimizer is not None
        for group in self.trainer.optimizer.param_groups:
            for name in ("lr", "initial_lr"):
                if name in group:
                    group[name] *= factor
        # The schedule sets each rate anew from these.
        schedule = self.trainer.lr_scheduler
        if schedule is not None and hasattr(schedule, "base_lrs"):
            schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]


def set_temperature(trainer: PhaseTrainer, temperature: float) -> None:
    """Sample at ``temperature``, and take likelihoods and entropies at it."""
    trainer.temperature = temperature
    trainer.args.temperature = temperature
    if hasattr(trainer, "generation_config"):
        trainer.generation_config.temperature = temperature
        trainer.generation_kwargs["temperature"] = temperature
    if hasattr(trainer, "vllm_generation"):
        trainer.vllm_generation.temperature = temperature
    if hasattr(trainer, LIGERS_LOSS):
        getattr(trainer, LIGERS_LOSS).temperature = temperature
    add_fused_lm_head = fused_lm_head()
    if add_fused_lm_head is None:
        return  # what else takes likelihoods reads the trainer's own
    base = base_of(trainer.accelerator.unwrap_model(trainer.model))
    # TRL holds the temperature in the closure of this forward: the head is put on anew.
    if trainer.bare_forward is None:
        vars(base).pop("forward", None)
    else:
        vars(base)["forward"] = trainer.bare_forward
    add_fused_lm_head(
        cast(PreTrainedModel, base),
        temperature=temperature,
        cast_lm_head_to_fp32=trainer.args.cast_lm_head_to_fp32,
        outputs=("log_probs", "entropy"),
    )
