"""Options that the commands of this package share, and how times and sizes are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from risen_plugin.errors import ConfigError

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


def shared(command: _Command) -> _Command:
    """The options that every run has."""
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


def rewarded(command: _Command) -> _Command:
    """The options that name instructions and how answers to them are scored."""
    for decorate in reversed(
        (
            click.option("--instructions", metavar="FILE", help="Rows to answer: JSON Lines, ..."),
            click.option(
                "--rewards",
                metavar="REWARD",
                multiple=True,
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
                show_default=True,
                help="Takes FILE as its path: jsonl, or constraints to add some to plain prompts.",
            ),
        )
    ):
        command = decorate(command)
    return command


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
    found = _NUMBER.fullmatch(text)
    if found is None or found[2].lower() not in units:
        return None
    return float(found[1]) * units[found[2].lower()]
