"""What a run is asked to be: frozen data, the same from Python objects and from YAML."""

from __future__ import annotations

from risen_plugin.config.risen import (
    DEFAULT_GRPO,
    BreakerConfig,
    BuffersConfig,
    ControlConfig,
    CurriculumConfig,
    GateConfig,
    GuardConfig,
    LoraSettings,
    PluginOrName,
    RisenConfig,
    TaskProbe,
    Use,
    Weighted,
    check_batches,
    check_control,
    check_keys,
    use,
)

__all__ = [
    "DEFAULT_GRPO",
    "BreakerConfig",
    "BuffersConfig",
    "ControlConfig",
    "CurriculumConfig",
    "GateConfig",
    "GuardConfig",
    "LoraSettings",
    "PluginOrName",
    "RisenConfig",
    "TaskProbe",
    "Use",
    "Weighted",
    "check_batches",
    "check_control",
    "check_keys",
    "use",
]
