"""``risen simulate``: the decisions of a scheduler in a recorded run. Loads nothing heavy."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from risen_plugin.commands.completing import offered, runs
from risen_plugin.commands.options import json_option, options_of
from risen_plugin.config.choices import Use, read_use
from risen_plugin.errors import ConfigError, located
from risen_plugin.hookspecs import hookimpl
from risen_plugin.kit.files import write_text
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text
from risen_plugin.kit.yaml_files import read_mapping
from risen_plugin.plugins import Built, Plugins


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(simulate_command)


@click.command("simulate")
@click.argument("scheduler", shell_complete=offered("scheduler"))
@click.option(
    "--trace",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    shell_complete=runs,
    help="A run's output folder, the folder risen in it, or its events.jsonl.",
)
@click.option(
    "-o",
    "--option",
    "pairs",
    metavar="NAME=VALUE",
    multiple=True,
    help="An option of SCHEDULER; scheduler.NAME=VALUE is one of the scheduler inside it.",
)
@click.option(
    "--max-steps",
    type=click.IntRange(min=1),
    help="Steps of the run, where they are not those that it recorded.",
)
@click.option(
    "--html", "html_file", type=click.Path(path_type=Path), help="Write a page with a picture."
)
@click.option("--svg", "svg_file", type=click.Path(path_type=Path), help="Write the picture alone.")
@json_option()
@click.pass_obj
def simulate_command(
    plugins: Plugins,
    *,
    scheduler: str,
    folder: Path,
    pairs: tuple[str, ...],
    max_steps: int | None,
    html_file: Path | None,
    svg_file: Path | None,
    as_json: bool,
) -> None:
    """Replay a recorded run through SCHEDULER, without training.

    SCHEDULER is a name that `risen schedulers` lists, or path.py:NAME, or module:NAME, or a YAML
    configuration that has one.

    It gets the measurements of the run, step by step, and its decisions are shown. Its RISEN phases
    are assumed to gain and to cost as much as the recorded ones, in their order. How the run would
    have measured with phases at other steps, a replay cannot know.
    """
    from risen_plugin.commands.simulate import drawing
    from risen_plugin.commands.simulate.layout import totals
    from risen_plugin.commands.simulate.replay import replay
    from risen_plugin.commands.simulate.trace import read_trace

    trace = read_trace(folder, max_steps=max_steps)  # before a scheduler asks for its options
    by = named_scheduler(scheduler, pairs, plugins)
    done = replay(trace, by.value, by.label)
    if html_file is not None:
        _write(html_file, drawing.page(done), "--html")
    if svg_file is not None:
        _write(svg_file, drawing.svg(done), "--svg")
    if as_json:
        say(json.dumps(json.loads(json_text(done.as_json())), indent=2))
        return
    click.secho(
        f"{by.label}, over {done.trace.max_steps} steps of {done.trace.source}\n", bold=True
    )
    for made in done.made:
        click.echo(drawing.decision_line(made))
    click.echo()
    width = min(shutil.get_terminal_size().columns, 120)
    for line in drawing.strips(done, width=width, plain=not _draws()):
        click.echo(line)
    recorded, replayed = totals(done.recorded), totals(done.stretches)
    if done.trace.clock:
        click.echo(
            f"\nRISEN and bursts took {recorded['risen'] + recorded['burst']:.1f} of "
            f"{recorded['all']:.1f} s as recorded, and would take "
            f"{replayed['risen'] + replayed['burst']:.1f} of {replayed['all']:.1f} s."
        )
    click.echo(f"\n{drawing.CAVEAT}")
    for note in done.trace.notes:
        click.echo(f"Note: {note}.")


def named_scheduler(text: str, pairs: Sequence[str], plugins: Plugins) -> Built:
    """The scheduler that ``text`` names, or that a YAML file of this name has.

    :param pairs: options as ``name=value``, which override those of the file.
    :raises ConfigError: if there is no such scheduler, or it does not take the options.
    """
    from risen_plugin.plugins.lookup import look_up

    options = options_of(pairs)
    if not text.endswith((".yaml", ".yml")):
        return look_up(plugins, "scheduler", text, options)
    data = read_mapping(text, "a scheduler")
    with located(text):
        used = _configured(data)
    return look_up(plugins, "scheduler", replace(used, options={**used.options, **options}))


def _configured(data: Mapping[str, Any]) -> Use:
    for section in (data, data.get("risen")):
        if isinstance(section, Mapping) and section.get("scheduler") is not None:
            scheduler = read_use(section["scheduler"], "scheduler")
            break
    else:
        raise ConfigError("the file has no 'scheduler'; it is a configuration, or a part of one")
    if isinstance(scheduler, str):
        return Use(scheduler)
    if not isinstance(scheduler, Use):
        raise ConfigError(f"scheduler is {scheduler!r:.60}; it is {{use: NAME, options: ...}}")
    return scheduler


def _draws() -> bool:
    """Whether the terminal's encoding has the marks that are drawn."""
    try:
        "─█░▒".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _write(path: Path, text: str, option: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"cannot write {option} '{path}': {error.strerror}") from error
