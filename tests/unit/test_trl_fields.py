"""Fields that are passed through to TRL: what is refused, and that nothing sound is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from risen_plugin.config.grpo import check_fields
from risen_plugin.errors import ConfigError


@dataclass
class SomeConfig:
    """Annotated as TRL's classes are."""

    output_dir: str | None = None
    learning_rate: float = 1e-3
    num_train_epochs: float = 3.0
    max_steps: int = -1
    per_device_train_batch_size: int = 8
    eval_accumulation_steps: int | None = None
    bf16: bool | None = None
    packing: bool = False
    scale_rewards: str = "group"
    include_num_input_tokens_seen: str | bool = False
    report_to: str | list[str] | None = None


def check(**fields: Any) -> None:
    check_fields(SomeConfig, fields, {"output_dir": "it is ours"}, "fine_tune")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"learning_rat": 1.0}, "which is no field of TRL's SomeConfig; did you mean 'learning_r"),
        ({"output_dir": "x"}, "fine_tune may not set 'output_dir': it is ours"),
        ({"learning_rate": "fast"}, "fine_tune.learning_rate is 'fast'; it is a finite number"),
        ({"learning_rate": "1e-5"}, "fine_tune.learning_rate is the text '1e-5' (in YAML write"),
        ({"learning_rate": math.nan}, "fine_tune.learning_rate is nan; it is a finite number"),
        ({"learning_rate": -0.1}, "fine_tune.learning_rate is -0.1; it is a number from 0"),
        ({"learning_rate": True}, "fine_tune.learning_rate is True; it is a finite number"),
        ({"learning_rate": None}, "fine_tune.learning_rate is None; it is a finite number"),
        ({"num_train_epochs": 0}, "fine_tune.num_train_epochs is 0; it is a number above 0"),
        ({"max_steps": "twenty"}, "fine_tune.max_steps is 'twenty'; it is a whole number"),
        ({"max_steps": 2.5}, "fine_tune.max_steps is 2.5; it is a whole number"),
        ({"max_steps": 0}, "fine_tune.max_steps is 0, so there is nothing to do"),
        ({"per_device_train_batch_size": 0}, "fine_tune.per_device_train_batch_size is 0; least"),
        ({"packing": "yes"}, "fine_tune.packing is 'yes'; it is true or false"),
        ({"bf16": 1}, "fine_tune.bf16 is 1; it is true or false"),
    ],
)
def test_what_no_trainer_can_use_is_refused_with_its_name(fields: dict[str, Any], words: str):
    with pytest.raises(ConfigError) as refused:
        check(**fields)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": 0, "num_train_epochs": 1, "max_steps": -1, "bf16": None},
        {"eval_accumulation_steps": None, "packing": True, "scale_rewards": True},
        {"include_num_input_tokens_seen": "all", "report_to": ["none"]},
    ],
)
def test_what_trl_takes_goes_through(fields: dict[str, Any]):
    check(**fields)


def test_the_defaults_of_trl_itself_go_through():
    """The classes' own defaults are the oracle: none of them may be refused."""
    import dataclasses

    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.sft_config import SFTConfig

    for kind in (SFTConfig, GRPOConfig):
        defaults = {
            entry.name: entry.default
            for entry in dataclasses.fields(kind)
            if entry.init and entry.default is not dataclasses.MISSING
        }
        check_fields(kind, defaults, {}, "defaults")
