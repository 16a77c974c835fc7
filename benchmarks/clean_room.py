"""Look at every bit that a phase leaves behind, for each kind of adapter, weights and outcome.

``python -m benchmarks.clean_room`` ends with code 1 if anything is there that may not be. A cell
stands for a phase that was kept, one that was dropped and one that failed, in this order: ``=`` is
a phase that left nothing behind without leave, a number is that of its faults.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.shared import machine
from risen_plugin.errors import RisenError, one_line
from tests.integration.cells import DTYPES, KINDS, OUTCOMES, QUANTIZED, Cell, NotOffered, faults

_WEIGHTS = (*DTYPES, *QUANTIZED)


def looked_at(cell: Cell) -> dict[str, Any]:
    """The faults of one cell; a refusal, or why there is no such model, in their place."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return {"faults": faults(cell, Path(folder))}
        except NotOffered as error:
            return {"not_offered": str(error)}
        except RisenError as error:
            return {"refused": str(error)}
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
            return {"faults": [f"{type(error).__name__}: {one_line(error)}"]}


def shown(result: dict[str, Any]) -> str:
    """A cell in one sign."""
    if "faults" in result:
        return str(len(result["faults"]) or "=")
    return "refused" if "refused" in result else "-"


def row(kind: str, weights: Sequence[str], results: dict[str, dict[str, Any]]) -> str:
    """A kind's line of the table."""
    signs = []
    for dtype in weights:
        three = [shown(results[str(Cell(kind, dtype, outcome))]) for outcome in OUTCOMES]
        signs.append(
            three[0] if set(three) <= {"-"} or set(three) <= {"refused"} else " ".join(three)
        )
    return f"| {kind} | {' | '.join(signs)} |"


@click.command()
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only these.")
@click.option(
    "--weights", multiple=True, type=click.Choice(_WEIGHTS), help="Only weights of this type."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(kinds: tuple[str, ...], weights: tuple[str, ...], as_json: bool) -> None:
    """Try every combination."""
    logging.disable(logging.WARNING)
    kinds, weights = kinds or tuple(KINDS), weights or _WEIGHTS
    cells = [Cell(k, w, o) for k in kinds for w in weights for o in OUTCOMES]
    results = {str(cell): looked_at(cell) for cell in tqdm(cells, unit="phase", disable=as_json)}
    wrong = {name: result["faults"] for name, result in results.items() if result.get("faults")}
    if as_json:
        print(json.dumps({"machine": machine(), "results": results}, indent=1))
    else:
        print(f"| | {' | '.join(weights)} |", f"| --- |{' --- |' * len(weights)}", sep="\n")
        for kind in kinds:
            print(row(kind, weights, results))
        for name, found in wrong.items():
            print(f"{name}: {'; '.join(found)}")
        for state in ("refused", "not_offered"):
            for name, result in results.items():
                if state in result and name.endswith(OUTCOMES[0]):
                    print(f"{name.rpartition('-')[0]}: {result[state]}")
        tried = sum("faults" in result for result in results.values())
        print(f"{tried} phases, {tried - len(wrong)} left nothing behind, {len(wrong)} did")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
