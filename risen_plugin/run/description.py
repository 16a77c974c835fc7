"""What a run is made of, as ``run.json`` has it. Plain JSON values out of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from risen_plugin import __version__
from risen_plugin.config import RisenConfig, effective_grpo
from risen_plugin.record.made_of import without_address
from risen_plugin.rewards.adherence import NamedReward
from risen_plugin.run.assembly import Parts


def describe(
    config: RisenConfig,
    parts: Parts,
    *,
    buffers: Mapping[str, Any],
    reserved: Iterable[str],
    processes: int,
    output_dir: str | None,
) -> dict[str, Any]:
    """The configuration with its defaults, and where its parts come from.

    :param buffers: what the buffers say of themselves.
    :param reserved: the families that are never trained on.
    """
    return {
        "risen_plugin": __version__,
        "plugins": dict(parts.origins),
        "rewards": [_reward(reward) for reward in parts.rewards],
        "generator": {"label": parts.generator.label},
        "scheduler": {
            "label": parts.scheduler.label,
            "uses": without_address(parts.scheduler.value),
        },
        "guard": config.guard.describe(),
        "control": dataclasses.asdict(config.control),
        "breaker": dataclasses.asdict(config.breaker),
        "gate": parts.gate.describe() if parts.gate else None,
        "lora": dataclasses.asdict(config.lora),
        "grpo": effective_grpo(config.grpo),
        "curriculum": config.curriculum and dataclasses.asdict(config.curriculum),
        "buffers": dict(buffers),
        "reserved": sorted(reserved),
        "seed": config.seed,
        "processes": processes,
        "output_dir": output_dir,
    }


def _reward(reward: NamedReward) -> dict[str, Any]:
    return {
        "name": reward.__name__,
        "label": reward.label,
        "weight": reward.weight,
        "passes_at": reward.passes_at,
        "graded": reward.graded,
        "on_error": reward.on_error,
        "timeout_s": reward.timeout_s,
        "uses": without_address(reward.reward),
    }
