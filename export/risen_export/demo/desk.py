"""The demo's plugin objects: a generator of order-desk instructions and a reward for the facts.

Written as a user would write them in a script, without any registration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from risen_plugin import text_of
from risen_plugin.contracts import Completion, Prompt
from risen_plugin.embedded import orders


@dataclass(frozen=True)
class OrderDesk:
    """Makes questions about customers' messages, with up to two constraints on the answer's form.

    :param without: prompts that are never made, such as the reported ones.
    """

    without: frozenset[str] = field(default_factory=frozenset, repr=False)
    wish_counts: tuple[int, ...] = (0, 1, 1, 2)
    columns = ("answer", "instruction_id_list", "kwargs", "family")

    def __call__(self, *, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
        return orders.draw(count, seed, wish_counts=self.wish_counts, without=self.without)


@dataclass(frozen=True)
class RightFields:
    """1.0 for an answer that states exactly the asked fields with the right values, else 0.0."""

    needs = ("answer",)

    def __call__(
        self,
        *,
        prompts: list[Prompt],
        completions: list[Completion],
        answer: Sequence[str],
        **columns: Any,
    ) -> list[float | None]:
        return [
            float(orders.is_right(text_of(completion), wanted))
            for completion, wanted in zip(completions, answer, strict=True)
        ]
