"""``risen join``: launches that follow one another, as one record. Loads no torch."""

from __future__ import annotations

from pathlib import Path

import click

from risen_plugin.commands.completing import runs
from risen_plugin.hookspecs import hookimpl


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(join_command)


@click.command("join")
@click.argument(
    "launches", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=runs
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The folder to write the record to; there is none yet.",
)
def join_command(launches: tuple[Path, ...], output: Path) -> None:
    """Write the records of LAUNCHES, which followed one another, as that of one run.

    LAUNCHES are output folders in the order in which they ran. Steps, time and the numbers of
    phases go on from each to the next. All phases have to have measured the same held-out rows. Of
    a launch without RISEN the losses and evaluations are taken that its Trainer logged
    (trainer_state.json, in the folder or its latest checkpoint). What reads a run's folder, such as
    risen report, reads the whole. The folders stay as they are.
    """
    from risen_plugin.record.joining import read_launch, write_joined

    write_joined([read_launch(path) for path in launches], output)
    click.echo(output)
