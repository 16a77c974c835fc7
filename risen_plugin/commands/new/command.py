"""``risen new plugin`` and ``risen new run``. Neither loads torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import get_args

import click

from risen_plugin.commands.options import NearChoice
from risen_plugin.hookspecs import hookimpl
from risen_plugin.plugins import Kind, Plugins


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(new_command)


@click.group("new")
def new_command() -> None:
    """Write the files that a plugin, or a run, begins with."""


@new_command.command("plugin")
@click.argument("name")
@click.option(
    "--kind",
    type=NearChoice(get_args(Kind)),
    default="reward",
    show_default=True,
    help="What the plugin offers.",
)
@click.option("--output", type=click.Path(path_type=Path), help="The folder; risen-NAME if unset.")
@click.pass_obj
def plugin_command(installed: Plugins, *, name: str, kind: Kind, output: Path | None) -> None:
    """Write a plugin called NAME: a package that can be installed, with its tests.

    It offers one reward, generator, scheduler, exporter or rollout by that name, which works as it
    is and is yours to change. Everything that is written there passes its tests once it is
    installed.
    """
    from risen_plugin.commands.new.filling import write_new
    from risen_plugin.commands.new.plugin import plugin_files, plugin_name

    name = plugin_name(name, [offer.name for offer in installed.offers(kind)])
    folder = output or Path(f"risen-{name}")
    files = plugin_files(kind, name, folder)
    write_new(files)
    for path in files:
        click.echo(f"wrote {path}")
    place = shlex.quote(str(folder))
    click.echo(f"next: pip install -e {shlex.quote(f'{folder}[test]')}")
    click.echo(f"      risen {kind}s {name}")
    click.echo(f"      pytest {place}")


@new_command.command("run")
@click.argument("file", type=click.Path(path_type=Path), default=Path("run.yaml"))
@click.option(
    "--model", default="embedded", show_default=True, help="A folder, a hub id, or embedded."
)
@click.option("--data", metavar="FILE", help="Rows to fine-tune on; some are written if unset.")
@click.option("--instructions", metavar="FILE", help="Rows to answer; some are written if unset.")
def run_command(*, file: Path, model: str, data: str | None, instructions: str | None) -> None:
    """Write a commented RUN.yaml to FILE, run.yaml unless it is named.

    `risen train FILE --check` accepts it as it is, and `risen train FILE` trains the small model
    that comes with the package.
    """
    from risen_plugin.commands.new.filling import write_new
    from risen_plugin.commands.new.run import run_files

    files = run_files(file, model=model, data=data, instructions=instructions)
    write_new(files)
    for path in files:
        click.echo(f"wrote {path}")
    click.echo(f"next: risen train {shlex.quote(str(file))} --check")
