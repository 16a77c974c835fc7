"""The configuration of a run: frozen data, the same from Python objects and from YAML."""

from __future__ import annotations

from risen_plugin.config.choices import PluginOrName, Use, Weighted, use
from risen_plugin.config.control import ControlConfig, check_control
from risen_plugin.config.grpo import DEFAULT_GRPO, check_batches, effective_grpo
from risen_plugin.config.guard import GuardConfig, TaskProbe
from risen_plugin.config.risen import RisenConfig, RisenFields
from risen_plugin.config.sections import (
    AnchorConfig,
    BreakerConfig,
    BuffersConfig,
    CurriculumConfig,
    GateConfig,
    LoraSettings,
    MendingConfig,
    RolloutConfig,
)
from risen_plugin.kit.checks import check_keys

__all__ = [
    "DEFAULT_GRPO",
    "AnchorConfig",
    "BreakerConfig",
    "BuffersConfig",
    "ControlConfig",
    "CurriculumConfig",
    "GateConfig",
    "GuardConfig",
    "LoraSettings",
    "MendingConfig",
    "PluginOrName",
    "RisenConfig",
    "RisenFields",
    "RolloutConfig",
    "TaskProbe",
    "Use",
    "Weighted",
    "check_batches",
    "check_control",
    "check_keys",
    "effective_grpo",
    "use",
]
