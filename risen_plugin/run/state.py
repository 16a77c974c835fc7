"""What a run keeps over all of its phases: built once, saved in each checkpoint, taken up again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from risen_plugin import __version__
from risen_plugin.config import RisenConfig
from risen_plugin.guard.controllers import Controllers
from risen_plugin.instructions.supply import Instructions
from risen_plugin.kit.processes import ALONE
from risen_plugin.phases.leftovers.buffers import Buffers
from risen_plugin.rewards.panel import Panel
from risen_plugin.rewards.pass_rates import PassRates
from risen_plugin.run.announcing import Telling
from risen_plugin.run.assembly import assemble
from risen_plugin.run.deciding import Decisions
from risen_plugin.run.history import History
from risen_plugin.run.resuming import Resuming
from risen_plugin.training.grpo import check_grpo_fields
from risen_plugin.training.outer_trainer import OuterTrainer


class Components:
    """The objects that a configuration describes, with what they have seen so far.

    :ivar attached: what is reached of the Trainer, where the callback is attached to one.
    :ivar processes: those of the run that is going on.
    :ivar initial: the state before any run.
    :raises RisenError: for unknown names, options, fields or columns.
    """

    def __init__(self, config: RisenConfig) -> None:
        check_grpo_fields(config.grpo, "grpo")
        self.config = config
        self.parts = assemble(config)
        self.instructions = Instructions(
            self.parts, config.seed, curriculum=config.curriculum, reserve=config.reserve
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
        self.resuming = Resuming(config, self.parts.origins, __version__)
        self.telling = Telling(self.parts.plugins)
        self.attached: OuterTrainer | None = None
        self.processes = ALONE
        self.initial = copy.deepcopy(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as JSON values."""
        return {
            "version": __version__,
            "trainer": self.attached.unlogged() if self.attached else None,
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
