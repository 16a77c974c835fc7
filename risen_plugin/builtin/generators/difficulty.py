"""The rules of ``evolve``: how hard constraints should be for the present model.

Pure functions of plain values, tested by tables. A pass rate is evidence; None and NaN, which
errors and abstentions give, are not.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from risen_plugin.constraints import Constraint

_CANDIDATES = 9  # kwargs drawn, of which one is chosen by how hard it is
_LEAST_WEIGHT = 0.05  # of a family that always or never passes


@dataclass(frozen=True)
class Band:
    """The pass rates to aim at, and how quickly.

    :param low: below it, an instruction is too hard.
    :param high: above it, too easy.
    :param step: how far one piece of evidence moves the tightness.
    :param patience: instructions of a family at its easiest, none of which passed, until it is
        retired.
    """

    low: float = 0.2
    high: float = 0.7
    step: float = 0.125
    patience: int = 64


@dataclass(frozen=True)
class Family:
    """The difficulty and pass rate of a constraint family.

    :param tightness: from 0, the easiest kwargs, to 1, the hardest.
    :param rate: the latest pass rate; None before any.
    :param in_vain: instructions made of it at its easiest while nothing passed.
    :param retired: whether it is no longer asked for.
    """

    tightness: float = 0.25
    rate: float | None = None
    in_vain: int = 0
    retired: bool = False


def is_evidence(rate: object) -> bool:
    """Whether ``rate`` is a share of answers that were judged."""
    return (
        isinstance(rate, int | float)
        and not isinstance(rate, bool)
        and math.isfinite(rate)
        and 0 <= rate <= 1
    )


def adjusted(family: Family, rate: Any, made: int, band: Band, is_new: bool = False) -> Family:
    """``family`` after ``made`` of its instructions and with this pass rate now.

    The same rate as before is new evidence only where another phase has measured it (``is_new``);
    except a rate of 0: the family then becomes easier step by step and, at its easiest for
    ``patience`` instructions, is retired.
    """
    if not is_evidence(rate) or family.retired:
        return family
    if rate == 0:
        in_vain = family.in_vain + made if family.tightness == 0 else 0
        return Family(
            max(0.0, family.tightness - band.step), 0.0, in_vain, in_vain >= band.patience
        )
    if rate == family.rate and not is_new:
        return family
    moved = band.step if rate > band.high else -band.step if rate < band.low else 0.0
    return Family(min(1.0, max(0.0, family.tightness + moved)), float(rate))


def next_level(
    level: int,
    rate: Any,
    tightness: float,
    limits: tuple[int, int],
    band: Band,
    *,
    rounds_left: int | None = None,
) -> int:
    """The number of constraints to ask for, by the pass rate of ``level`` constraints.

    Raised once the kwargs are at least half tight, lowered at once.

    :param rounds_left: rounds in which it may still change, this one included. Where these are no
        more than the levels above, it is raised at once, by as much as the highest one needs.
    """
    lowest, highest = limits
    if not is_evidence(rate):
        return level
    if rate > band.high:
        above = highest - level
        if rounds_left is not None and rounds_left <= above:
            return level + math.ceil(above / max(1, rounds_left))
        return min(highest, level + 1) if tightness >= 0.5 else level
    return max(lowest, level - 1) if rate < band.low else level


def still_rises(adherence: Sequence[float], rounds: int, least: float) -> bool:
    """Whether to evolve for another round.

    :param adherence: held-out adherence after each round so far.
    :param rounds: the most rounds.
    :param least: the rise over the best before that counts; at 1 there is none to be had, and
        staying there counts as one.
    """
    if len(adherence) >= rounds:
        return False
    return all(
        adherence[index] >= 1 or adherence[index] > max(adherence[:index]) + least
        for index in range(1, len(adherence))
    )


def weight_of(rate: float | None) -> float:
    """The weight of a family in the choice: highest where about half of the answers pass."""
    return 1.0 if rate is None else max(_LEAST_WEIGHT, 4 * rate * (1 - rate))


def sampled(
    kind: type[Constraint],
    rng: random.Random,
    query: str,
    tightness: float,
    suits: Callable[[Mapping[str, Any]], bool] = lambda kwargs: True,
) -> Mapping[str, Any]:
    """Kwargs of ``kind``: of several samples, the one at the rank that ``tightness`` names.

    :param suits: whether kwargs may be taken; where none may, one of them is all the same.
    """
    drawn = [kind.sample(rng, query) for _ in range(_CANDIDATES)]
    first, *others = [kwargs for kwargs in drawn if suits(kwargs)] or drawn[:1]
    alike = [first, *(kwargs for kwargs in others if _relations(kwargs) == _relations(first))]
    alike.sort(key=hardness)
    return alike[round(tightness * (len(alike) - 1))]


def hardness(kwargs: Mapping[str, Any]) -> float:
    """A number that is higher for harder kwargs of one relation: more to do, or less room.

    >>> hardness({"num_words": 100, "relation": "less than"})
    -100
    """
    sign = -1 if "less than" in _relations(kwargs) else 1
    amount = 0
    for value in kwargs.values():
        if isinstance(value, list | tuple):
            amount += len(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            amount += sign * int(value)
    return amount


def _relations(kwargs: Mapping[str, Any]) -> list[Any]:
    return [value for name, value in sorted(kwargs.items()) if name.endswith("relation")]


def brought_back(families: Mapping[str, Family]) -> Mapping[str, Family]:
    """``families``, where the one that failed least comes back if all are retired."""
    if not families or any(not family.retired for family in families.values()):
        return families
    name = min(sorted(families), key=lambda each: families[each].in_vain)
    return {**families, name: replace(families[name], retired=False, in_vain=0)}
