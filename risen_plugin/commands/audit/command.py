"""``risen audit``: wrong answers that a reward accepts, scores that depend on chance."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from risen_plugin.commands.completing import offered
from risen_plugin.commands.options import json_option, name_and_value, options_of
from risen_plugin.errors import DataError, one_line
from risen_plugin.hookspecs import hookimpl
from risen_plugin.kit.files import check_ordinary
from risen_plugin.kit.foreign import say
from risen_plugin.kit.json_lines import lines_in
from risen_plugin.plugins import Plugins


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(audit_command)


@click.command("audit")
@click.argument("reward", shell_complete=offered("reward"))
@click.option(
    "-o", "--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of REWARD."
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=JSON",
    help="A column that REWARD reads, the same for each instruction.",
)
@click.option(
    "--columns",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Rows to ask about: JSON (one row or a list) or JSON Lines.",
)
@click.option("--right", help="An answer that REWARD must accept.")
@click.option(
    "--passes-at",
    type=float,
    help="The score from which an answer counts as accepted: 1.0, or 0.0 for a penalty, which has "
    "no score above it.",
)
@click.option(
    "--slow-after",
    type=click.FloatRange(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="Seconds per answer from which REWARD counts as slow.",
)
@click.option("--allow", multiple=True, metavar="CHECK", help="A check that may fail.")
@click.option("--quick", is_flag=True, help="Fewer instructions and repeats.")
@json_option()
@click.pass_context
def audit_command(
    context: click.Context,
    *,
    reward: str,
    options: tuple[str, ...],
    columns: tuple[str, ...],
    file: Path | None,
    right: str | None,
    passes_at: float | None,
    slow_after: float,
    allow: tuple[str, ...],
    quick: bool,
    as_json: bool,
) -> None:
    """Look for wrong answers that REWARD accepts, and for scores that depend on chance.

    REWARD is a name that `risen rewards` lists, or path.py:NAME, or module:NAME.
    Exit code 0: clean; 1: there are findings; 2: it could not be audited.
    """
    from risen_plugin.commands.audit.elsewhere import Source
    from risen_plugin.commands.audit.run import CHECKS, audit, subject_of

    plugins = context.obj if isinstance(context.obj, Plugins) else None
    source = Source(reward, options_of(options))
    built = source.load(plugins)
    subject = subject_of(
        built.value,
        built.label,
        rows=_rows(file, columns, right),
        source=source,
        options=source.options,
        passes_at=passes_at,
        slow_s=slow_after,
        quick=quick,
    )
    with _bar(len(CHECKS)) as watch:
        report = audit(subject, allow=allow, watch=watch)
    if as_json:
        say(json.dumps(report.as_json(), indent=2))
    else:
        head, empty, titles, *rest = report.lines()
        click.echo(f"{head}\n{empty}")
        click.secho(titles, bold=True)
        click.echo("\n".join(rest))
    context.exit(1 if report.findings else 0)


def _rows(file: Path | None, columns: tuple[str, ...], right: str | None) -> list[dict[str, Any]]:
    """The rows of the file, each with the columns and the right answer; or these alone."""
    rows: list[dict[str, Any]] = [{}] if file is None else _read(file)
    for column in columns:
        name, value = name_and_value(column, "the column")
        try:
            read = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise click.UsageError(
                f"--column {name}: {value} is no JSON ({one_line(error)}); a text is written "
                f"'{name}=\"...\"'"
            ) from None
        for row in rows:
            row[name] = read
    if right is not None:
        for row in rows:
            row["completion"] = right
    return [row for row in rows if row]


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        check_ordinary(file)
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {one_line(error)}") from error
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = [line.value() for line in lines_in(io.BytesIO(data), str(file))]
    rows = values if isinstance(values, list) else [values]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{file}: row {number} is a {type(row).__name__}, not an object")
    if not rows:
        raise DataError(f"{file} has no rows")
    return [dict(row) for row in rows]


@contextmanager
def _bar(count: int) -> Iterator[Callable[[str], None] | None]:
    """A function to call with the name of each check: a bar on a terminal, else None."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=count, leave=False, file=sys.stderr, ncols=80) as bar:

        def watch(name: str) -> None:
            bar.set_description(name)
            bar.update()

        yield watch
