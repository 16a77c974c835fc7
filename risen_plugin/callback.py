"""The callback: Trainer events in, RISEN phases out.

Each event is passed on to the active run, which asks the scheduler, carries phases out and
announces them. ``callbacks=[RisenCallback(...)]`` is enough; ``attach(trainer)`` also reaches the
Trainer's loggers, metrics and evaluation set. The modules that build a run and carry it out are
loaded when they are used.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from risen_plugin.config import RisenConfig, RisenFields, check_keys
from risen_plugin.contracts import PhaseRecord
from risen_plugin.errors import ConfigError, DataError
from risen_plugin.kit.fields import changed_fields
from risen_plugin.run.fitness import check_arguments, check_model, check_probe, check_targets
from risen_plugin.training.outer_trainer import NoStepTooMany, OuterTrainer, running_trainer

if TYPE_CHECKING:
    from risen_plugin.run.active import ActiveRun

_log = logging.getLogger("risen_plugin")
_Init = TypeVar("_Init", bound=Callable[..., None])


def _with_fields_in_signature(init: _Init) -> _Init:
    """Show the fields of the configuration where a signature is asked for: help, notebooks."""
    own = list(inspect.signature(init).parameters.values())[:-1]
    fields = [
        parameter.replace(
            kind=inspect.Parameter.KEYWORD_ONLY,
            default=None if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(RisenConfig).parameters.values()
    ]
    init.__signature__ = inspect.Signature([*own, *fields])  # type: ignore[attr-defined]
    return init


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

    @_with_fields_in_signature
    def __init__(
        self, config: RisenConfig | Mapping[str, Any] | None = None, **fields: Unpack[RisenFields]
    ) -> None:
        if isinstance(config, Mapping):
            config = RisenConfig.from_dict(config)
        if config is not None and not isinstance(config, RisenConfig):
            raise ConfigError(
                f"RisenCallback takes a RisenConfig, not {config!r:.60}; for a YAML file give "
                "RisenConfig.from_yaml(path)"
            )
        if config is None:
            config = _config_from(fields)
        elif fields:
            changes: Mapping[str, Any] = fields
            config = dataclasses.replace(config, **changes)
        self._begin(config)

    def _begin(self, config: RisenConfig) -> None:
        from risen_plugin.run.state import RunState

        self.config = config
        self.run_state = RunState(config)
        self._outer: OuterTrainer | None = None
        self._was_attached = False
        self._whole: frozenset[Path] = frozenset()
        self._run: ActiveRun | None = None
        self._at_end = NoStepTooMany()

    def __repr__(self) -> str:
        return f"RisenCallback({', '.join(changed_fields(self.config))})"

    def __getstate__(self) -> dict[str, Any]:
        """The configuration and what was seen so far, without the Trainer and its model.

        A copy belongs to the Trainer that it is copied with.
        """
        return {
            "config": self.config,
            "state": self.run_state.state_dict(),
            "attached": self._outer is not None or self._was_attached,
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._begin(state["config"])
        self.run_state.load_state_dict(state["state"])
        self._was_attached = bool(state["attached"])

    def attach(self, trainer: Trainer) -> RisenCallback:
        """Add this callback to ``trainer`` and reach its loggers, metrics and evaluation set.

        :raises RisenError: if the trainer's arguments, model or tokenizer do not fit, there is
            nothing to measure retention on, or another RisenCallback is there already.
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
        outer = OuterTrainer(trainer)
        check_probe(self.config.probe, has_evaluation=bool(outer.evaluation_rows(1)))
        self._check_template(trainer.processing_class)
        self._outer = outer
        if not others:
            trainer.add_callback(self)
        self._mend(trainer.args)
        return self

    def _check_template(self, tokenizer: Any) -> None:
        """Have the tokenizer read the first instruction, which may take a chat template."""
        from risen_plugin.config import effective_grpo
        from risen_plugin.training.asking import Asking

        asking, parts = Asking(tokenizer, effective_grpo(self.config.grpo)), self.run_state.parts
        for row in parts.first_rows:
            try:
                asking.prompt_ids(row["prompt"])
            except DataError as error:
                raise DataError(f"{parts.generator.label} made an unusable row: {error}") from error

    @property
    def phases(self) -> tuple[PhaseRecord, ...]:
        """The phases of the run that have ended, oldest first."""
        return self.run_state.history.phases

    # Trainer events ---------------------------------------------------------------------------

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._mend(args)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        from risen_plugin.run.start import Start

        self._run = None
        if self._outer is None and self._was_attached:  # a copy, with a Trainer that is one too
            self._outer = running_trainer(self)
        if state.is_hyper_param_search:
            args = _of_trial(args, self._outer or running_trainer(self))
        self._run = Start(
            self.run_state,
            args,
            state,
            model=kwargs["model"],
            tokenizer=kwargs.get("processing_class"),
            outer=self._outer,
            callback=self,
            whole=self._whole,
        ).run()
        self._at_end.on_train_begin(args, state, control)
        self._run.begin(state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._active.resuming.withdraw()
        self._active.enter(state)  # the checkpoint that it waited for did not come

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._active.enter(state)
        if control.should_save:
            self._active.resuming.announce(state.global_step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._at_end.on_pre_optimizer_step(args, state, control, **kwargs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._at_end.is_at_end:
            self._at_end.on_step_end(args, state, control)
            return
        if self._active.decide(state):
            control.should_save = True
        if control.should_save:
            self._active.resuming.announce(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs:
            self.run_state.history.add_losses(state.global_step, logs)
        if "loss" in (logs or {}):
            self._record_numbers("log", state, logs)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.run_state.history.add_evaluation(state.global_step, metrics or {})
        self._record_numbers("evaluation", state, metrics)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._active.saved(state, is_last=control.should_training_stop)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._run is not None:
            self._run.end(state)
            self._run = None  # holds the model

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        from risen_plugin.training.uploads import hold_back_record

        hold_back_record(not self.config.upload_record)

    @property
    def _active(self) -> ActiveRun:
        assert self._run is not None, "an event of a run that has not begun"
        return self._run

    def _record_numbers(
        self, name: str, state: TrainerState, numbers: Mapping[str, Any] | None
    ) -> None:
        if self._run is not None:
            self._run.announcer.numbers(name, state.global_step, numbers)

    def _mend(self, args: TrainingArguments) -> None:
        """Set aside checkpoints that are not whole, before the Trainer looks for the newest."""
        from risen_plugin.record.checkpoints import Checkpoints

        if not args.output_dir:
            return
        with args.main_process_first(local=False, desc="looking at checkpoints"):
            if args.process_index == 0:
                checkpoints = Checkpoints(str(args.output_dir))
                for line in checkpoints.mend():
                    _log.warning(line)
                self._whole = frozenset(folder.resolve() for folder in checkpoints.newest()[:1])

    # State ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as JSON values."""
        return self.run_state.state_dict(self._outer)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self.run_state.load_state_dict(state)


def _of_trial(args: TrainingArguments, outer: OuterTrainer | None) -> TrainingArguments:
    """The arguments with the folder of one trial of a search, whose checkpoints are in it."""
    if outer is None:
        return args
    own = copy.copy(args)
    own.output_dir = outer.run_dir()
    return own


def _config_from(fields: Mapping[str, Any]) -> RisenConfig:
    """A configuration from keyword arguments, with the messages that YAML gets."""
    known = {entry.name for entry in dataclasses.fields(RisenConfig)}
    check_keys(fields, known, "RisenCallback")
    for name in ("rewards", "generator"):
        if name not in fields:
            raise ConfigError(f"RisenCallback lacks '{name}'")
    return RisenConfig(**fields)
