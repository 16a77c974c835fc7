"""Instruction following for the Hugging Face Trainer, in short phases around fine-tuning.

Importing this package loads no torch: ``RisenCallback`` is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from risen_plugin.contracts import (
    Completion,
    Decision,
    Drawn,
    Exporter,
    Failed,
    Generator,
    PhaseRecord,
    Progress,
    Reward,
    Rollout,
    Row,
    Sampler,
    Scheduler,
    Stateful,
    is_blank,
    text_of,
)
from risen_plugin.errors import RisenError
from risen_plugin.hookspecs import hookimpl, hookspec

if TYPE_CHECKING:
    from risen_plugin.callback import RisenCallback
    from risen_plugin.config import (
        AnchorConfig,
        BreakerConfig,
        BuffersConfig,
        ControlConfig,
        CurriculumConfig,
        GateConfig,
        GuardConfig,
        LoraSettings,
        MendingConfig,
        RisenConfig,
        RolloutConfig,
        TaskProbe,
        Weighted,
        use,
    )
    from risen_plugin.record.rollouts import RolloutLog, read_rollouts
    from risen_plugin.rewards.batch import Batch
    from risen_plugin.training.outer_trainer import leave_processes

__version__ = "0.1.0"
__all__ = [
    "AnchorConfig",
    "Batch",
    "BreakerConfig",
    "BuffersConfig",
    "Completion",
    "ControlConfig",
    "CurriculumConfig",
    "Decision",
    "Drawn",
    "Exporter",
    "Failed",
    "GateConfig",
    "Generator",
    "GuardConfig",
    "LoraSettings",
    "MendingConfig",
    "PhaseRecord",
    "Progress",
    "Reward",
    "RisenCallback",
    "RisenConfig",
    "RisenError",
    "Rollout",
    "RolloutConfig",
    "RolloutLog",
    "Row",
    "Sampler",
    "Scheduler",
    "Stateful",
    "TaskProbe",
    "Weighted",
    "__version__",
    "hookimpl",
    "hookspec",
    "is_blank",
    "leave_processes",
    "read_rollouts",
    "text_of",
    "use",
]

_LATER = {
    "RisenCallback": "risen_plugin.callback",
    "Batch": "risen_plugin.rewards.batch",
    "AnchorConfig": "risen_plugin.config",
    "BreakerConfig": "risen_plugin.config",
    "BuffersConfig": "risen_plugin.config",
    "GateConfig": "risen_plugin.config",
    "ControlConfig": "risen_plugin.config",
    "CurriculumConfig": "risen_plugin.config",
    "GuardConfig": "risen_plugin.config",
    "LoraSettings": "risen_plugin.config",
    "MendingConfig": "risen_plugin.config",
    "RisenConfig": "risen_plugin.config",
    "RolloutConfig": "risen_plugin.config",
    "RolloutLog": "risen_plugin.record.rollouts",
    "TaskProbe": "risen_plugin.config",
    "Weighted": "risen_plugin.config",
    "leave_processes": "risen_plugin.training.outer_trainer",
    "read_rollouts": "risen_plugin.record.rollouts",
    "use": "risen_plugin.config",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # with those that are loaded later, for completion


def __getattr__(name: str) -> Any:
    if name in _LATER:
        import importlib

        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
