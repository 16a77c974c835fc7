"""Name the families of rows, and choose those that a run never trains on. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError, near_miss

Reserve: TypeAlias = int | Sequence[str] | None
"""Families by name, how many, or None: one constraint family where there are enough."""

LEAST_TO_RESERVE = 4  # constraint families that rows must show for one to be reserved unasked
_MOST_ROWS = 0.5  # share of the rows that a family which is reserved unasked may take along


def families_of(row: Row) -> frozenset[str]:
    """The families that a row belongs to: the one it names, and those of its constraints' ids."""
    return frozenset({*_named_family(row)} | constraint_families(row))


def constraint_families(row: Row) -> frozenset[str]:
    """The families of a row's constraints: the part before the colon of their ids."""
    return frozenset(str(id_).partition(":")[0] for id_ in row.get("instruction_id_list") or ())


def families_in_words(families: Iterable[str]) -> str:
    """``family a``, or ``families a, b``."""
    names = sorted(families)
    return f"{'family' if len(names) == 1 else 'families'} {', '.join(names)}"


def choose_reserved(
    reserve: Reserve, rows: Sequence[Row], rng: random.Random, label: str
) -> frozenset[str]:
    """The families to reserve among those that ``rows`` show; one is always left to train on.

    :param label: whose rows they are, for messages.
    :raises ConfigError: if a named family is not among them, or every one is named.
    """
    if reserve is None:
        return _unasked(rows, rng)
    named = sorted({family for row in rows for family in _named_family(row)})
    if isinstance(reserve, int):
        return frozenset(rng.sample(named, min(reserve, max(0, len(named) - 1))))
    known = sorted(set(named).union(*map(families_of, rows)))
    for family in reserve:
        if family not in known:
            raise ConfigError(
                f"reserve names the family '{family}', which no row of {label} has"
                f"{near_miss(family, known) or '.'} They have: {', '.join(known) or 'none'}"
            )
    reserved = frozenset(reserve)
    if rows and all(reserved & families_of(row) for row in rows):
        raise ConfigError(
            f"reserve leaves no family to train on; rows of {label} have {', '.join(known)}"
        )
    return reserved


def _unasked(rows: Sequence[Row], rng: random.Random) -> frozenset[str]:
    """One constraint family, if there are enough and it does not take most rows along.

    Only families of constraints: one that rows name may be all that the run is about.
    """
    counts = Counter(family for row in rows for family in constraint_families(row))
    fit = sorted(family for family, count in counts.items() if count <= _MOST_ROWS * len(rows))
    if len(counts) < LEAST_TO_RESERVE or not fit:
        return frozenset()
    return frozenset({rng.choice(fit)})


def _named_family(row: Row) -> Sequence[str]:
    return () if row.get("family") in (None, "") else (str(row["family"]),)
