"""Ask a scheduler, hold its answer to the contract, and see whether it is news.

A scheduler is asked after every step; its reason says the same with other numbers most of the time.
News are a phase or burst, and each change of the reason to wait. Pure, but for what the scheduler
does itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from risen_plugin.contracts import Decision, PhaseKind, Progress, Scheduler
from risen_plugin.errors import PluginError, boundary

_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d+)?(?:e[-+]?\d+)?|\bnan\b|\binf\b)%?", re.IGNORECASE)
_NAMES: Mapping[PhaseKind, str] = {
    "fine_tune": "stretch of fine-tuning",
    "risen": "RISEN phase",
    "burst": "burst",
}


def decide(scheduler: Scheduler, progress: Progress, label: str) -> Decision:
    """The scheduler's decision.

    :raises PluginError: naming the scheduler, if it raises or returns what is no decision.
    """
    with boundary(label):
        decision: Any = scheduler(progress)
    if not isinstance(decision, Decision):
        raise PluginError(f"{label} returned {type(decision).__name__}, not a Decision")
    if decision.phase not in _NAMES:
        raise PluginError(
            f"{label} chose the phase {decision.phase!r}; there are 'fine_tune', 'risen' and "
            "'burst'"
        )
    if decision.phase != "fine_tune" and (
        not isinstance(decision.steps, int) or decision.steps < 1
    ):
        raise PluginError(
            f"{label} wants a {_NAMES[decision.phase]} of {decision.steps!r} steps; it is a whole "
            "number from 1"
        )
    if not isinstance(decision.parameters, Mapping):
        raise PluginError(f"{label} returned parameters that are no mapping")
    return decision


def kind_of(decision: Decision) -> str:
    """The decision without its numbers: what is the same from step to step.

    >>> kind_of(Decision("fine_tune", reason="plateau: eval_loss 1.2 -> 1.19, -0.8%"))
    'fine_tune: plateau: eval_loss # -> #, #'
    """
    return f"{decision.phase}: {_NUMBER.sub('#', decision.reason)}"


@dataclass
class Decisions:
    """Remembers the latest decision; its kind is part of a checkpoint."""

    latest: str = ""
    reason: str = ""

    def is_news(self, decision: Decision) -> bool:
        """Whether the decision is of another kind than the one before; asked once for each.

        A phase or burst is always news.
        """
        before, self.latest = self.latest, kind_of(decision)
        self.reason = decision.reason
        return decision.phase != "fine_tune" or self.latest != before

    def state_dict(self) -> dict[str, Any]:
        return {"latest": self.latest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.latest = str(state.get("latest", ""))
