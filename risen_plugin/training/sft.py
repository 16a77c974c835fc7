"""Fine-tuning as ``risen train`` does it: TRL's SFTTrainer, or a Trainer that learns nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
from datasets import Dataset, Features, Json, Value
from jinja2.exceptions import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from risen_plugin.config.grpo import check_fields
from risen_plugin.errors import ConfigError, one_line
from risen_plugin.training.asking import rendered, template_of
from risen_plugin.training.protocols import Tokenizer
from risen_plugin.training.seam import checkpointing_setting

SftArguments: TypeAlias = SFTConfig
NO_CHECKPOINTING = checkpointing_setting(SFTConfig, False)
"""Fields of ``SFTConfig`` by which it keeps all activations."""


def check_sft_fields(fields: Mapping[str, Any], managed: Mapping[str, str], label: str) -> None:
    """Refuse unknown and managed fields of ``SFTConfig``, and wrong values.

    :raises ConfigError: naming the field and the near miss, or the values that it takes.
    """
    check_fields(SFTConfig, fields, managed, label)


def sft_config(**fields: Any) -> SFTConfig:
    """TRL's arguments.

    :raises ConfigError: in one line, for whatever TRL refuses.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SFTConfig(**fields)
    except (TypeError, ValueError, ImportError, AttributeError) as error:
        raise ConfigError(f"fine_tune is refused by TRL: {one_line(error)}") from error


def sft_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    args: SFTConfig,
    train_rows: Sequence[Mapping[str, Any]],
    eval_rows: Sequence[Mapping[str, Any]],
) -> Trainer:
    """TRL's trainer on rows.

    :raises ConfigError: if no row keeps a token to learn; ``DataError`` for a row that the chat
        template refuses.
    """
    try:
        trainer = SFTTrainer(
            model=model,
            args=args,
            train_dataset=_as_it_stands(train_rows),
            eval_dataset=_as_it_stands(eval_rows) if eval_rows else None,
            processing_class=tokenizer,
        )
    except (TemplateError, TypeError, ValueError, KeyError):
        for row in (*train_rows, *eval_rows):  # TRL does not say which one it is
            messages = row.get("messages") or [*row.get("prompt", ()), *row.get("completion", ())]
            if not any(isinstance(value, str) for value in (*messages, row.get("text"))):
                rendered(cast(Tokenizer, tokenizer), messages, **template_of(row))
        raise
    for name, rows in (("data", trainer.train_dataset), ("evaluation", trainer.eval_dataset)):
        if rows is not None and not len(rows):  # type: ignore[arg-type]
            raise ConfigError(
                f"no row of {name} keeps a token to learn within fine_tune.max_length "
                f"{args.max_length}; raise it"
            )
    return trainer


def _as_it_stands(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """A dataset whose chat messages and tools have the keys that they have in ``rows``.

    A column of mappings would get the keys of all rows in each one, null where a row lacks it, and
    templates write that out: arguments of a tool call that nobody gave.
    """
    names = {name: None for row in rows for name in row}
    texts = {name for row in rows for name, value in row.items() if isinstance(value, str)}
    features = Features({name: Value("string") if name in texts else Json() for name in names})
    lacking: Mapping[str, Any] = {"chat_template_kwargs": {}}
    whole = [{name: row.get(name, lacking.get(name)) for name in names} for row in rows]
    return Dataset.from_list(whole, features)


class NothingToLearn(Trainer):
    """A Trainer whose steps have no gradient, so that no weight changes."""

    fine_tunes = False

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: SFTConfig
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=Dataset.from_list([{"input_ids": [0], "attention_mask": [1]}]),
            processing_class=tokenizer,
        )

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        return torch.zeros((), device=self.args.device)


def train_from(trainer: Trainer, checkpoint: str | None) -> None:
    """Train, from a checkpoint on if there is one: the first evaluation is recorded by then."""
    if checkpoint is not None:
        trainer.args.eval_on_start = False
    trainer.train(resume_from_checkpoint=checkpoint)
