"""Say whether paired differences are more than chance: an exact test, at one look or at several.

Pure. If a change did nothing, a row's difference is as likely the one way as the other. So the sum
of the differences is compared with all sums that their signs could have made (Fisher, 1935), and
nothing is assumed of how the rows differ, or how much of one row goes together.

Looks at a growing number of rows share the chance of a false alarm: a look may spend what the share
of the planned rows that it has seen allows, the square of that share (Kim and DeMets, 1987), and
what earlier looks did not spend. The limits follow from the differences themselves, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

from risen_plugin.kit.intervals import t_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float64]

_SPENDS = 2.0  # so the last of three looks asks hardly more than a single one would
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Looked:
    """The answer of the test at the latest of its looks.

    :param is_sure: whether the differences are more than chance at one of the looks.
    :param total: the sum of all differences.
    :param limit: the sum from which on the latest look would be sure; infinite where none is.
    """

    is_sure: bool
    total: int
    limit: float


def look_at(
    differences: Sequence[int], confidence: float, *, looks: Sequence[int] = (), planned: int = 0
) -> Looked:
    """Test whether the mean of ``differences`` is above 0, at one look or the last of several.

    :param differences: one whole number per row, in the order in which the rows were seen.
    :param confidence: all looks together are wrong in no more than the rest of the cases.
    :param looks: how many rows each look has seen; the last is all of them. None for one look.
    :param planned: rows after which there is no further look; of no use without ``looks``.

    >>> look_at([1] * 7, 0.99).is_sure, look_at([1] * 6, 0.99).is_sure
    (True, False)
    >>> look_at([1] * 7, 0.99, looks=[7], planned=28).is_sure  # a first look spends little
    False
    """
    import numpy as np

    seen = [*looks] or [len(differences)]
    whole = max(planned, seen[-1]) if looks else seen[-1]
    reach = sum(map(abs, differences))
    # Of each possible sum from -reach to reach: its chance, if no look before was sure.
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    spent, start, total, is_sure, limit = 0.0, 0, 0, False, math.inf
    for rows in seen:
        for difference in differences[start:rows]:
            size = abs(difference)
            if size:
                chances = (_shifted(chances, size) + _shifted(chances, -size)) / 2.0
        total += sum(differences[start:rows])
        start = rows
        allowed = (1.0 - confidence) * (rows / whole if whole else 1.0) ** _SPENDS - spent
        tails = np.cumsum(chances[::-1])  # of the largest sum, the two largest, ...
        sums = int(np.searchsorted(tails, allowed + _ROUNDING, side="right"))
        limit = float(reach - sums + 1) if sums else math.inf
        is_sure = is_sure or total >= limit
        if sums:
            spent += float(tails[sums - 1])
            chances[len(chances) - sums :] = 0.0
    return Looked(is_sure, total, limit)


def _shifted(values: FloatArray, by: int) -> FloatArray:
    import numpy as np

    moved = np.zeros_like(values)
    if by > 0:
        moved[by:] = values[:-by]
    else:
        moved[:by] = values[-by:]
    return moved


def is_lopsided(differences: Sequence[int], confidence: float) -> bool:
    """Whether a few large falls beside many small rises leave it open that the mean is above 0.

    The signs of such differences say too much, and most so where chance shows few of the falls. So
    one more of the largest size is reckoned with, and Student's t corrected for the skewness
    (Johnson, 1978). Differences of one size have none that would matter.
    """
    if len({abs(difference) for difference in differences} - {0}) < 2:
        return False
    mean = sum(differences) / len(differences)
    if sum((d - mean) ** 3 for d in differences) >= 0.0:
        return False
    differences = [*differences, -max(map(abs, differences))]
    count = len(differences)
    mean = sum(differences) / count
    variance = sum((d - mean) ** 2 for d in differences) / (count - 1)
    skewed = min(0.0, sum((d - mean) ** 3 for d in differences) / count)
    corrected = mean + skewed / (6.0 * variance * count) + skewed * mean**2 / (3.0 * variance**2)
    return not corrected > t_quantile(confidence, count - 1) * math.sqrt(variance / count)


def chance_to_be_sure(
    differences: Sequence[int], limit: float, planned: int, optimism: float = 1.0
) -> float:
    """About how likely it is that further rows make the differences more than chance.

    :param limit: the sum that is asked for after ``planned`` rows.
    :param optimism: the further rows gain as much as those seen, and so many standard errors more.
    """
    count = len(differences)
    left = planned - count
    total = sum(differences)
    if left <= 0 or count < 2:
        return float(total >= limit)
    mean = total / count
    variance = sum((d - mean) ** 2 for d in differences) / (count - 1)
    if variance <= 0.0:
        return float(total + left * mean >= limit) if mean else 0.0
    expected = total + left * (mean + optimism * math.sqrt(variance / count))
    return NormalDist().cdf((expected - limit) / math.sqrt(variance * left))


def limit_after(differences: Sequence[int], confidence: float, planned: int) -> float:
    """About the sum that makes ``planned`` rows sure that scatter as ``differences`` do."""
    squares = sum(d * d for d in differences) / max(1, len(differences))
    return NormalDist().inv_cdf(confidence) * math.sqrt(squares * planned)


def smallest_gain(rows: int, confidence: float, *, scatter: float, power: float = 0.9) -> float:
    """The smallest true mean difference that ``rows`` rows tell from chance.

    :param scatter: the mean square of a row's difference, such as the share of rows that change.
    :param power: in how many of the cases.

    >>> [round(smallest_gain(rows, 0.99, scatter=0.15), 3) for rows in (64, 384)]
    [0.159, 0.07]
    """
    reach = _reach(confidence, power)
    return min(1.0, reach * math.sqrt(scatter / (rows + reach * reach)))


def rows_for(gain: float, confidence: float, *, scatter: float, power: float = 0.9) -> int:
    """The fewest rows that tell a true mean difference of ``gain`` from chance.

    >>> rows_for(0.07, 0.99, scatter=0.15)
    386
    """
    reach = _reach(confidence, power)
    return max(1, math.ceil(reach * reach * (scatter / (gain * gain) - 1.0)))


def _reach(confidence: float, power: float) -> float:
    return NormalDist().inv_cdf(confidence) + NormalDist().inv_cdf(power)
