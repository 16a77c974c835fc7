"""``risen report`` and ``risen watch``. Neither loads torch."""

from __future__ import annotations

import os
import shutil
import sys
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from risen_plugin.commands.completing import runs
from risen_plugin.commands.options import json_option
from risen_plugin.hookspecs import hookimpl
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text
from risen_plugin.record.run_record import EVENTS, FOLDER

if TYPE_CHECKING:
    from risen_plugin.record.reading import Run


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(report_command)
    cli.add_command(watch_command)


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path), shell_complete=runs)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; risen/report.html in RUN if left out.",
)
@click.option("--open", "is_opened", is_flag=True, help="Open it in the browser.")
def report_command(run: Path, output: Path | None, is_opened: bool) -> None:
    """Write one HTML file that shows a run.

    RUN is a run's output folder. Three sentences, in the terminal too, say what was gained, what it
    cost and whether to ship it. The file needs nothing else and works offline: the answers to
    held-out instructions before and after, the phases over adherence, domain quality and
    retention, where they pay, the guard's verdicts, the rewards, the best and worst answers. The
    report of a run that is still going on shows it so far.
    """
    from risen_plugin.commands.report.page import write_report
    from risen_plugin.commands.report.terminal import decision_lines
    from risen_plugin.record.reading import read_run

    path = write_report(run, output)
    click.echo(path)
    width = min(shutil.get_terminal_size().columns - 1, 110)
    for line in decision_lines(read_run(run), width):
        click.echo(line, err=True)  # the path alone is the output, for scripts
    if is_opened and not webbrowser.open(path.absolute().as_uri()):
        click.echo("risen: no browser could be opened", err=True)


@click.command("watch")
@click.argument("run", type=click.Path(path_type=Path), shell_complete=runs)
@click.option("--once", is_flag=True, help="Print the run as it is now and end.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    help="Seconds between readings of the record.",
)
@json_option("Print JSON Lines, one object per update.")
def watch_command(run: Path, once: bool, every: float, as_json: bool) -> None:
    """Show a run in the terminal while it goes on.

    RUN is a run's output folder. The display is updated with each recorded event, and the command
    ends with the run. Where the output is no terminal, each update is printed below the one before.
    """
    from risen_plugin.commands.report.terminal import state
    from risen_plugin.record.reading import read_run

    is_terminal = sys.stdout.isatty()
    shown: list[str] = []
    seen: object = None
    while True:
        mark = _mark(run)
        recorded = read_run(run)
        is_held = recorded.holder is not None
        if (mark, is_held) != seen:
            seen = (mark, is_held)
            if as_json:
                say(json_text(state(recorded)))
            else:
                shown = _show(recorded, shown, redraws=is_terminal and not once)
        if once or not is_held:
            return
        time.sleep(every)


def _show(run: Run, shown: list[str], *, redraws: bool) -> list[str]:
    """Print the lines of a run in place of those ``shown`` before, or below them; return them."""
    from risen_plugin.commands.report.terminal import lines, redrawn

    size = shutil.get_terminal_size()
    now = lines(run, size.columns - 1)
    if redraws:
        now = now[: size.lines - 1]
        click.echo(redrawn(shown, now), nl=False)
    else:
        click.echo("\n".join(now) if not shown else "\n" + "\n".join(now))
    return now


def _mark(run: Path) -> tuple[int, int] | None:
    """The size and time of the events file, which change with each event."""
    for path in (run / FOLDER / EVENTS, run / EVENTS):
        try:
            status = os.stat(path)
        except OSError:
            continue
        return (status.st_size, status.st_mtime_ns)
    return None
