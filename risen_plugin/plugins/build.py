"""Build what is offered by name, with options that are plugins themselves.

An option whose annotation is ``Scheduler``, ``Generator`` or ``Reward`` takes an object, a name,
:func:`risen_plugin.use`, or what YAML has for that: ``{use: NAME, options: {...}}``.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from risen_plugin.config import Use
from risen_plugin.contracts import Generator, Reward, Scheduler
from risen_plugin.errors import ConfigError, near_miss
from risen_plugin.plugins import Kind, Plugins
from risen_plugin.plugins.options import hints_of

_KINDS: Mapping[Any, Kind] = {Scheduler: "scheduler", Generator: "generator", Reward: "reward"}
_KEYS = ("use", "options")


def build_offer(plugins: Plugins, kind: Kind, name: str, options: Mapping[str, Any]) -> Any:
    """Make the object that ``name`` offers, and first those that its options name.

    :raises ConfigError: if a name or an option is unknown, missing or refused.
    """
    offer = plugins.find(kind, name)
    hints = hints_of(offer.factory)
    built = {
        option: _composed(plugins, hints.get(option), value, f"{offer.label}: {option}")
        for option, value in options.items()
    }
    return plugins.build(kind, name, built)


def _composed(plugins: Plugins, hint: Any, value: Any, where: str) -> Any:
    kind = _kind(hint)
    if kind is None:
        return value
    if isinstance(value, Mapping):
        value = _read(value, where)
    if isinstance(value, str):
        value = Use(value)
    if isinstance(value, Use):
        return build_offer(plugins, kind, value.name, value.options)
    return value


def _kind(hint: Any) -> Kind | None:
    """The kind of plugin that the annotation asks for, ``Scheduler | None`` included."""
    for choice in (hint, *typing.get_args(hint)):
        if isinstance(choice, type) and choice in _KINDS:
            return _KINDS[choice]
    return None


def _read(data: Mapping[str, Any], where: str) -> Use:
    for key in data:
        if key not in _KEYS:
            told = f"; the options of a plugin stand under 'options: {{{key}: ...}}'."
            hint = near_miss(str(key), set(_KEYS) - data.keys()) or told
            raise ConfigError(f"{where} has no key '{key}'{hint} It takes: {', '.join(_KEYS)}")
    if not isinstance(data.get("use"), str):
        raise ConfigError(f"{where} lacks 'use', the name of what is offered")
    return Use(data["use"], data.get("options") or {})
