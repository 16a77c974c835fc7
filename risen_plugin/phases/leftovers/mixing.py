"""Choose the rows of a burst: own verified answers and demonstrations in a given share. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from risen_plugin.contracts import Row


@dataclass(frozen=True)
class Mixture:
    """Rows to fine-tune on, in order.

    :param own: how many of them are own verified answers.
    :param demonstrations: how many a person wrote.
    """

    rows: Sequence[Row]
    own: int
    demonstrations: int


def mix(
    own: Sequence[Row], demonstrations: Sequence[Row], *, count: int, own_share: float, seed: int
) -> Mixture:
    """``count`` rows, ``own_share`` of them own answers, spread evenly.

    Where one of both has none, the other fills its place. Each is gone through in random order, and
    again in another order when all of it has been taken.

    :param seed: of the orders.
    """
    if not own and not demonstrations:
        return Mixture((), 0, 0)
    share = 1.0 if not demonstrations else 0.0 if not own else own_share
    supplies = (_endless(own, f"{seed} own"), _endless(demonstrations, f"{seed} demonstrations"))
    rows: list[Row] = []
    taken = 0
    for place in range(1, count + 1):
        is_own = round(place * share) > taken
        taken += is_own
        rows.append(next(supplies[0 if is_own else 1]))
    return Mixture(rows, taken, count - taken)


def _endless(rows: Sequence[Row], seed: str) -> Iterator[Row]:
    rng = random.Random(seed)
    while rows:
        yield from rng.sample(rows, len(rows))
