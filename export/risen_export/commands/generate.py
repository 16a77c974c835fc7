"""``risen generate``: answer from a bundle."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from risen_plugin.commands.options import json_option
from risen_plugin.errors import DataError
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text

if TYPE_CHECKING:
    from risen_plugin.contracts import Prompt


@click.command("generate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1, required=True)
@click.option("--precision", help="Which graph of the bundle; its fp32 one if there is one.")
@click.option("--adapter", metavar="NAME", help="An adapter of the bundle; else the base answers.")
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
    adapter: str | None,
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
        adapter=adapter,
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
