"""Claim: a half that pays is kept where the whole does harm, and a reward by lot no more often.

Simulated phases as ``benchmarks.guard_rows`` has them, all of which do harm as a whole and none at
half their strength, judged as the guard judges them: half the strength is tried only where the gain
of the whole is more than chance, and then on as many rows and more. Whole and half change the same
rows, since one is a part of the other. By lot the half may go its own way too: then both must be
sure by chance.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.guard_rows import Rows, by_lot, learned, phases, sure_at
from benchmarks.shared import held, machine, print_table, write_results

_LOOKS = (96, 192, 288, 384)
_PAYING = (Rows("few", 0.5), Rows("some", 0.5), Rows("some", 0.9), Rows("many", 0.5))


@dataclass(frozen=True)
class Outcome:
    """Phases of one kind.

    :param whole: share of them whose gain is more than chance as a whole.
    :param kept: share of them that is kept at half strength.
    """

    what: str
    gains: tuple[float, float]
    whole: float
    kept: float


@click.command()
@click.option("--repeats", type=click.IntRange(min=10), default=10_000, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
def main(repeats: int, json_file: Path | None) -> None:
    """Simulated phases that are kept at half strength, or not at all."""
    before, started = machine(), time.perf_counter()
    outcomes: list[Outcome] = []
    for rows in _PAYING:
        for gains in ((0.12, 0.07), (0.15, 0.10)):
            less = dataclasses.replace(rows, breaks=rows.breaks / 2.0)
            ends = phases(rows, learned(rows, gains[0]), repeats)
            half = phases(less, learned(less, gains[1]), repeats)
            named = f"{rows.kinds} constraints, {rows.together:g} together"
            outcomes.append(_judged(named, ends, half))
            click.echo(f"{named}: {time.perf_counter() - started:.0f} s", err=True)
    made = list(by_lot(repeats).items())[:4]
    for place, (what, ends) in enumerate(made):
        other = made[place - 1][1]
        outcomes.append(_judged(f"by lot: {what}", ends, ends))
        outcomes.append(_judged(f"by lot, the half on its own: {what}", ends, other))
        click.echo(f"{what}: {time.perf_counter() - started:.0f} s", err=True)
    print_table(
        "Simulated phases that do harm as a whole",
        ["phase", "gain of the whole", "of the half", "whole sure", "kept at half"],
        [
            (o.what, f"{o.gains[0]:+.3f}", f"{o.gains[1]:+.3f}", f"{o.whole:.4f}", f"{o.kept:.4f}")
            for o in outcomes
        ],
    )
    paying = [o.kept for o in outcomes if not o.what.startswith("by lot")]
    lots = [o.kept for o in outcomes if o.what.startswith("by lot")]
    click.echo(
        f"\nthat pay: kept in {min(paying):.3f} of the cases or more, at least 0.9: "
        f"{held(min(paying) >= 0.9)}"
        f"\nby lot: kept in {max(lots):.4f} of the cases at the most, at most 0.01: "
        f"{held(max(lots) <= 0.01)}"
    )
    results = {"phases": [dataclasses.asdict(outcome) for outcome in outcomes]}
    write_results(json_file, settings={"repeats": repeats}, machine=before, results=results)


def _judged(what: str, whole: tuple[Any, Any, Any], half: tuple[Any, Any, Any]) -> Outcome:
    sure, kept = 0, 0
    for place in range(len(whole[0])):
        first, seen = sure_at(*(end[place].tolist() for end in whole), looks=_LOOKS)
        sure += first
        if first:
            kept += sure_at(*(end[place].tolist() for end in half), looks=_LOOKS, least=seen)[0]
    return Outcome(what, (_gain(whole), _gain(half)), sure / len(whole[0]), kept / len(whole[0]))


def _gain(ends: Sequence[Any]) -> float:
    before, after, of = ends
    return float((after == of).mean() - (before == of).mean())


if __name__ == "__main__":
    main()
