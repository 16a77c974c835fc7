"""Where the combination pays: the share of held-out answers that passed before and after a phase.

Pure: metrics of phases in, shares with their uncertainty out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from risen_plugin.record.reading import Phase

What = Literal["families", "constraints"]
_Z = 1.96  # of a normal distribution, for 95 %


@dataclass(frozen=True)
class Change:
    """One family's or constraint's pass rate at two moments.

    :param rows: held-out rows that it is measured on.
    :param half_width: of a 95 % interval of the change, as if its two rates were of different rows;
        they are of the same ones, so the true one is narrower.
    """

    name: str
    rows: int
    before: float
    after: float
    half_width: float

    @property
    def change(self) -> float:
        return self.after - self.before


def over_run(phases: Sequence[Phase], what: What) -> list[Change]:
    """The changes from before the first phase to after the latest kept one, largest gain first.

    Fine-tuning in between is part of the change; :func:`over_phase` has the phase's own.
    """
    whole = [phase for phase in phases if f"{what}_before" in phase.metrics]
    kept = [p for p in whole if p.accepted and f"{what}_after" in p.metrics]
    if not whole:
        return []
    ending = kept[-1].metrics[f"{what}_after"] if kept else whole[-1].metrics[f"{what}_before"]
    return _changes(whole[0].metrics[f"{what}_before"], ending)


def over_phase(phase: Phase, what: What) -> list[Change]:
    """The changes by one phase; empty where it was not measured at both ends."""
    before, after = (phase.metrics.get(f"{what}_{when}") for when in ("before", "after"))
    return _changes(before, after) if before and after else []


def in_kept(phases: Sequence[Phase], what: What) -> dict[str, list[tuple[str, float]]]:
    """Per name, the change by each kept phase: (phase, change)."""
    by_name: dict[str, list[tuple[str, float]]] = {}
    for phase in phases:
        if phase.accepted:
            for change in over_phase(phase, what):
                by_name.setdefault(change.name, []).append((phase.name, change.change))
    return by_name


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    changes = []
    for name in before:
        if name not in after:
            continue
        (good, rows), (good_after, rows_after) = before[name], after[name]
        if not rows or not rows_after:
            continue
        first, second = good / rows, good_after / rows_after
        spread = math.sqrt(first * (1 - first) / rows + second * (1 - second) / rows_after)
        changes.append(Change(str(name), int(rows_after), first, second, _Z * spread))
    return sorted(changes, key=lambda change: (-change.change, change.name))
