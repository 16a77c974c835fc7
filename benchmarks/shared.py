"""What the benchmarks share: interleaved repetitions, medians, tables, the machine in words.

Loads nothing heavy; what needs torch is in ``training``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import click
from tqdm.auto import tqdm

ROOT = Path(__file__).parents[1]
_PACKAGES = (
    "risen-plugin",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "onnxruntime",
)
_Command = TypeVar("_Command", bound=Callable[..., Any])
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of repeated measurements."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))

    def show(self, digits: int = 3, scale: float = 1.0) -> str:
        """``median (least to most)``, each times ``scale``."""
        middle, least, most = (
            f"{value * scale:.{digits}f}" for value in (self.median, self.least, self.most)
        )
        return middle if self.count == 1 else f"{middle} ({least} to {most})"


def ratio(of: Sequence[float], over: Sequence[float]) -> Spread:
    """The ratios of two arms, round by round: a slow minute slows both and cancels out."""
    return Spread.of([a / b for a, b in zip(of, over, strict=True)])


def interleave(arms: Mapping[str, Callable[[], _Result]], repeats: int) -> dict[str, list[_Result]]:
    """Run every arm once per round, each round beginning with another one."""
    results: dict[str, list[_Result]] = {name: [] for name in arms}
    names = list(arms)
    with tqdm(total=repeats * len(names), unit="run", leave=False) as bar:
        for number in range(repeats):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                bar.set_description(name)
                results[name].append(arms[name]())
                bar.update(1)
    return results


def measuring(repeats: int) -> Callable[[_Command], _Command]:
    """The options that every benchmark takes: ``--repeats`` and ``--json``."""

    def add(command: _Command) -> _Command:
        command = click.option(
            "--json",
            "json_file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Also write the settings, the machine and every number to this file.",
        )(command)
        return click.option(
            "--repeats",
            type=click.IntRange(min=1),
            default=repeats,
            show_default=True,
            help="Interleaved repetitions; medians with least and most are shown.",
        )(command)

    return add


def threads_option(command: _Command) -> _Command:
    """``--threads``: how many a model may compute with."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=cores(),
        show_default="all cores",
        help="Threads to compute with.",
    )(command)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What the numbers were measured on, and how busy it was; no names of hosts."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cores": cores(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions,
    }


def run_python(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Standard output of this interpreter run with ``arguments`` at the repository's root.

    :raises click.ClickException: with what it said, if it failed.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(f"python {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, so that what is printed can be put into README.md as it is."""
    click.secho(f"\n{title}\n", bold=True)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for number, row in enumerate([head, *rows]):
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo(f"| {' | '.join(cells)} |")
        if number == 0:
            rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
            click.echo(f"| {' | '.join(rules)} |")


def held(is_held: bool) -> str:
    """A target's verdict in words."""
    return "held" if is_held else "NOT held"


def write_results(
    path: Path | None,
    *,
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
    results: Mapping[str, Any],
) -> None:
    """Write what was measured as JSON, through a temporary file; nothing if ``path`` is None."""
    if path is None:
        return
    from risen_plugin.kit.files import write_text

    content = {"settings": settings, "machine": machine, "results": results}
    write_text(path, json.dumps(content, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
