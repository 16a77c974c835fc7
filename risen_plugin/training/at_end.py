"""A run that is resumed at its last step has none left to take."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class NoStepTooMany(TrainerCallback):
    """Lets a Trainer that is resumed at ``max_steps`` change and record nothing more.

    Resumed in mid-epoch there, it takes one step too many before it looks (transformers 5.23,
    ``_run_epoch``). Without gradients the optimizer changes nothing.
    """

    def __init__(self) -> None:
        self.is_at_end = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.is_at_end = state.global_step >= state.max_steps

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.is_at_end:
            for parameter in kwargs["model"].parameters():
                parameter.grad = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.is_at_end:
            state.global_step = state.max_steps
            control.should_training_stop = True
            # All of it is there from the step that was the last.
            control.should_save = control.should_evaluate = control.should_log = False
