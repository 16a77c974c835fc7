"""``risen export``, and the table of precisions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from risen_plugin.commands.completing import offered, runs
from risen_plugin.commands.options import NearChoice, json_option
from risen_plugin.errors import ConfigError
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text

if TYPE_CHECKING:
    from risen_export.exporting import Exported, ExportResult


@click.command("export")
@click.argument("run_or_model", shell_complete=runs)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    help="What the weights are stored in, commas allowed; see `risen precisions`. auto keeps the "
    "smallest that passes; fp32 if unset, on cuda fp16.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=["cpu"],
    show_default=True,
    help="Where the bundle will run: cpu, cuda, or both with a comma.",
)
@click.option(
    "--adapters",
    type=NearChoice(["merge", "separate"]),
    default="merge",
    show_default=True,
    help="Fold the adapter into the weights, or keep it beside them to be switched.",
)
@click.option(
    "--backend",
    metavar="NAME",
    shell_complete=offered("exporter"),
    help="The exporter that builds the graphs; see `risen exporters`. The first that can if unset.",
)
@click.option("--replace", is_flag=True, help="Replace the bundle that is already at OUT.")
@click.option(
    "--force", is_flag=True, help="As --replace, and publish what fails the gate, marked so."
)
@click.option("--no-verify", is_flag=True, help="Do not measure the graphs against the model.")
@click.option(
    "--gate",
    "gate_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML with what the gate asks and lets through: limits, prompts, golden prompts, "
    "instructions with rewards.",
)
@json_option("Print JSON in place of the table.")
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
@click.pass_context
def export_command(
    context: click.Context,
    *,
    run_or_model: str,
    out: Path,
    precisions: tuple[str, ...],
    targets: tuple[str, ...],
    adapters: str,
    backend: str | None,
    replace: bool,
    force: bool,
    no_verify: bool,
    gate_file: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Merge RUN_OR_MODEL, compile it to ONNX Runtime and write the measured bundle OUT.

    RUN_OR_MODEL is the output folder of a run (its saved model, else its newest checkpoint), a
    model folder, a PEFT adapter folder or a hub id. A graph that is too far from the model is not
    published.
    """
    from risen_export.exporting import export
    from risen_export.gate.settings import read_settings

    if gate_file is not None and no_verify:
        raise ConfigError("--gate says how graphs are measured; leave it or --no-verify out")
    result = export(
        run_or_model,
        out,
        precisions or None,
        targets=targets,
        separate=adapters == "separate",
        backend=backend,
        force=force,
        replace=replace,
        check=not no_verify,
        gate=None if gate_file is None else read_settings(gate_file),
        progress=not quiet,
        show_log=bool(context.find_root().params.get("debug")),
    )
    if result.backend and not result.backend.endswith(": the default"):
        click.echo(result.backend, err=True)
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    say(json_text(_data(result)) if as_json else report(result))


def _data(result: ExportResult) -> dict[str, Any]:
    precisions = {
        name: {
            **asdict(one),
            "path": str(one.path),
            "measured": None if one.measured is None else one.measured.as_json(),
        }
        for name, one in result.precisions.items()
    }
    return {
        "path": str(result.path),
        "backend": result.backend,
        "precisions": precisions,
        "tried": dict(result.tried),
    }


def report(result: ExportResult) -> str:
    """The closing table: one line per variant, its bytes by kind, and what was not kept and why."""
    width = max(map(len, result.precisions), default=6) + 2
    head = f"{'':{width}}{'size':>10}  {'tokens agree':>12}  {'divergence':>10}  {'perplexity':>10}"
    lines = [f"{head}  folder"]
    for name, one in result.precisions.items():
        lines.append(f"{name:{width}}{shown_size(one.bytes):>10}  {_measures(one)}  {one.path}")
    for name, one in result.precisions.items():
        kinds = ", ".join(
            f"{kind.replace('_', ' ')} {shown_size(size)}"
            for kind, size in one.bytes_by_kind.items()
        )
        lines.append(f"{name} is made of: {kinds}")
    for name, one in result.precisions.items():
        if one.measured is not None and one.measured.adherence is not None:
            lines.append(f"{name} follows {one.measured.followed}")
    for name, one in result.precisions.items():
        if one.failures:
            lines.append(f"{name} fails the gate and was published by --force: {one.failures[0]}")
    lines += [f"{name} was not kept: {reason}" for name, reason in result.tried.items()]
    return "\n".join(lines)


def _measures(one: Exported) -> str:
    measured = one.measured
    if measured is None:
        return f"{'not measured':>12}  {'':>10}  {'':>10}"
    ratio = measured.perplexity_ratio
    perplexity = "-" if ratio is None else f"x {ratio:.4f}"
    return f"{measured.agreement:>12.1%}  {measured.kl_mean:>10.2g}  {perplexity:>10}"


def shown_size(count: int) -> str:
    """A number of bytes for a person."""
    return f"{count / 1e6:.2f} MB" if count >= 10_000 else f"{count / 1e3:.1f} kB"


@click.command("precisions")
@json_option()
def precisions_command(*, as_json: bool) -> None:
    """List the precisions: what each stores, what it multiplies in, and where it runs."""
    from risen_export.bundles.variants import PRECISIONS

    if as_json:
        say(json_text([asdict(one) for one in PRECISIONS.values()]))
        return
    rows = [("", "stores", "multiplies in", "targets", "checked on a CPU")]
    rows += [
        (
            one.name,
            one.stored,
            one.activations,
            ", ".join(one.targets),
            "yes" if one.on_cpu else "no",
        )
        for one in PRECISIONS.values()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
