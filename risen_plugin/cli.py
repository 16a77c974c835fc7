"""The ``risen`` command: a group that plugins add commands to, and the listings of their offers.

Loads nothing heavy; a command imports what it needs when it runs. A ``RisenError`` is shown as its
message alone and ends with exit code 2; ``--debug`` adds the traceback.
"""

from __future__ import annotations

import inspect
import io
import itertools
import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import IO, Any, NoReturn

import click

from risen_plugin import __version__
from risen_plugin.commands.completing import offered
from risen_plugin.commands.options import json_option
from risen_plugin.errors import RecordError, RisenError, near_miss, printable
from risen_plugin.kit.files import reason_of_the_machine
from risen_plugin.kit.foreign import end_aside, say
from risen_plugin.plugins import KINDS, Kind, Offer, PluginInfo, Plugins
from risen_plugin.plugins.lookup import is_place, offer_at
from risen_plugin.plugins.options import Option, describe

HELP = ("-h", "--help")
_USER_ERROR = 2
_INTERRUPTED = 130
_LISTED = (
    "List the {kind}s on offer, or show NAME with its options.\n\n"
    "NAME is one of the list, or the place of code: path.py:NAME, or module:NAME."
)
_WHAT: dict[Kind, str] = {
    "reward": "Rewards score answers.",
    "generator": "Generators make instructions.",
    "scheduler": "Schedulers decide between fine-tuning and RISEN.",
    "exporter": "Exporters compile a model to an ONNX graph.",
    "rollout": "Rollouts sample the answers of a phase outside of torch.",
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``risen`` and exit.

    :param arguments: the words after ``risen``; those of the process if None.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # halves of surrogate pairs, and plain ASCII
            stream.reconfigure(errors="backslashreplace")
    _log_to_stderr()
    try:
        command_line().main(words, prog_name="risen")
    except RisenError as error:  # raised before the group ran, by a plugin in strict mode
        shown = _ShownError(error, debug="--debug" in itertools.takewhile(_is_flag, words))
        shown.show()
        sys.exit(shown.exit_code)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    finally:
        if arguments is None:
            end_aside()
    sys.exit(0)


def command_line() -> click.Group:
    """The ``risen`` group with the commands of every installed plugin."""
    version = click.version_option(__version__, package_name="risen-plugin", prog_name="risen")
    return version(_RisenGroup())


class _RisenGroup(click.Group):
    """A group that shows a ``RisenError`` as its message and suggests near misses.

    :ivar plugins: the installed plugins, whose commands are in the group.
    """

    def __init__(self) -> None:
        debug = click.Option(["--debug"], is_flag=True, help="Show the traceback of an error.")
        super().__init__(
            "risen",
            help=(
                "Teach a language model to follow instructions, in short RISEN phases around "
                "fine-tuning, and export it."
            ),
            params=[debug],
            context_settings={"help_option_names": list(HELP)},  # commands inherit it
            callback=lambda debug: None,
        )
        self.add_command(_plugins_command())
        for kind in KINDS:
            self.add_command(_listing(kind))
        self.plugins = Plugins.load(cli=self)

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            raise _ShownUsage(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        ctx.obj = self.plugins
        try:
            return super().invoke(ctx)
        except RisenError as error:
            raise _ShownError(error, debug=ctx.params["debug"]) from error
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            raise _ShownUsage(error) from error
        except KeyboardInterrupt:
            click.echo("risen: interrupted", err=True)
            raise click.exceptions.Exit(_INTERRUPTED) from None
        except Exception as error:
            reason = reason_of_the_machine(error)
            if reason is None:
                raise
            said = RecordError(reason)
            said.__cause__ = error
            raise _ShownError(said, debug=ctx.params["debug"]) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not _is_flag(args[0]):
            names = self.list_commands(ctx)
            hint = near_miss(args[0], names) or "."
            ctx.fail(f"there is no command '{args[0]}'{hint} There are: {', '.join(names)}")
        return super().resolve_command(ctx, args)


class _ShownError(click.ClickException):
    """A ``RisenError`` on its way to the terminal."""

    exit_code = _USER_ERROR

    def __init__(self, error: RisenError, *, debug: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.debug = debug

    def show(self, file: IO[Any] | None = None) -> None:
        if self.debug:
            text = printable("".join(traceback.format_exception(self.error)), keeping="\n\t")
            click.echo(text, file=file, err=file is None, nl=False)
        click.echo(f"risen: {printable(self.message)}", file=file, err=file is None)


class _ShownUsage(click.ClickException):
    """A command line that cannot be read, shown in one line like every other error."""

    exit_code = _USER_ERROR

    def __init__(self, error: click.UsageError) -> None:
        text = " ".join(error.format_message().split()).rstrip(".")
        text = text.replace(". (Did", " (did").replace(". Did", "; did")
        where = error.ctx.command_path if error.ctx is not None else "risen"
        see = f" See {where} --help" if text.endswith("?") else f"; see {where} --help"
        super().__init__(printable(f"{text[:1].lower()}{text[1:]}{see}"))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"risen: {self.message}", file=file, err=file is None)


def _is_flag(argument: str) -> bool:
    return argument.startswith("-")


class _Lines(logging.Handler):
    """Prints the log lines of the package on the present stderr, each led by ``risen:``.

    A warning is shown once: plugins are loaded again for each configuration of a process.
    """

    def __init__(self) -> None:
        super().__init__()
        self.warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = printable(self.format(record), keeping="\n\t")
        if record.levelno != logging.WARNING or line not in self.warned:
            if "tqdm" in sys.modules:  # keep out of a progress bar's line
                sys.modules["tqdm"].tqdm.write(f"risen: {line}", file=sys.stderr)
            else:
                click.echo(f"risen: {line}", err=True)
        if record.levelno == logging.WARNING:
            self.warned.add(line)


def _log_to_stderr() -> None:
    log = logging.getLogger("risen_plugin")
    if not any(isinstance(handler, _Lines) for handler in log.handlers):
        log.addHandler(_Lines())
        log.setLevel(logging.INFO)


# risen plugins


def _plugins_command() -> click.Command:
    @click.command("plugins")
    @click.option("--all", "everything", is_flag=True, help="Show built-in and disabled ones too.")
    @json_option()
    @click.pass_obj
    def plugins(installed: Plugins, everything: bool, as_json: bool) -> None:
        """List the installed plugins.

        Each with its offers, or with the reason why it was left out.
        """
        infos = installed.infos()
        shown = [info for info in infos if everything or not _is_quiet(info)]
        if as_json:
            _print_json([_plugin_data(info) for info in shown])
            return
        _print_table(
            ("plugin", "distribution", "version", "offers"),
            [(i.name, i.distribution, i.version, _offered(i)) for i in shown],
        )
        if len(shown) < len(infos):
            click.echo(f"{len(infos) - len(shown)} built-in or disabled: --all shows them")

    return plugins


def _is_quiet(info: PluginInfo) -> bool:
    return info.is_disabled or (info.is_built_in and not info.left_out)


def _offered(info: PluginInfo) -> str:
    if info.left_out:
        return f"left out: {info.left_out}"
    parts = [
        f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}"
        for kind in KINDS
        if (names := [offer.name for offer in info.offers if offer.kind == kind])
    ]
    if info.commands:
        parts.append(f"command{'s' if len(info.commands) > 1 else ''} {', '.join(info.commands)}")
    observed = [hook for hook in info.hooks if not hook.startswith("risen_register_")]
    if observed:
        parts.append(f"observes {', '.join(observed)}")
    return "; ".join(parts) or "nothing"


def _plugin_data(info: PluginInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "offers": [{"kind": offer.kind, "name": offer.name} for offer in info.offers],
        "commands": list(info.commands),
        "hooks": list(info.hooks),
        "left_out": info.left_out,
    }


# risen rewards, risen generators, risen schedulers, risen exporters, risen rollouts


def _listing(kind: Kind) -> click.Command:
    @click.command(f"{kind}s", help=_LISTED.format(kind=kind))
    @click.argument("name", required=False, shell_complete=offered(kind))
    @json_option()
    @click.pass_obj
    def listing(installed: Plugins, name: str | None, as_json: bool) -> None:
        if name is None:
            _list_offers(kind, installed.offers(kind), as_json)
            return
        offer = offer_at(kind, name) if is_place(name) else installed.find(kind, name)
        if as_json:
            _print_json(_offer_data(offer, with_options=True))
        else:
            _show_offer(offer)

    return listing


def _list_offers(kind: Kind, offers: list[Offer], as_json: bool) -> None:
    if as_json:
        _print_json([_offer_data(offer) for offer in offers])
        return
    click.echo(f"{_WHAT[kind]}\n")
    names = [offer.name for offer in offers]
    rows = [
        (o.name if names.count(o.name) == 1 else o.full_name, o.origin, _summary(o.factory))
        for o in offers
    ]
    _print_table((kind, "from", "what it does"), rows)


def _show_offer(offer: Offer) -> None:
    click.secho(offer.label, bold=True)
    prose = _plain(re.split(r"^:\w+", _doc(offer.factory), maxsplit=1, flags=re.MULTILINE)[0])
    if prose.strip():
        click.echo(f"\n{prose.strip()}")
    for attribute, meaning in (("needs", "needs the columns"), ("columns", "makes the columns")):
        if names := _column_names(offer.factory, attribute):
            click.echo(f"\n{meaning}: {', '.join(names)}")
    click.echo()
    options = describe(offer.factory)
    if not options:
        click.echo("It takes no options.")
        return
    _print_table(
        ("option", "type", "default", "meaning"),
        [(o.name, o.type, _default_text(o), _plain(o.meaning)) for o in options],
    )


def _default_text(option: Option) -> str:
    return "required" if option.required else _shown(option.default)


def _offer_data(offer: Offer, *, with_options: bool = False) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": offer.name,
        "full_name": offer.full_name,
        "kind": offer.kind,
        "plugin": offer.plugin,
        "distribution": offer.distribution,
        "version": offer.version,
        "summary": _summary(offer.factory),
    }
    if with_options:
        data["doc"] = _doc(offer.factory)
        data["options"] = [vars(option) for option in describe(offer.factory)]
        data["needs"] = _column_names(offer.factory, "needs")
        data["columns"] = _column_names(offer.factory, "columns")
    return data


def _column_names(factory: Callable[..., Any], attribute: str) -> list[str]:
    """The columns that the factory's class declares; it cannot declare those that options name."""
    names = getattr(factory, attribute, ())
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def _doc(factory: Callable[..., Any]) -> str:
    doc = inspect.getdoc(factory) or ""
    # A dataclass without a docstring has its signature as one.
    return "" if doc.startswith(f"{getattr(factory, '__name__', '')}(") else doc


def _summary(factory: Callable[..., Any]) -> str:
    return _plain(next(iter(_doc(factory).splitlines()), ""))


def _plain(doc: str) -> str:
    """``doc`` with the double backquotes of documentation tools made single."""
    return doc.replace("``", "`")


# Output


def _print_json(data: object) -> None:
    say(printable(json.dumps(data, indent=2, ensure_ascii=False, default=_shown), keeping="\n"))


def _shown(value: object) -> str:
    """The representation of a value that is no JSON, such as a default of a plugin's option."""
    try:
        return repr(value)
    except BaseException as error:  # noqa: BLE001  it is the plugin's code
        return f"<{type(value).__name__}, whose representation raises {type(error).__name__}>"


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; the last one may be of any length."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)][:-1]
    for number, row in enumerate([head, *rows]):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        line = "  ".join([*cells, row[-1]]).rstrip()
        click.secho(line, bold=number == 0)
