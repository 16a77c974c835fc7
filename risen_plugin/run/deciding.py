"""Which decisions are worth telling: a phase or burst, and each change of the reason to wait.

A scheduler is asked after every step; its reason says the same with other numbers most of the time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from risen_plugin.contracts import Decision

_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d+)?(?:e[-+]?\d+)?|\bnan\b|\binf\b)%?", re.IGNORECASE)


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
