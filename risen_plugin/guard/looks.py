"""Plan how many held-out rows a phase is judged by, and whether to go on measuring. Pure.

All that the rows say counts: each constraint of a row and each further graded reward is one check,
and the sum of a row's checks is compared with itself, so that a row counts once for how sure the
gain is. ``sign_flips`` has the test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from risen_plugin.config import GuardConfig
from risen_plugin.kit.intervals import Interval, least_changed, of_means, of_ratio
from risen_plugin.kit.sign_flips import (
    chance_to_be_sure,
    is_lopsided,
    limit_after,
    look_at,
    rows_for,
    smallest_gain,
)

Met: TypeAlias = tuple[int, int]
"""How many of how many checks of a row its answer meets."""

SCATTER = 0.15
"""Share of rows whose verdict changes in a phase; measured were 0.1 to 0.2."""

POWER = 0.9
_COST = 2.0
"""What an answer in GRPO costs, its update included, in greedy answers to held-out rows.

Measured: 1.9 on a processor (``benchmarks.guard``), 2.5 on a GPU (``benchmarks/README.md``).
"""

_FEWEST = 32  # rows at a look, of which a quarter that changes can be sure
_HOPELESS = 0.05  # chance of becoming sure, at one standard error more than measured
_LOOKS = 4  # at 3 to 4 the last one asks hardly more than a single look would


@dataclass(frozen=True)
class RowPlan:
    """The rows of one phase's guard.

    :param looks: how many rows each look at its end has seen, the first look's first.
    """

    looks: tuple[int, ...]

    @property
    def first(self) -> int:
        """The rows that are measured in any case."""
        return self.looks[0]

    @property
    def most(self) -> int:
        """The rows after which there is no further look."""
        return self.looks[-1]


@dataclass(frozen=True)
class Checks:
    """The checks of rows at both ends of a phase, of the rows that were judged at both.

    A row that was not judged by as many checks at both ends counts by its verdict alone.
    """

    before: Sequence[Met]
    after: Sequence[Met]

    @property
    def differences(self) -> list[int]:
        """How many more checks of each row are met after the phase."""
        return [now[0] - then[0] for then, now in zip(self.before, self.after, strict=True)]

    @property
    def weights(self) -> list[int]:
        """How many checks each row has."""
        return [asked for _, asked in self.before]

    def gain(self, confidence: float | None) -> Interval:
        """The change of the share of checks that are met."""
        if all(asked == 1 for asked in self.weights):
            before, after = ([float(met) for met, _ in end] for end in (self.before, self.after))
            return of_means(before, after, confidence)
        return of_ratio(self.differences, self.weights, confidence)


def share_met(met: Sequence[Met | None]) -> float | None:
    """The share of all checks that are met; None where there are none."""
    known = [count for count in met if count is not None]
    asked = sum(of for _, of in known)
    return sum(count for count, _ in known) / asked if asked else None


def checks_of(
    before: tuple[Sequence[bool | None], Sequence[Met | None]],
    after: tuple[Sequence[bool | None], Sequence[Met | None]],
) -> Checks:
    """The checks of the rows that were judged at both ends.

    :param before: for each row whether its answer passed, and its checks; of the checks there may
        be none at all.
    """
    ends: tuple[list[Met], list[Met]] = ([], [])
    for then, now in zip(_by_row(before), _by_row(after), strict=True):
        (had_passed, had_met), (has_passed, has_met) = then, now
        if had_passed is None or has_passed is None:
            continue
        if had_met is None or has_met is None or had_met[1] != has_met[1]:
            had_met, has_met = (int(had_passed), 1), (int(has_passed), 1)
        ends[0].append(had_met)
        ends[1].append(has_met)
    return Checks(*ends)


def _by_row(
    end: tuple[Sequence[bool | None], Sequence[Met | None]],
) -> list[tuple[bool | None, Met | None]]:
    passed, met = end
    return list(zip(passed, met or [None] * len(passed), strict=True))


def plan_rows(config: GuardConfig, there: int, answers: int) -> RowPlan:
    """The rows of a phase's guard.

    :param there: how many were set apart.
    :param answers: how many answers the phase samples, by which its time is reckoned.
    """
    if not isinstance(config.rows, str):
        first = min(config.rows, there)
        is_open = config.confidence is not None and config.min_gain >= 0.0
        return in_looks(first, min(config.rows_apart, there) if is_open else first)
    affordable = int(config.time_share * answers * _COST / 2.0)  # both ends are measured
    least = 1 if config.confidence is None else least_changed(config.confidence)
    most = max(least, min(config.rows_apart, affordable))
    if config.confidence is None or config.min_gain < 0.0:
        return RowPlan((min(most, there),))
    if config.min_gain > 0.0:
        wanted = rows_for(config.min_gain, config.confidence, scatter=SCATTER, power=POWER)
        most = max(least, min(most, wanted))
    most = min(most, there)
    return in_looks(min(most, max(_FEWEST, math.ceil(most / _LOOKS))), most)


def can_tell(plan: RowPlan, confidence: float) -> tuple[float, str]:
    """The smallest gain that the rows tell from chance, and one line that says so."""
    gain = smallest_gain(plan.most, confidence, scatter=SCATTER, power=POWER)
    upto = f"{plan.first} to {plan.most}" if plan.most > plan.first else str(plan.most)
    return gain, (
        f"the guard's {upto} rows tell a gain of {gain:.3f} in strict adherence from chance in "
        f"{POWER:.0%} of cases (confidence {confidence:g}, where {SCATTER:.0%} of the rows change; "
        "a smaller one where a row has several checks)"
    )


def in_looks(first: int, most: int) -> RowPlan:
    """Looks from ``first`` rows up to ``most``, in steps of about the same size."""
    if most <= first:
        return RowPlan((first,))
    looks = [first]
    step = max(first, math.ceil(most / _LOOKS))
    while looks[-1] < most:
        rest = most - looks[-1]
        looks.append(most if rest < 1.5 * step else looks[-1] + step)
    return RowPlan(tuple(looks))


def is_more_than_chance(checks: Checks, confidence: float, plan: RowPlan | None) -> bool:
    """Whether the checks gained more than by chance, at the latest look of the plan."""
    differences = checks.differences
    count = len(differences)
    if plan is None:
        looked = look_at(differences, confidence)
    else:
        seen = [rows for rows in plan.looks if rows < count] + [count]
        looked = look_at(differences, confidence, looks=seen, planned=plan.most)
    return looked.is_sure and not is_lopsided(differences, confidence)


def is_hopeless(checks: Checks, confidence: float, plan: RowPlan) -> bool:
    """Whether the rows that are left will hardly make the gain sure."""
    limit = limit_after(checks.differences, confidence, plan.most)
    return chance_to_be_sure(checks.differences, limit, plan.most) < _HOPELESS
