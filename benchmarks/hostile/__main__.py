"""Carry out all tries and print one line for each kind; ends with 1 if there is a fault."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.hostile import endpoint, plugins, runs, yaml_files
from benchmarks.hostile.trying import Tally

_short = False
_SAMPLE = (
    "import_exit_0",
    "import_mute",
    "factory_signature",
    "reward_exits",
)
_USED = (
    "matplotlib.backends.backend_svg",
    "numpy",
    "pyarrow.parquet",
    "risen_plugin.commands.report.page",
    "risen_plugin.commands.report.terminal",
    "risen_plugin.commands.score.rescoring",
    "risen_plugin.commands.score.tables",
    "risen_plugin.commands.simulate.drawing",
    "risen_plugin.commands.simulate.replay",
    "risen_plugin.commands.unsolved",
)


def of_plugins(place: Path, *, only: str = "", forked: bool = False) -> Tally:
    tally = Tally("plugins")
    for name, folder in plugins.install(place).items():
        if only in name and (not _short or name in _SAMPLE):
            tally.take(plugins.tries(name, folder), forked=forked)
    return tally


def of_yaml(place: Path, *, only: str = "") -> Tally:
    tally = Tally("YAML files")
    for file in yaml_files.write(place)[:: 4 if _short else 1]:
        if only in file.stem and not (_short and file.stem in yaml_files.SLOW):
            tally.take(yaml_files.tries(file), forked=True)
    return tally


def of_paths(place: Path) -> Tally:
    tally = Tally("paths and words")
    yaml_files.write(place)
    for tries in list(yaml_files.other_tries(place))[:: 7 if _short else 1]:
        tally.take(tries, forked=True)
    return tally


def of_runs(place: Path, first: int, count: int, run: Path | None) -> Tally:
    for module in _USED:  # forks have them then
        importlib.import_module(module)
    tally = Tally("damaged runs")
    if _short:
        count = min(count, 5)
        run = runs.recorded(place / "recorded")
    whole = runs.train(place / "whole") if run is None else run
    for seed in range(first, first + count):
        copy = runs.damaged(whole, place, seed)
        tally.take(runs.tries(copy, seed), forked=True)
        shutil.rmtree(copy)
    return tally


def of_endpoint() -> Tally:
    tally = Tally("answers of an endpoint, keys and addresses")
    names = [name for name in endpoint.ANSWERS if not (_short and len(endpoint.ANSWERS[name]) > 1)]
    results = {name: endpoint.faults_of(name) for name in names}
    for name, found in (results | endpoint.faults_of_settings()).items():
        tally.things += 1
        tally.tries += 2 if name in results else 1
        tally.found += [f"{name}: {fault}" for fault in found]
    for fault in tally.found:
        print(ascii(fault), flush=True)
    return tally


@click.command()
@click.option("--runs", "count", default=500, show_default=True, help="Damaged runs.")
@click.option("--first", default=0, show_default=True, help="The seed of the first of them.")
@click.option(
    "--run", type=click.Path(path_type=Path), help="Damage this run in place of a new one."
)
@click.option("--kind", default="", help="Only kinds whose name has this in it.")
@click.option("--only", default="", help="Only plugins or files whose name has this in it.")
@click.option("--short", is_flag=True, help="A sample of each kind, in seconds, without a model.")
@click.option("--fork/--process", default=False, help="Try plugins in forks: faster.")
def main(  # noqa: PLR0917
    kind: str, only: str, short: bool, fork: bool, first: int, count: int, run: Path | None
) -> None:
    """Try everything."""
    global _short  # noqa: PLW0603
    _short = short
    fork = fork or short
    os.environ["HF_HUB_OFFLINE"] = "1"
    import risen_plugin.cli  # noqa: F401  forks have it then

    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        place = Path(folder)
        kinds = {
            "plugins": lambda: of_plugins(place / "plugins", only=only, forked=fork),
            "yaml": lambda: of_yaml(place / "yaml", only=only),
            "runs": lambda: of_runs(place / "runs", first, count, run),
            "endpoint": of_endpoint,
            "paths": lambda: of_paths(place / "paths"),
        }
        wrong = 0
        for name, attempt in kinds.items():
            if kind not in name:
                continue
            tally = attempt()
            wrong += len(tally.found)
            click.echo(
                f"{tally.kind}: {tally.things}, {tally.tries} tries, {len(tally.found)} faults, "
                f"the slowest {tally.slowest:.1f} s, all {tally.seconds:.0f} s"
            )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
