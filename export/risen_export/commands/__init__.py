"""Subcommands of ``risen`` about bundles. Heavy libraries are imported when a command runs."""

from __future__ import annotations

import click

from risen_export.commands.adapters import adapters_group
from risen_export.commands.chat import chat_command
from risen_export.commands.export import export_command, precisions_command
from risen_export.commands.generate import generate_command
from risen_export.commands.serve import serve_command
from risen_export.commands.triton import triton_command
from risen_export.commands.verify import verify_command
from risen_plugin.hookspecs import hookimpl


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(adapters_group)
    cli.add_command(chat_command)
    cli.add_command(export_command)
    cli.add_command(generate_command)
    cli.add_command(precisions_command)
    cli.add_command(serve_command)
    cli.add_command(triton_command)
    cli.add_command(verify_command)
