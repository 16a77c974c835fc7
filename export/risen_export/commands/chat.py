"""``risen chat``: talk to a bundle in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from risen_plugin.commands.options import bytes_of
from risen_plugin.errors import DataError, RisenError, printable

if TYPE_CHECKING:
    from risen_export.engine.engine import Engine

HELP = """\
/adapter NAME  let an adapter of the bundle answer; /adapter alone, the base
/system TEXT   a system message from now on; /system alone, none
/reset         forget what was said
/quit          leave; Ctrl-D too. Ctrl-C ends an answer."""


@click.command("chat")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", help="Which graph of the bundle; its fp32 one if there is one.")
@click.option("--adapter", metavar="NAME", help="An adapter of the bundle; else the base answers.")
@click.option("--system", help="A system message.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Most tokens of an answer.")
@click.option(
    "--temperature", type=click.FloatRange(min=0, max=100), default=0.0, show_default=True
)
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same answers.")
@click.option("--context", type=click.IntRange(min=1), help="Most tokens of a whole chat.")
@click.option("--memory", default="2GiB", show_default=True, help="Of keys and values.")
@click.option("--threads", type=click.IntRange(min=1), help="Of one operator.")
@click.option("--no-check", is_flag=True, help="Do not compare files with the manifest.")
def chat_command(
    *, bundle: Path, precision: str | None, memory: str, no_check: bool, **given: Any
) -> None:
    """Talk to BUNDLE in the terminal; /help lists what else can be typed.

    What was said before is not read again for each answer.
    """
    from risen_export.engine.engine import Engine
    from risen_export.engine.settings import EngineSettings

    settings = EngineSettings(
        rows=1,
        context=given["context"],
        memory=bytes_of("--memory", memory),
        threads=given["threads"],
    )
    engine = Engine.open(bundle, precision, settings, check_hashes=not no_check)
    talk = Talk(engine, given["max_new_tokens"], given["temperature"], given["seed"])
    talk.system = given["system"]
    if given["adapter"]:
        talk.choose(given["adapter"])
    _loop(talk)


def _lines() -> Iterator[str]:
    """What is typed, or comes through a pipe; to a pipe nothing is said."""
    if not sys.stdin.isatty():
        yield from (line.decode("utf-8", "replace") for line in sys.stdin.buffer)
        return
    click.echo("/help lists what can be typed", err=True)
    while True:
        try:
            yield click.prompt(">", prompt_suffix=" ", default="", show_default=False, err=True)
        except click.Abort:  # Ctrl-C or Ctrl-D at the prompt
            click.echo(err=True)
            return


def _loop(talk: Talk) -> None:
    for line in map(str.strip, _lines()):
        if line in ("/quit", "/exit"):
            return
        try:
            if line.startswith("/"):
                click.echo(talk.command(line), err=True)
            elif line:
                talk.answer(line, lambda text: click.echo(text, nl=False))
                click.echo()
        except RisenError as error:
            click.echo(str(error), err=True)


@dataclass
class Talk:
    """A chat as far as it has come.

    :param most: tokens of an answer; None for the engine's own limit.
    """

    engine: Engine
    most: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    adapter: str | None = None
    system: str | None = None
    said: list[dict[str, str]] = field(default_factory=list)

    def choose(self, name: str) -> None:
        """Let an adapter answer.

        :raises RisenError: if there is none of that name.
        """
        if name not in self.engine.adapters:
            self.engine.load_adapter(name, name)
        self.adapter = name

    def command(self, line: str) -> str:
        """Do what a line that begins with a slash asks for, and say so.

        :raises RisenError: if there is no such command, or it cannot be done.
        """
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "/help":
            return HELP
        if word == "/reset":
            self.said.clear()
            return "forgotten"
        if word == "/system":
            self.system = rest or None
            return "there is a system message" if rest else "there is no system message"
        if word == "/adapter":
            if rest:
                self.choose(rest)
            else:
                self.adapter = None
            return f"{rest or 'the base'} answers"
        raise DataError(f"there is no {printable(word)[:40]}; /help lists what there is")

    def answer(self, text: str, show: Callable[[str], None]) -> str:
        """Answer, and give each piece to ``show``; Ctrl-C ends the answer there.

        :raises RisenError: if the chat has become too long, or the template refuses it.
        """
        from risen_export.engine.requests import Request, Sampling

        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        asked = [*self.said, {"role": "user", "content": text}]
        ids = self.engine.tokenizer.encode([*system, *asked])
        sampling = Sampling(temperature=self.temperature, seed=self.seed)
        request = Request(tuple(ids), self.most, sampling, adapter=self.adapter)
        number = self.engine.submit(request)
        pieces: list[str] = []
        try:
            while self.engine.busy:
                for piece in self.engine.step():
                    pieces.append(piece.text)
                    show(printable(piece.text, keeping="\n\t"))
        except KeyboardInterrupt:
            self.engine.cancel(number)
            while self.engine.busy:
                self.engine.step()
        self.said = [*asked, {"role": "assistant", "content": "".join(pieces)}]
        return "".join(pieces)
