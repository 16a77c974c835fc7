"""``risen unsolved``: instructions without a passed answer, for a person to demonstrate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from risen_plugin.commands.completing import runs
from risen_plugin.commands.options import Renamed, json_option
from risen_plugin.config import BuffersConfig
from risen_plugin.contracts import Prompt
from risen_plugin.errors import RecordError, printable
from risen_plugin.hookspecs import hookimpl
from risen_plugin.instructions.rows import key_of
from risen_plugin.kit.files import write_text
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text
from risen_plugin.phases.leftovers.buffers import FILE, unsolved_in
from risen_plugin.phases.leftovers.findings import Attempted
from risen_plugin.phases.leftovers.journal import read_journal
from risen_plugin.phases.leftovers.mixing import load_demonstrations
from risen_plugin.record.reading import read_description, record_folder


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(unsolved_command)


@click.command("unsolved")
@click.argument("run", shell_complete=runs)
@click.option(
    "--output",
    cls=Renamed,
    earlier=("-o",),
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
@json_option("Print the rows as JSON Lines.")
def unsolved_command(
    run: str, output: Path | None, demonstrations: str | None, after: int | None, as_json: bool
) -> None:
    """List the instructions of RUN that nobody has solved, or write them down.

    RUN is a run's output folder; it may still be training. Write your answers into the empty
    completions of the file, and name it as buffers.demonstrations in the next run, or in the
    resumed one. Rows that you leave empty are skipped.
    """
    from risen_plugin.commands.unsolved import unsolved_of, write_rows

    instructions = unsolved_of(Path(run), after, demonstrations)
    if output is not None:
        write_rows(output, [attempted.as_row() for attempted in instructions])
        click.echo(f"{len(instructions)} instructions written to {output}", err=True)
    elif as_json:
        from risen_plugin.kit.jsonable import json_text

        for attempted in instructions:
            say(json_text(attempted.as_row()))
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


def _start(prompt: Prompt) -> str:
    from risen_plugin.contracts import text_of

    text = printable(" ".join(text_of(prompt).split()))
    return text if len(text) <= 80 else f"{text[:77]}..."


def unsolved_of(run: Path, after: int | None, demonstrations: str | None) -> list[Attempted]:
    """The unsolved instructions of a run, those most often tried first.

    :param run: its output folder, or the ``risen`` folder in it.
    :param after: visits from which an instruction counts as unsolved; None takes the run's setting.
    :param demonstrations: a file of demonstrations; instructions that it answers are left out.
    :raises DataError: if there is no such run.
    """
    folder = record_folder(run)
    known = {key_of(row["prompt"]) for row in load_demonstrations(demonstrations)}
    path = folder / FILE
    lines = list(read_journal(path)) if path.exists() else []  # no phase has left anything yet
    least = after or _unsolved_after(folder)
    unsolved = [tried for tried in unsolved_in(lines, least) if tried.best.key not in known]
    return sorted(unsolved, key=lambda tried: -tried.visits)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON Lines, whole or not at all.

    :raises RecordError: if the file cannot be written, or exists and may hold demonstrations.
    """
    if path.exists():
        raise RecordError(
            f"{path} is there already, and somebody may have written into it; choose another file"
        )
    try:
        write_text(path, "".join(f"{json_text(row)}\n" for row in rows))
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error


def _unsolved_after(folder: Path) -> int:
    try:
        return int(read_description(folder)["buffers"]["unsolved_after"])
    except (ValueError, KeyError, TypeError):
        return BuffersConfig().unsolved_after
