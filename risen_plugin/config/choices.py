"""Plugins by name or as objects, each with its options, and how a reward counts. Frozen data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from risen_plugin.errors import ConfigError, near_miss
from risen_plugin.kit.checks import is_number, shown
from risen_plugin.kit.fields import changed_fields, checked_fields

OnError: TypeAlias = Literal["stop", "skip"]


@dataclass(frozen=True, kw_only=True)
class Grading:
    """How a reward counts, and how its failures are handled.

    :param weight: weight of the reward in the sum that is reinforced.
    :param passes_at: the score from which the reward counts an answer as adherent.
    :param graded: whether the reward takes part in adherence at all.
    :param on_error: ``stop`` ends the run when the reward raises, is too slow or returns nonsense;
        ``skip`` takes each completion of that call for an error of the reward and goes on.
    :param timeout_s: seconds that one call of the reward may take; None for no limit.
    """

    weight: float = 1.0
    passes_at: float = 1.0
    graded: bool = True
    on_error: OnError = "stop"
    timeout_s: float | None = None

    @property
    def grading(self) -> Grading:
        """The grading alone, without the fields of a subclass."""
        return Grading(**{name: getattr(self, name) for name in GRADING})


GRADING = tuple(entry.name for entry in fields(Grading))


@checked_fields
@dataclass(frozen=True, repr=False)
class Use(Grading):
    """A plugin by name with its options, as YAML and the command line can write it.

    :param name: the offered name, ``plugin/name``, ``file.py:NAME`` or ``module:NAME``.
    :param options: arguments of the offered factory.

    A reward has a :class:`Grading` as well.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigError(f"the name of a plugin's offer is a text, not {self.name!r}")
        if not isinstance(self.options, Mapping):
            raise ConfigError(
                f"the options of '{self.name}' are a mapping of names to values, "
                f"not {self.options!r}"
            )
        _check_grading(self, f"'{self.name}'")

    def __repr__(self) -> str:
        """As :func:`use` is called, whose options stand beside how a reward counts."""
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        grading = [text for text in changed_fields(self) if text.partition("=")[0] in GRADING]
        return f"use({', '.join([repr(self.name), *options, *grading])})"


def use(
    name: str,
    *,
    weight: float = 1.0,
    passes_at: float = 1.0,
    graded: bool = True,
    on_error: OnError = "stop",
    timeout_s: float | None = None,
    **options: Any,
) -> Use:
    """A plugin by name or place: ``use("length", low=20, high=80, weight=0.5)``."""
    return Use(
        name,
        options,
        weight=weight,
        passes_at=passes_at,
        graded=graded,
        on_error=on_error,
        timeout_s=timeout_s,
    )


@checked_fields
@dataclass(frozen=True)
class Weighted(Grading):
    """A reward object with its weight and the rest of its :class:`Grading`, from Python."""

    reward: Any

    def __post_init__(self) -> None:
        name = getattr(self.reward, "__name__", type(self.reward).__name__)
        _check_grading(self, f"reward '{name}'")


PluginOrName: TypeAlias = Any
"""A plugin object, its offered name, or a :class:`Use` of that name."""


def read_use(entry: object, where: str, *, reward: bool = False) -> Any:
    """The plugin in ``{use: NAME, options: {...}}``, as YAML has it; anything else stays as it is.

    :param where: the name of the mapping, for messages.
    :param reward: whether it may say how a reward counts too.
    :raises ConfigError: for an unknown or missing key, naming the near miss.
    """
    if not isinstance(entry, Mapping):
        return entry  # a name, or an object when the mapping was made in Python
    known = {"use", "options"} | (set(GRADING) if reward else set())
    for key in entry:
        if key not in known:
            why = (
                "it belongs to rewards"
                if key in GRADING
                else f"the options of a plugin belong under 'options: {{{key}: ...}}'"
            )
            hint = near_miss(str(key), known - entry.keys()) or f"; {why}."
            raise ConfigError(
                f"{where} has no key '{key}'{hint} It takes: {', '.join(sorted(known))}"
            )
    if not isinstance(entry.get("use"), str):
        raise ConfigError(f"{where} lacks 'use', the name of a plugin's offer")
    options = entry.get("options") or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where}.options is not a mapping of names to values")
    rest = {key: value for key, value in entry.items() if key not in ("use", "options")}
    return Use(entry["use"], options, **rest)


def as_named(wanted: object) -> dict[str, Any] | None:
    """``{use: NAME, options: {...}}`` of a plugin that was named, as JSON values.

    None for an object of Python, and where an option is one: it cannot be made again elsewhere.
    """
    from risen_plugin.kit.jsonable import plain

    if isinstance(wanted, Weighted):
        wanted = wanted.reward
    if isinstance(wanted, str):
        wanted = Use(wanted)
    elif isinstance(wanted, Mapping):
        wanted = read_use(wanted, "the reward", reward=True)
    if not isinstance(wanted, Use):
        return None
    try:
        options = plain(_with_named(wanted.options), "options")
    except TypeError:
        return None
    return {"use": wanted.name, "options": options}


def _with_named(value: Any) -> Any:
    """``value`` with ``{use: NAME, options: {...}}`` in place of each named plugin in it."""
    if isinstance(value, Use):
        return {"use": value.name, "options": _with_named(value.options)}
    if isinstance(value, Mapping):
        return {key: _with_named(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_named(inner) for inner in value]
    return value


def read_mappings(section: Any, where: str, names: Iterable[str]) -> None:
    """Put the plugin in place of ``{use: NAME, ...}`` in fields of a frozen dataclass."""
    for name in names:
        value = getattr(section, name)
        if isinstance(value, Mapping):
            place = f"{where}.{name}" if where else name
            object.__setattr__(section, name, read_use(value, place))


def _check_grading(grading: Grading, label: str) -> None:
    for name in ("weight", "passes_at"):
        value = getattr(grading, name)
        if not is_number(value) or not math.isfinite(value):
            raise ConfigError(f"{label}: {name} is {shown(value)}; it is a finite number")
    if not isinstance(grading.graded, bool):
        raise ConfigError(f"{label}: graded is {grading.graded!r}; it is true or false")
    if grading.on_error not in ("stop", "skip"):
        raise ConfigError(f"{label}: on_error is {grading.on_error!r}; it is 'stop' or 'skip'")
    limit = grading.timeout_s
    if limit is not None and not (is_number(limit) and math.isfinite(limit) and limit > 0):
        raise ConfigError(
            f"{label}: timeout_s is {shown(limit)}; it is a number of seconds above 0, or nothing "
            "for no limit"
        )
