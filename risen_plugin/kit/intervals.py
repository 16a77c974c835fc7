"""Say how sure a difference is: one-sided ends for a value measured twice on the same rows.

Pure, and without tables or scipy. Rows are compared with themselves, so that hard and easy rows do
not add to the scatter.

Shares are compared exactly with no difference (McNemar's test on the rows that changed) and by the
score test with any other; means and losses per token by Student's t on the rows' own differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Interval:
    """A measured difference with its two one-sided ends.

    :param value: the measured difference.
    :param low: the difference is at least this, with the confidence asked for.
    :param high: it is at most this, with the same.
    """

    value: float
    low: float
    high: float


NOTHING = Interval(math.nan, math.nan, math.nan)
"""The difference where nothing was measured."""


def of_means(
    before: Sequence[float | None], after: Sequence[float | None], confidence: float | None
) -> Interval:
    """The difference of the means over the rows that have a value at both ends.

    As shares where every value is 0 or 1, else by Student's t, for which a single row says nothing
    of others: its ends are infinite. Without a confidence both ends are the measured value.

    >>> of_means([False] * 10, [True] * 10, 0.99).low > 0
    True
    >>> of_means([False] * 6, [True] * 6, 0.99).low > 0  # six coins fall so in 1 of 64 cases
    False
    """
    pairs = [
        (float(b), float(a))
        for b, a in zip(before, after, strict=True)
        if b is not None and a is not None
    ]
    if not pairs:
        return NOTHING
    if confidence is not None and all(value in (0.0, 1.0) for pair in pairs for value in pair):
        risen = sum(a > b for b, a in pairs)
        return of_shares(risen, sum(a < b for b, a in pairs), len(pairs), confidence)
    return of_ratio([a - b for b, a in pairs], [1.0] * len(pairs), confidence)


def of_shares(risen: int, fallen: int, rows: int, confidence: float) -> Interval:
    """The difference of two shares of the same rows, given how many of them changed.

    The ends are those of the score test for paired shares (Tango, 1998), which hold for whatever
    difference is asked about; it need not be 0. Whether it is above 0 at all is
    decided exactly: the lower end is above 0 only where the one-sided McNemar test rejects.
    """
    low = _least(risen, fallen, rows, confidence)
    high = -_least(fallen, risen, rows, confidence)
    return Interval((risen - fallen) / rows, low, high)


def of_ratio(
    differences: Sequence[float], weights: Sequence[float], confidence: float | None
) -> Interval:
    """The sum of ``differences`` over the sum of ``weights``, as of a loss per token.

    By Student's t on the rows' deviations from it (the ratio estimator's variance), so that a long
    row counts by its tokens and a row still counts once for how sure it is.
    """
    rows = [(d, w) for d, w in zip(differences, weights, strict=True) if w > 0]
    total = math.fsum(weight for _, weight in rows)
    if not rows or not all(math.isfinite(difference) for difference, _ in rows):
        return NOTHING
    value = math.fsum(difference for difference, _ in rows) / total
    if confidence is None:
        return Interval(value, value, value)
    if len(rows) == 1:
        return Interval(value, -math.inf, math.inf)
    count = len(rows)
    squares = math.fsum((difference - value * weight) ** 2 for difference, weight in rows)
    error = math.sqrt(squares * count / (count - 1)) / total
    return _around(value, error, count - 1, confidence)


def of_gap(
    first: tuple[Sequence[float | None], Sequence[float | None]],
    second: tuple[Sequence[float | None], Sequence[float | None]],
    confidence: float | None,
) -> Interval:
    """How much more the mean rose on the ``first`` rows (before, after) than on the ``second``.

    Welch's: the two sets of rows are not the same and may scatter differently. Their scatter is
    that of shares with half a row more in each cell (Agresti and Min, 2005), so that few rows
    that all do the same are not taken for certainty.
    """
    means, errors, counts = [], [], []
    for before, after in (first, second):
        risen = [
            float(a) - float(b)
            for b, a in zip(before, after, strict=True)
            if b is not None and a is not None
        ]
        if not risen or not all(map(math.isfinite, risen)):
            return NOTHING
        mean = math.fsum(risen) / len(risen)
        squares = math.fsum((value - mean) ** 2 for value in risen) + 1.0 + 2.0 * mean**2
        means.append(mean)
        counts.append(len(risen) + 2)
        errors.append(squares / (counts[-1] - 1) / counts[-1])
    value = means[0] - means[1]
    if confidence is None:
        return Interval(value, value, value)
    total = sum(errors)
    freedom = total**2 / sum(e**2 / (n - 1) for e, n in zip(errors, counts, strict=True))
    return _around(value, math.sqrt(total), max(1, int(freedom)), confidence)


def least_changed(confidence: float) -> int:
    """The fewest rows that, all risen, are more than chance.

    >>> least_changed(0.99)
    7
    """
    return math.ceil(math.log2(1.0 / (1.0 - confidence)) - 1e-9)


def t_quantile(confidence: float, freedom: int) -> float:
    """The one-sided quantile of Student's t, for whole degrees of ``freedom``.

    >>> round(t_quantile(0.99, 10), 3), round(t_quantile(0.975, 1), 3)
    (2.764, 12.706)
    """
    most = 1.0
    while _t_below(most, freedom) < confidence:
        most *= 2.0
    return _bisect(lambda t: _t_below(t, freedom) >= confidence, 0.0, most)


def _around(value: float, error: float, freedom: int, confidence: float) -> Interval:
    reach = t_quantile(confidence, freedom) * error if error > 0 else 0.0
    return Interval(value, value - reach, value + reach)


def _t_below(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0: Abramowitz and Stegun 26.7.3 and 26.7.4, a finite sum."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for step in range(3 if odd else 2, freedom, 2):
        term *= cosine**2 * (step - 1) / step
        total += term
    inside = 2.0 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + inside / 2.0


def _least(risen: int, fallen: int, rows: int, confidence: float) -> float:
    """The least difference that the tests do not reject."""
    quantile, value = NormalDist().inv_cdf(confidence), (risen - fallen) / rows
    least = _bisect(lambda end: _score(risen, fallen, rows, end) < quantile, -1.0, value)
    return least if _by_coins(risen, fallen) <= 1.0 - confidence else min(least, 0.0)


def _score(risen: int, fallen: int, rows: int, difference: float) -> float:
    """How many standard errors the measured difference lies above ``difference``."""
    # The likeliest share of rows that fall, if ``difference`` is the true one.
    b = (2 * rows - risen + fallen) * difference - risen - fallen
    c = -fallen * difference * (1.0 - difference)
    falls = (math.sqrt(max(0.0, b * b - 8 * rows * c)) - b) / (4 * rows)
    variance = rows * (2.0 * falls + difference * (1.0 - difference))
    above = risen - fallen - rows * difference
    return above / math.sqrt(variance) if variance > 0.0 else math.copysign(math.inf, above)


def _by_coins(risen: int, fallen: int) -> float:
    """The probability that as many of the changed rows or more rise, if each falls as easily."""
    changed = risen + fallen
    return sum(math.comb(changed, count) for count in range(risen, changed + 1)) / (1 << changed)


def _bisect(is_above: Callable[[float], bool], low: float, high: float) -> float:
    """Where ``is_above`` turns true between ``low`` and ``high``, from below."""
    while high - low > 1e-12 * max(1.0, high):
        middle = (low + high) / 2.0
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return low
