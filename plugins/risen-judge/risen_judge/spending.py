"""The budget of a judge, and the requests and tokens spent of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BUDGET_SPENT = "budget spent"
_CHARACTERS_PER_TOKEN = 4  # where an endpoint does not say what a request took
_counting = threading.Lock()  # requests are made in several threads


@dataclass
class Spending:
    """Requests and tokens, against the most of each.

    :param calls: requests sent, repeated ones included.
    :param tokens: tokens that the endpoint says it took, and an estimate where it says nothing.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    calls: int = 0
    tokens: int = 0

    @property
    def is_over(self) -> bool:
        """Whether no further request may be sent."""
        calls_gone = self.max_calls is not None and self.calls >= self.max_calls
        return calls_gone or (self.max_tokens is not None and self.tokens >= self.max_tokens)

    def refused(self) -> str | None:
        """Count a request that is about to be sent, or say that the budget is spent."""
        with _counting:
            if self.is_over:
                return BUDGET_SPENT
            self.calls += 1
            return None

    def take(self, usage: Any, characters: int) -> None:
        """Count the tokens of a request.

        :param usage: ``usage`` of the response.
        :param characters: sent and received, for the estimate.
        """
        total = usage.get("total_tokens") if isinstance(usage, Mapping) else None
        if not isinstance(total, int) or isinstance(total, bool) or total < 0:
            total = -(-characters // _CHARACTERS_PER_TOKEN)
        with _counting:
            self.tokens += total
