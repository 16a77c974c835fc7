"""``risen export`` and ``risen generate``. Heavy libraries are imported when a command runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from risen_plugin.commands.completing import runs
from risen_plugin.commands.options import json_option
from risen_plugin.errors import DataError
from risen_plugin.hookspecs import hookimpl
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text

if TYPE_CHECKING:
    from risen_export.exporting import ExportResult
    from risen_plugin.contracts import Prompt


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(export_command)
    cli.add_command(generate_command)


@click.command("export")
@click.argument("run_or_model", shell_complete=runs)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=["fp32"],
    show_default=True,
    help="fp32 or int8; may be given more than once.",
)
@click.option("--force", is_flag=True, help="Replace the bundle that is already at OUT.")
@click.option("--no-verify", is_flag=True, help="Do not compare the bundle with the model.")
@json_option("Print JSON in place of the table.")
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
@click.pass_context
def export_command(
    context: click.Context,
    *,
    run_or_model: str,
    out: Path,
    precisions: tuple[str, ...],
    force: bool,
    no_verify: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Merge RUN_OR_MODEL, compile it to ONNX Runtime and write the checked bundle OUT.

    RUN_OR_MODEL is the output folder of a run (its saved model, else its newest checkpoint), a
    model folder, a PEFT adapter folder or a hub id.
    """
    from risen_export.exporting import export

    result = export(
        run_or_model,
        out,
        precisions,
        force=force,
        check=not no_verify,
        progress=not quiet,
        show_log=bool(context.find_root().params.get("debug")),
    )
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    say(json_text(_data(result)) if as_json else report(result))


def _data(result: ExportResult) -> dict[str, Any]:
    precisions = {
        name: {**asdict(one), "path": str(one.path)} for name, one in result.precisions.items()
    }
    return {"path": str(result.path), "precisions": precisions}


def report(result: ExportResult) -> str:
    """The closing table: one line per precision, and its bytes by kind."""
    lines = [f"{'':6}{'size':>10}  {'logit diff':>10}  {'greedy tokens equal':>20}  folder"]
    for name, one in result.precisions.items():
        verdict = one.verdict
        difference = "not checked" if verdict is None else f"{verdict['max_logit_diff']:.2g}"
        tokens = (
            ""
            if verdict is None
            else f"{sum(verdict['greedy_equal'])} of {verdict['tokens_compared']}"
        )
        lines.append(f"{name:6}{_size(one.bytes):>10}  {difference:>10}  {tokens:>20}  {one.path}")
    for name, one in result.precisions.items():
        kinds = ", ".join(
            f"{kind.replace('_', ' ')} {_size(size)}" for kind, size in one.bytes_by_kind.items()
        )
        lines.append(f"{name} is made of: {kinds}")
    return "\n".join(lines)


@click.command("generate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1, required=True)
@click.option("--precision", help="Which graph of the bundle; its fp32 one if there is one.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Most tokens of an answer.")
@click.option("--system", help="A system message put before each prompt.")
@click.option("--raw", is_flag=True, help="Take the prompts as text, without the chat template.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Draw answers at this temperature; 0 takes the likeliest token.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads; onnxruntime's choice if unset."
)
@click.option(
    "--no-check",
    is_flag=True,
    help="Do not compare the content of files with the manifest, only their names and sizes.",
)
@json_option("One JSON object per answer.")
def generate_command(
    *,
    bundle: Path,
    prompts: tuple[str, ...],
    precision: str | None,
    max_new_tokens: int | None,
    system: str | None,
    raw: bool,
    temperature: float,
    seed: int,
    threads: int | None,
    no_check: bool,
    as_json: bool,
) -> None:
    """Answer PROMPTS from BUNDLE, the chat template applied.

    BUNDLE is a folder that `risen export` wrote, or one of its precision folders. The prompt -
    reads prompts from the lines of standard input. Several answers are separated by an empty line.
    """
    from risen_export.runtime.bundle import Bundle

    texts = list(_texts(prompts))
    if raw and system is not None:
        raise DataError("--system needs the chat template, and --raw leaves it out; drop one")
    opened = Bundle.open(bundle, precision, threads, check_hashes=not no_check)
    answers = opened.generate(
        [text if raw else _messages(text, system) for text in texts],
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        temperature=temperature,
        seed=seed,
    )
    for index, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        if as_json:
            say(json_text({"prompt": text, "completion": answer}))
        else:
            click.echo(f"\n{answer}" if index else answer)


def _texts(prompts: Sequence[str]) -> list[str]:
    texts: list[str] = []
    for prompt in prompts:
        if prompt == "-":
            texts += [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
        else:
            texts.append(prompt)
    if not texts:
        raise DataError("there is no prompt: standard input was empty")
    return texts


def _messages(text: str, system: str | None) -> Prompt:
    turns: list[dict[str, Any]] = [{"role": "user", "content": text}]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 10_000 else f"{count / 1e3:.1f} kB"
