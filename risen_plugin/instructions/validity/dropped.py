"""The rows that a filter dropped, and why: counts and a few examples per reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_EXAMPLES = 3  # per reason
_LONGEST = 100  # characters of an example


@dataclass
class FilterReport:
    """Counts of kept and dropped rows.

    :param kept: how many passed.
    :param dropped: how many did not, by reason.
    :param examples: the beginnings of the first few that did not, by reason.
    """

    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def keep(self) -> None:
        """Count one that passed."""
        self.kept += 1

    def drop(self, reason: str, example: str) -> None:
        """Count one that did not pass."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < _EXAMPLES:
            text = " ".join(example.split())
            shown.append(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "examples": {reason: list(shown) for reason, shown in self.examples.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FilterReport:
        """The report that :meth:`as_dict` was made of."""
        examples = {reason: list(shown) for reason, shown in values["examples"].items()}
        return cls(values["kept"], dict(values["dropped"]), examples)

    def __str__(self) -> str:
        """One line: ``12 kept, 3 dropped (2 contaminated, 1 too long)``."""
        reasons = ", ".join(
            f"{count} {reason}" for reason, count in sorted(self.dropped.items(), key=_most_first)
        )
        total = sum(self.dropped.values())
        return f"{self.kept} kept, {total} dropped" + (f" ({reasons})" if reasons else "")


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
