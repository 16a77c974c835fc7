"""Differences between releases, seen through one name each."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from risen_plugin.training.seam import checkpointing_setting, checkpoints_activations


@dataclass
class Old:
    gradient_checkpointing: bool = False


@dataclass
class New(Old):
    activation_checkpointing: bool | None = None


@pytest.mark.parametrize(
    ("arguments", "on"),
    [
        ({"gradient_checkpointing": True}, True),
        ({"gradient_checkpointing": False}, False),
        ({"gradient_checkpointing": True, "activation_checkpointing": None}, True),
        ({"gradient_checkpointing": True, "activation_checkpointing": False}, False),
        ({"gradient_checkpointing": False, "activation_checkpointing": True}, True),
        ({}, False),
    ],
)
def test_the_new_name_wins_over_the_old_one(arguments: dict[str, Any], on: bool) -> None:
    assert checkpoints_activations(SimpleNamespace(**arguments)) is on


def test_the_setting_has_the_name_that_the_release_knows() -> None:
    assert checkpointing_setting(Old, True) == {"gradient_checkpointing": True}
    assert checkpointing_setting(New, False) == {"activation_checkpointing": False}


def test_the_installed_trl_takes_the_setting_without_a_warning() -> None:
    from trl.trainer.grpo_config import GRPOConfig

    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        args = GRPOConfig(
            output_dir="unused",
            use_cpu=True,
            bf16=False,
            report_to=[],
            **checkpointing_setting(GRPOConfig, False),
        )
    assert checkpoints_activations(args) is False
