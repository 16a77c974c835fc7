"""Options that the commands share, and readers of their values, times and sizes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from risen_plugin.commands.completing import files, offered
from risen_plugin.errors import ConfigError, near_miss
from risen_plugin.kit.checks import EXPONENT
from risen_plugin.kit.foreign import noise_aside
from risen_plugin.kit.yaml_files import read_yaml

_Command = TypeVar("_Command", bound=Callable[..., Any])
_SEED = click.IntRange(0, 2**31 - 1)  # numpy takes less than 2**32, and some seeds are derived
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_BYTES: dict[str, float] = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
}
_BYTES["gib"] = 2**30
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


class Renamed(click.Option):
    """An option that is still taken by an earlier name, which its help does not show.

    :param earlier: the names that it had.
    """

    def __init__(self, names: Sequence[str], *, earlier: Sequence[str], **settings: Any) -> None:
        super().__init__([*names, *earlier], **settings)
        self.earlier = frozenset(earlier)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        every, self.opts = self.opts, [name for name in self.opts if name not in self.earlier]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every


class NearChoice(click.Choice[str]):
    """A choice that names the nearest one where something else is given."""

    def get_invalid_choice_message(self, value: str, ctx: click.Context | None) -> str:
        return super().get_invalid_choice_message(value, ctx).rstrip(".") + (
            near_miss(value, self.choices) or "."
        )


def shared(command: _Command) -> _Command:
    """Add the options that every run has to ``command``."""
    for decorate in (
        click.option("--quiet", is_flag=True, help="Show no progress bars."),
        click.option(
            "--set",
            "pairs",
            metavar="NAME=VALUE",
            multiple=True,
            help="Set a value of the run, such as risen.grpo.beta=0.04; may be given often.",
        ),
        click.option("--seed", type=_SEED, help="Of data, sampling and training."),
    ):
        command = decorate(command)
    return command


def json_option(meaning: str = "Print JSON.") -> Callable[[_Command], _Command]:
    """Add ``--json``, as ``as_json``, to a command, whose standard output is JSON alone then.

    The command says its JSON with :func:`risen_plugin.kit.foreign.say`; what a reward or a plugin
    prints meanwhile goes to standard error.
    """

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def quiet(*arguments: Any, **options: Any) -> Any:
            if not options["as_json"]:
                return command(*arguments, **options)
            with noise_aside():
                return command(*arguments, **options)

        return click.option("--json", "as_json", is_flag=True, help=meaning)(quiet)  # type: ignore[return-value]

    return decorate


def rewarded(command: _Command) -> _Command:
    """Add the options that name instructions and rewards to ``command``."""
    for decorate in reversed(
        (
            click.option(
                "--instructions",
                metavar="FILE",
                shell_complete=files,
                help="Rows to answer: JSON Lines, ...",
            ),
            click.option(
                "--rewards",
                metavar="REWARD",
                multiple=True,
                shell_complete=offered("reward"),
                help="A name that `risen rewards` lists, or path.py:NAME; may be given often.",
            ),
            click.option(
                "-o",
                "--option",
                "options",
                metavar="[REWARD.]NAME=VALUE",
                multiple=True,
                help="An option of a reward.",
            ),
            click.option(
                "--generator",
                default="jsonl",
                shell_complete=offered("generator"),
                show_default=True,
                help="Takes FILE as its path: jsonl, or constraints to add some to plain prompts.",
            ),
        )
    ):
        command = decorate(command)
    return command


def options_of(pairs: Sequence[str]) -> dict[str, Any]:
    """The options of a plugin from ``name=value`` pairs; a dot leads into an option's own options.

    >>> options_of(["seconds=60", "scheduler=after", "scheduler.steps=20"])
    {'seconds': 60, 'scheduler': {'use': 'after', 'options': {'steps': 20}}}

    :raises ConfigError: for a pair that cannot be read.
    """
    return nested(parse_options(pairs))


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options from ``name=value`` pairs; a value that is no YAML scalar is a text.

    >>> parse_options(["low=20", "partial=false", "pattern=[a-z]+", "slack=1e-1"])
    {'low': 20, 'partial': False, 'pattern': '[a-z]+', 'slack': 0.1}

    :raises ConfigError: for a pair without ``=`` or name, and for a name given twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, value = name_and_value(pair, "the option")
        if name in options:
            raise ConfigError(f"the option '{name}' is given twice")
        options[name] = _scalar(value)
    return options


def name_and_value(pair: str, what: str) -> tuple[str, str]:
    """The name and the text of a ``name=value`` pair.

    >>> name_and_value("low = 20", "the option")
    ('low', ' 20')

    :param what: it names, for the message.
    :raises ConfigError: for a pair without ``=`` or name.
    """
    name, equals, value = pair.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"{what} '{pair}' has no value; write name=value")
    return name.strip(), value


def _scalar(text: str) -> Any:
    import yaml

    if EXPONENT.fullmatch(text.strip()):
        return float(text)
    try:
        value = read_yaml(text)
    except yaml.YAMLError:  # also an impossible date
        return text
    if isinstance(value, str):
        return value if text.strip()[:1] in ("'", '"') else text
    is_plain = value is None or isinstance(value, bool | int | float)
    return value if is_plain and "#" not in text else text  # no comments on a command line


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of options, named with dots, as ``{use: ..., options: {...}}`` has them.

    >>> nested({"seconds": 60, "scheduler": "after", "scheduler.steps": 20})
    {'seconds': 60, 'scheduler': {'use': 'after', 'options': {'steps': 20}}}

    :raises ConfigError: for an option of a plugin that is not named.
    """
    plain = {name: value for name, value in options.items() if "." not in name}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        outer, dot, rest = name.partition(".")
        if dot:
            inner.setdefault(outer, {})[rest] = value
    for outer, pairs in inner.items():
        if not isinstance(plain.get(outer), str):
            hint = near_miss(outer, plain)
            raise ConfigError(
                f"'{outer}.{next(iter(pairs))}' is an option of {outer}, which is not named{hint}; "
                f"add -o {outer}=NAME"
            )
        if plain[outer].lstrip().startswith(("{", "[")):
            raise ConfigError(
                f"'{outer}.{next(iter(pairs))}' is an option of {outer}, which is a mapping or a "
                "list; write the option into it"
            )
        plain[outer] = {"use": plain[outer], "options": nested(pairs)}
    return plain


def seconds_of(option: str, text: str) -> float:
    """Seconds in a text such as ``90``, ``90s``, ``1.5m`` or ``2h``.

    >>> seconds_of("--budget", "1.5m")
    90.0

    :raises ConfigError: for anything else, and for no time at all.
    """
    value = _number(text, _SECONDS)
    if not value:
        raise ConfigError(f"{option} is '{text}'; it is a time such as 90s, 5m or 2h")
    return value


def bytes_of(option: str, text: str) -> int:
    """Bytes in a text such as ``8GB`` or ``512MiB``.

    >>> bytes_of("--memory", "1.5GB")
    1500000000

    :raises ConfigError: for anything else, and for no memory at all.
    """
    value = _number(text, _BYTES)
    if not value:
        raise ConfigError(f"{option} is '{text}'; it is a size such as 512MB or 8GB")
    return round(value)


def _number(text: str, units: Mapping[str, float]) -> float | None:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2].lower() not in units:
        return None
    return float(match[1]) * units[match[2].lower()]
