"""``risen triton``: a model repository for NVIDIA Triton."""

from __future__ import annotations

from pathlib import Path

import click

from risen_plugin.commands.options import bytes_of
from risen_plugin.kit.foreign import say


@click.command("triton")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", help="Of the model; the bundle folder's name if unset.")
@click.option("--precision", help="Which graph of the bundle; its fp32 one if there is one.")
@click.option(
    "--rows", type=click.IntRange(min=1), default=16, show_default=True, help="Answers at once."
)
@click.option(
    "--context", type=click.IntRange(min=1), help="Most tokens of a prompt with its answer."
)
@click.option(
    "--memory", default="2GiB", show_default=True, help="Of keys and values, such as 512MB."
)
@click.option("--threads", type=click.IntRange(min=1), help="Of one operator.")
@click.option("--no-check", is_flag=True, help="Do not compare files with the manifest.")
def triton_command(
    *,
    bundle: Path,
    output: Path,
    name: str | None,
    precision: str | None,
    rows: int,
    context: int | None,
    memory: str,
    threads: int | None,
    no_check: bool,
) -> None:
    """Write a model repository for NVIDIA Triton's Python backend into OUTPUT.

    OUTPUT/NAME gets a config.pbtxt, a model.py and a copy of BUNDLE. Triton's Python needs this
    package with its extras cpu and serve.
    """
    from risen_export.serving.triton_repository import write_repository

    given = {
        "precision": precision,
        "rows": rows,
        "context": context,
        "memory": bytes_of("--memory", memory),
        "threads": threads,
    }
    settings = {key: str(value) for key, value in given.items() if value is not None}
    name = name or bundle.resolve().name
    folder = write_repository(bundle, output, name, settings, check_hashes=not no_check)
    say(f"wrote {folder}: start Triton with --model-repository={output}")
