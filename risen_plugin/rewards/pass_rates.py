"""The share of passed answers of each family, over the latest ones; the run's rollouts."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from risen_plugin.rewards.batch import Batch

NO_FAMILY = "all"


class PassRates:
    """The share of passed answers per family, over the latest answers of each.

    Listens to a panel. An answer that a reward failed on is a rollout and counts no further.

    :param window: the latest answers of each family that count.
    """

    def __init__(self, window: int = 256) -> None:
        self.answers: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=window))
        self.rollouts = 0
        self.tokens = 0

    def take(self, batch: Batch) -> None:
        """Count a generation batch."""
        families = batch.columns.get("family") or [None] * len(batch)
        for family, passed in zip(families, batch.verdicts, strict=True):
            if passed is not None:
                self.answers[NO_FAMILY if family in (None, "") else str(family)].append(passed)
        self.rollouts += len(batch)
        self.tokens += batch.tokens

    def rates(self) -> dict[str, float]:
        """The pass rate of every family that has been answered."""
        return {family: sum(seen) / len(seen) for family, seen in self.answers.items() if seen}

    def state_dict(self) -> dict[str, Any]:
        answers = {
            family: [int(passed) for passed in seen] for family, seen in self.answers.items()
        }
        return {"answers": answers, "rollouts": self.rollouts, "tokens": self.tokens}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.answers.clear()
        for family, seen in state["answers"].items():
            self.answers[family].extend(map(bool, seen))
        self.rollouts = state["rollouts"]
        self.tokens = state["tokens"]
