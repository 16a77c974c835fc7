"""Set instructions apart: a run is measured on them and never trained on them.

The rows that the guard decides by, those that are reported and those of reserved families are
disjoint sets of prompts. Reserved families are never trained on as a whole.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from risen_plugin.contracts import Prompt, Row, Stateful
from risen_plugin.errors import ConfigError, DataError, near_miss
from risen_plugin.instructions.rows import derived_seed, draw, key_of, rows_to_ask_for
from risen_plugin.plugins.offers import Built

Check: TypeAlias = Callable[[Sequence[Row], str], list[Row]]
"""Refuses unusable rows, and gives each the same columns; the text says whose they are."""
Fit: TypeAlias = Callable[[Sequence[Row]], list[Row]]
"""The rows that the model's context holds."""

PATIENCE = 20  # draws in a row without a single new instruction before giving up
_FEWEST_THERE = 32  # of which a quarter is one row more than can be sure of a gain
_FAMILIES_SEEN_IN = 512  # rows in which the families are looked for


@dataclass(frozen=True)
class HeldOut:
    """Instructions that a run is measured on.

    :param guard: the rows that the guard decides by.
    :param report: the rows that are reported beside them.
    :param unseen: rows of reserved families.
    :param reserved: the families that are never trained on.
    :param drawn: rows that were drawn to find these.
    """

    guard: list[Row] = field(default_factory=list)
    report: list[Row] = field(default_factory=list)
    unseen: list[Row] = field(default_factory=list)
    reserved: frozenset[str] = frozenset()
    drawn: int = 0

    def __len__(self) -> int:
        return len(self._keys)

    @cached_property
    def _keys(self) -> frozenset[str]:
        rows = (*self.guard, *self.report, *self.unseen)
        return frozenset(key_of(row["prompt"]) for row in rows)

    def has(self, prompt: Prompt) -> bool:
        """Whether the run is measured on a prompt."""
        return key_of(prompt) in self._keys

    def admits(self, row: Row) -> bool:
        """Whether a row may be trained on."""
        return not self.has(row["prompt"]) and self.reserved.isdisjoint(families_of(row))


def set_apart(
    generator: Built,
    guard_rows: int,
    report_rows: int,
    *,
    reserved: frozenset[str],
    seed: int,
    fit: Fit,
    check: Check,
    as_there_are: bool = False,
) -> HeldOut:
    """Draw the held-out rows, of trained and of reserved families.

    The guard's and the reported rows are of families that are trained on; as many as
    ``report_rows`` more are of reserved ones, where there are any.

    :param as_there_are: whether to take a quarter of those that there are for the guard, and an
        eighth to report, where there are fewer than asked for.
    :raises DataError: if there are too few different ones.
    """
    wanted = guard_rows + report_rows
    most = (wanted, report_rows if reserved else 0)
    kinds, drawn = _different(generator, most, reserved, seed, fit)
    rows, unseen = (
        check(list(of_kind.values())[:n], generator.label)
        for n, of_kind in zip(most, kinds, strict=True)
    )
    if as_there_are and _FEWEST_THERE <= len(rows) < wanted:
        guard_rows = min(guard_rows, len(rows) // 4)
        report_rows = min(report_rows, len(rows) // 8)
        wanted = guard_rows + report_rows
        rows = rows[:wanted]
    if len(rows) < wanted or (reserved and not unseen):
        kind = f" of the reserved {families_in_words(reserved)}" if len(rows) >= wanted else ""
        raise DataError(
            f"{generator.label} offers {len(unseen) if kind else len(rows)} different instructions"
            f"{kind}, but guard.rows and guard.report_rows set "
            f"{report_rows if kind else wanted} apart; lower them, or give more instructions"
        )
    return HeldOut(rows[:guard_rows], rows[guard_rows:], unseen, reserved, drawn)


def families_to_reserve(generator: Built, reserve: Reserve, seed: int) -> frozenset[str]:
    """The families to reserve; the generator's state stays as it was.

    :raises ConfigError: if a named family is not among its rows, or every one is reserved.
    """
    state = state_of(generator)
    rows = draw(
        generator, _FAMILIES_SEEN_IN, derived_seed(seed, "families"), start=0, run_seed=seed
    )
    if state is not None:
        generator.value.load_state_dict(state)
    rng = random.Random(derived_seed(seed, "reserve"))
    return choose_reserved(reserve, rows, rng, generator.label)


def state_of(generator: Built) -> dict[str, Any] | None:
    """The generator's state, to go back to; None if it has none."""
    return generator.value.state_dict() if isinstance(generator.value, Stateful) else None


def _different(
    generator: Built, most: tuple[int, int], reserved: frozenset[str], seed: int, fit: Fit
) -> tuple[tuple[dict[str, Row], dict[str, Row]], int]:
    """Different rows of trained and of reserved families, and how many rows were drawn for them."""
    kinds: tuple[dict[str, Row], dict[str, Row]] = ({}, {})
    seen: set[str] = set()
    start = attempt = fruitless = 0

    def lacking() -> int:
        return sum(max(0, n - len(rows)) for n, rows in zip(most, kinds, strict=True))

    while (before := lacking()) and fruitless < PATIENCE:
        asked = rows_to_ask_for(before, fruitless)
        new = draw(
            generator, asked, derived_seed(seed, "held out", attempt), start=start, run_seed=seed
        )
        start += len(new)
        attempt += 1
        for row in fit(_first_of_its_prompt(new, seen)):
            is_unseen = not reserved.isdisjoint(families_of(row))
            kinds[is_unseen][key_of(row["prompt"])] = row
        fruitless = 0 if lacking() < before else fruitless + 1
    return kinds, start


def _first_of_its_prompt(rows: Iterable[Row], seen: set[str]) -> list[Row]:
    """The rows whose prompts are not in ``seen``, which gets them."""
    first: list[Row] = []
    for row in rows:
        key = key_of(row["prompt"])
        if key not in seen:
            seen.add(key)
            first.append(row)
    return first


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
