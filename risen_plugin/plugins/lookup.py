"""Get the reward, generator or scheduler that somebody names, in the one way that there is.

It is named by a plugin's offer (``length``, ``plugin/length``), by the place of its code
(``file.py:NAME``, ``module:NAME``; a relative path starts at the current folder), by
:func:`risen_plugin.use` or its form in YAML (``{use: NAME, options: {...}}``), or it is an object
already. An option whose annotation asks for a reward, generator or scheduler is named likewise.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from risen_plugin.config.choices import Use, read_use
from risen_plugin.contracts import Generator, Reward, Scheduler
from risen_plugin.errors import ConfigError
from risen_plugin.plugins.offers import Built, Kind
from risen_plugin.plugins.options import build, hints_of
from risen_plugin.plugins.places import attribute_of, module_at

if TYPE_CHECKING:
    from risen_plugin.plugins.registry import Plugins

_KINDS: Mapping[Any, Kind] = {Scheduler: "scheduler", Generator: "generator", Reward: "reward"}
_ASKED_WITH: Mapping[Kind, frozenset[str]] = {
    "reward": frozenset(("completions",)),
    "generator": frozenset(("count", "seed")),
}
"""The arguments that an object of the kind is called with by name."""
_UNSAID: Any = inspect.Parameter.empty


def look_up(
    plugins: Plugins, kind: Kind, target: object, options: Mapping[str, Any] | None = None
) -> Built:
    """The object that ``target`` names, with its name, label and origin.

    A place holds the object itself, or a class or function that makes one from options: a function
    that cannot be called as an object of the kind is called.

    :param options: those of ``target``, where it is a name without any.
    :raises ConfigError: if there is no such object, or it does not take the options.
    :raises PluginError: if it cannot be made.
    """
    if isinstance(target, Mapping):
        target = read_use(target, kind, reward=kind == "reward")
    if isinstance(target, str):
        target = Use(target, options or {})
    if not isinstance(target, Use):
        built = _of_python(kind, target)
    elif ":" in target.name or target.name.endswith(".py"):
        built = _at_place(plugins, kind, target)
    else:
        offer = plugins.find(kind, target.name)
        value = make(plugins, offer.factory, target.options, offer.label)
        built = Built(
            value, offer.name, offer.label, f"{offer.distribution} {offer.version}".strip()
        )
    if isinstance(built.value, type):
        raise ConfigError(f"{built.label} is a class; give an object of it: {built.name}(...)")
    if not callable(built.value):
        raise ConfigError(f"{built.label} cannot be called; a {kind} is a callable object")
    return built


def make(
    plugins: Plugins, factory: Callable[..., Any], options: Mapping[str, Any], label: str
) -> Any:
    """Call ``factory`` with ``options``, and before that make those that are plugins themselves.

    :param label: whose factory it is, for messages.
    :raises ConfigError: if a name or an option is unknown, missing or refused.
    :raises PluginError: if the factory fails.
    """
    hints = hints_of(factory)
    composed = {
        option: _composed(plugins, hints.get(option), value, f"{label}: {option}")
        for option, value in options.items()
    }
    return build(factory, composed, label)


def _of_python(kind: Kind, value: object) -> Built:
    name = getattr(value, "__name__", type(value).__name__)
    module = _module_of(value)
    return Built(value, name, f"{kind} '{name}' ({module})", module)


def _module_of(value: object) -> str:
    return str(getattr(value, "__module__", type(value).__module__))


# Objects by the place of their code


def _at_place(plugins: Plugins, kind: Kind, used: Use) -> Built:
    place, _, name = used.name.rpartition(":")
    if not place and not name.endswith(".py"):
        raise ConfigError(
            f"'{used.name}' names no {kind}; write file.py:NAME or module:NAME, or a name that "
            f"`risen {kind}s` lists"
        )
    if not place or not name:
        raise ConfigError(f"'{used.name}' names no {kind} in it; write {place or name}:NAME")
    label = f"{kind} '{name}' ({place})"
    target = attribute_of(module_at(place), name, place)
    if isinstance(target, type) or (inspect.isfunction(target) and _makes_one(kind, target, used)):
        value = make(plugins, target, used.options, label)
    elif used.options:
        raise ConfigError(
            f"{label} is a {kind} already and takes no options; name a class or function that "
            "makes one from them"
        )
    else:
        value = target
    return Built(value, name, label, _module_of(value))


def _makes_one(kind: Kind, function: Callable[..., Any], used: Use) -> bool:
    """Whether a function makes an object of the kind and is none itself."""
    parameters = inspect.signature(function).parameters.values()
    if kind == "scheduler":  # it needs one thing, a progress, whatever it calls that
        flexible = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needed = [p.name for p in parameters if p.default is _UNSAID and p.kind not in flexible]
        return len(needed) != 1 or needed[0] in used.options
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return False
    return not _ASKED_WITH[kind] <= {parameter.name for parameter in parameters}


# Options that are plugins themselves


def _composed(plugins: Plugins, hint: object, value: object, where: str) -> Any:
    """``value``, or the objects that it names where the annotation asks for plugins."""
    kind = _kind(hint)
    if kind is not None and isinstance(value, str | Mapping | Use):
        return look_up(plugins, kind, read_use(value, where)).value
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _composed(plugins, inner[0], value, where)
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(lambda v, one: _composed(plugins, one, v, where), inner, value)
    if isinstance(value, list | tuple) and _is_of_one_kind(origin, inner):
        return [_composed(plugins, inner[0], one, f"{where}.{i}") for i, one in enumerate(value)]
    return value


def _is_of_one_kind(origin: object, inner: tuple[Any, ...]) -> bool:
    """Whether an annotation asks for a sequence whose items are alike."""
    is_sequence = isinstance(origin, type) and issubclass(origin, collections.abc.Iterable)
    return is_sequence and (len(inner) == 1 or inner[1:] == (Ellipsis,))


def _kind(hint: object) -> Kind | None:
    """The kind of plugin that the annotation asks for, ``Scheduler | None`` included."""
    choices = (hint,)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = typing.get_args(hint)
    return next((_KINDS[one] for one in choices if isinstance(one, type) and one in _KINDS), None)
