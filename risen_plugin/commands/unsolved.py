"""``risen unsolved``: instructions without a passed answer, for a person to demonstrate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from risen_plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from risen_plugin.phases.leftovers.findings import Attempted


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(unsolved_command)


@click.command("unsolved")
@click.argument("run")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write JSON Lines there, one instruction each; without it they are listed.",
)
@click.option(
    "--demonstrations",
    metavar="FILE",
    help="Leave out instructions that this file answers already.",
)
@click.option(
    "--after",
    type=click.IntRange(min=1),
    help="Visits without a passed answer; the run's own unsolved_after otherwise.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON Lines.")
def unsolved_command(
    run: str, output: Path | None, demonstrations: str | None, after: int | None, as_json: bool
) -> None:
    """List the instructions of RUN that nobody has solved, or write them down.

    RUN is a run's output folder; it may still be training. Write your answers into the empty
    completions of the file, and name it as buffers.demonstrations in the next run, or in the
    resumed one. Rows that you leave empty are skipped.
    """
    from risen_plugin.commands.exporting import unsolved_of, write_rows

    instructions = unsolved_of(Path(run), after, demonstrations)
    if output is not None:
        write_rows(output, [attempted.as_row() for attempted in instructions])
        click.echo(f"{len(instructions)} instructions written to {output}", err=True)
    elif as_json:
        from risen_plugin.kit.jsonable import json_text

        for attempted in instructions:
            click.echo(json_text(attempted.as_row()))
    else:
        _list(instructions)


def _list(instructions: list[Attempted]) -> None:
    if not instructions:
        click.echo("every instruction has been solved, or was not asked often enough")
        return
    click.echo(f"{len(instructions)} instructions that nobody has solved\n")
    click.secho("visits  best  prompt", bold=True)
    for attempted in instructions:
        best = attempted.best
        click.echo(f"{attempted.visits:6}  {best.total:4.2f}  {_start(best.row['prompt'])}")


def _start(prompt: Any) -> str:
    from risen_plugin.contracts import text_of

    text = " ".join(text_of(prompt).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
