"""The state that outlives a run: built once from the configuration, saved in each checkpoint.

Everything that belongs to one call of ``Trainer.train`` is in ``active``.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from risen_plugin import __version__
from risen_plugin.config import RisenConfig, check_batches, effective_grpo
from risen_plugin.config.choices import as_named
from risen_plugin.config.grpo import Chosen
from risen_plugin.guard.controllers import Controllers
from risen_plugin.instructions.supply import Instructions
from risen_plugin.phases.leftovers.buffers import Buffers
from risen_plugin.record.description import made_of, without_address
from risen_plugin.record.run_record import FORMAT
from risen_plugin.rewards.batch import PassRates
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.rewards.panel import Panel
from risen_plugin.run.assembly import Parts, assemble
from risen_plugin.run.deciding import Decisions, History
from risen_plugin.training.grpo import check_grpo_fields
from risen_plugin.training.outer_trainer import OuterTrainer

if TYPE_CHECKING:
    from risen_plugin.phases.context import PhaseContext

AtStart: TypeAlias = "Callable[[PhaseContext, Path], PhaseContext]"
"""Called when a run starts; see :class:`RunState`."""


class RunState:
    """The objects that a configuration describes, with all that they have seen so far.

    :ivar chosen: fields of ``GRPOConfig`` that a person set, as far as they are known yet.
    :ivar at_start: called once with the context of a run that begins, and returns the one that its
        phases get; the folder is for files that a sampler of answers goes on with.
    :ivar made_of: the settings and plugins that a resumed run must share with this one.
    :raises RisenError: for unknown names, options, fields or columns.
    """

    def __init__(self, config: RisenConfig) -> None:
        check_grpo_fields(config.grpo, "grpo")
        self.config = config
        self.parts = assemble(config)
        self.chosen = _chosen(config, self.parts)
        self.instructions = Instructions(
            self.parts.generator,
            self.parts.held_out,
            self.parts.asked,
            config.seed,
            curriculum=config.curriculum,
            reserve=config.reserve,
        )
        self.pass_rates = PassRates()
        self.buffers = Buffers(config.buffers)
        self.panel = Panel(
            self.parts.rewards,
            config.breaker,
            self.parts.gate,
            listeners=[self.pass_rates.take, self.instructions.take, self.buffers.take],
        )
        self.history = History(self.pass_rates, counts=self.buffers.counts)
        self.decisions = Decisions()
        self.controllers = Controllers(config.control)
        self.made_of = made_of(config, self.parts.origins, __version__)
        self.at_start: AtStart | None = None
        self._initial = copy.deepcopy(self.state_dict())

    def take_steps(self, steps: int) -> None:
        """Have the scheduler, which names the steps of its phases beforehand, name other ones."""
        scheduler = self.parts.scheduler
        other = dataclasses.replace(scheduler.value, steps=steps)
        self.parts = dataclasses.replace(
            self.parts, scheduler=dataclasses.replace(scheduler, value=other)
        )

    def reset(self) -> None:
        """Go back to the state before any run."""
        self.instructions.close_pool()
        self.load_state_dict(self._initial)

    def state_dict(self, outer: OuterTrainer | None = None) -> dict[str, Any]:
        """Everything that a resumed run needs, as JSON values.

        :param outer: the Trainer, where the callback is attached to one.
        """
        return {
            "version": __version__,
            "trainer": outer.unlogged() if outer else None,
            "history": self.history.state_dict(),
            "decisions": self.decisions.state_dict(),
            "instructions": self.instructions.state_dict(),
            "buffers": self.buffers.state_dict(),
            "plugins": {role: part.state_dict() for role, part in self.parts.stateful().items()},
            "controllers": self.controllers.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self.history.load_state_dict(state["history"])
        self.decisions.load_state_dict(state.get("decisions", {}))
        self.instructions.load_state_dict(state["instructions"])
        self.controllers.load_state_dict(state.get("controllers", {}))
        self.buffers.load_state_dict(state.get("buffers"))
        for role, part in self.parts.stateful().items():
            if role in state["plugins"]:
                part.load_state_dict(state["plugins"][role])

    def describe(self, *, processes: int, output_dir: str | None) -> dict[str, Any]:
        """The configuration with its defaults, and the origins of its parts, for ``run.json``."""
        return {
            "format": FORMAT,
            "risen_plugin": __version__,
            "plugins": dict(self.parts.origins),
            "rewards": [
                _reward(reward, wanted)
                for reward, wanted in zip(self.parts.rewards, self.config.rewards, strict=True)
            ],
            "generator": {"label": self.parts.generator.label},
            "scheduler": {
                "label": self.parts.scheduler.label,
                "uses": without_address(self.parts.scheduler.value),
            },
            "guard": self.config.guard.describe(),
            "control": dataclasses.asdict(self.config.control),
            "breaker": dataclasses.asdict(self.config.breaker),
            "gate": self.parts.gate.describe() if self.parts.gate else None,
            "lora": dataclasses.asdict(self.config.lora),
            "grpo": effective_grpo(self.config.grpo),
            "curriculum": self.config.curriculum and dataclasses.asdict(self.config.curriculum),
            "buffers": self.buffers.describe(),
            "reserved": sorted(self.instructions.held_out.reserved),
            "seed": self.config.seed,
            "processes": processes,
            "output_dir": output_dir,
        }


def _chosen(config: RisenConfig, parts: Parts) -> list[Chosen]:
    """The fields under ``grpo``, and those that the scheduler has as ``parameters``, checked.

    :raises ConfigError: for a field of the scheduler's that no phase can use.
    """
    chosen = [Chosen("grpo", name, value) for name, value in config.grpo.items()]
    parameters = getattr(parts.schedule, "parameters", None)
    if not isinstance(parameters, Mapping):
        return chosen
    label = parts.scheduler.label
    check_grpo_fields(parameters, label)
    check_batches(effective_grpo(config.grpo, parameters), label)
    return [*chosen, *(Chosen(label, name, value) for name, value in parameters.items())]


def _reward(reward: NamedReward, wanted: object) -> dict[str, Any]:
    return {
        "name": reward.__name__,
        "label": reward.label,
        **dataclasses.asdict(reward.grading),
        "uses": without_address(reward.reward),
        "named": as_named(wanted),
    }
