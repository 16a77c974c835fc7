"""Get the reward, generator, scheduler, exporter or rollout that somebody names, in one way.

It is named by a plugin's offer (``length``, ``plugin/length``), by the place of its code
(``file.py:NAME``, ``module:NAME``; a relative path starts at the current folder), by
:func:`risen_plugin.use` or its form in YAML (``{use: NAME, options: {...}}``), or it is an object
already. An option whose annotation asks for one of them is named likewise.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from risen_plugin.config.choices import Use, read_use
from risen_plugin.contracts import Exporter, Generator, Reward, Rollout, Scheduler
from risen_plugin.errors import ConfigError, located
from risen_plugin.plugins.offers import Built, Kind, Offer, OfferFinder, Ready
from risen_plugin.plugins.options import build, describe, fits, hints_of, list_or_mapping
from risen_plugin.plugins.places import attribute_of, module_at

_KINDS: Mapping[Any, Kind] = {
    Scheduler: "scheduler",
    Generator: "generator",
    Reward: "reward",
    Exporter: "exporter",
    Rollout: "rollout",
}
_ASKED_WITH: Mapping[Kind, frozenset[str]] = {
    "reward": frozenset(("completions",)),
    "generator": frozenset(("count", "seed")),
    "exporter": frozenset(("model", "out", "target", "precision")),
    "rollout": frozenset(("model", "tokenizer", "folder", "rows")),
}
"""The arguments that an object of the kind is called with by name."""
_FOREIGN: Mapping[Kind, frozenset[str]] = {
    "reward": frozenset(),  # an argument of any name may be a column
    "generator": frozenset(("completions", "prompts", "progress")),
    "scheduler": frozenset(("completions", "prompts", "count", "seed")),
    "exporter": frozenset(("completions", "prompts", "progress", "count", "seed")),
    "rollout": frozenset(("completions", "prompts", "progress", "count", "seed")),
}
"""The arguments that only an object of another kind asks for."""
_CALLED: Mapping[Kind, str] = {
    "reward": "a reward is called with prompts, completions and columns by name",
    "generator": "a generator is called with count and seed by name",
    "scheduler": "a scheduler is called with a progress",
    "exporter": "an exporter is called with model, out, target and precision by name",
    "rollout": "a rollout is called with model, tokenizer, folder and rows by name",
}
_UNSAID: Any = inspect.Parameter.empty


class OnlyOffers:
    """Finds what installed plugins offer, and runs no code at a place.

    For names that somebody else may have written. Options that name plugins are looked up likewise.
    """

    def __init__(self, plugins: OfferFinder) -> None:
        self._plugins = plugins

    def find(self, kind: Kind, name: str) -> Offer:
        """As the finder that it was made of does."""
        return self._plugins.find(kind, name)


def look_up(
    plugins: OfferFinder, kind: Kind, target: object, options: Mapping[str, Any] | None = None
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
    elif is_place(target.name):
        if isinstance(plugins, OnlyOffers):
            raise ConfigError(
                f"'{target.name}' is code at a place, and only what installed plugins offer is used"
            )
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
        raise ConfigError(f"{built.label} cannot be called; {_a(kind)} is a callable object")
    _refuse_other_kind(kind, built.value, built.label)
    if kind in ("exporter", "rollout") and not callable(getattr(built.value, "refuses", None)):
        raise ConfigError(
            f"{built.label} has no method 'refuses', by which {_a(kind)} says what it cannot do"
        )
    return built


def make(
    plugins: OfferFinder, factory: Callable[..., Any], options: Mapping[str, Any], label: str
) -> Any:
    """Call ``factory`` with ``options``, and before that make those that are plugins themselves.

    :param label: whose factory it is, for messages.
    :raises ConfigError: if a name or an option is unknown, missing or refused.
    :raises PluginError: if the factory fails.
    """
    hints, known = hints_of(factory), describe(factory)
    may_lack = {one.name for one in known if not one.required and one.default is None}
    for one in known:
        if not one.type and _names_plugin(options.get(one.name)):
            raise ConfigError(
                f"{label}: the option '{one.name}' is given a plugin with options, and has no "
                f"annotation that asks for one; write {one.name}: risen_plugin.Scheduler, "
                "Generator, Reward or Exporter"
            )
    composed = {
        option: None
        if value is None and option in may_lack
        else _composed(plugins, hints.get(option), value, f"{label}: {option}")
        for option, value in options.items()
    }
    return build(factory, composed, label)


def _names_plugin(value: object) -> bool:
    """Whether a value is ``{use: NAME, options: {...}}``, which is nothing else by chance."""
    return isinstance(value, Use) or (
        isinstance(value, Mapping) and value.keys() == {"use", "options"}
    )


def _of_python(kind: Kind, value: object) -> Built:
    name = getattr(value, "__name__", type(value).__name__)
    module = _module_of(value)
    return Built(value, name, f"{kind} '{name}' ({module})", module)


def _module_of(value: object) -> str:
    return str(getattr(value, "__module__", type(value).__module__))


# Objects by the place of their code


def is_place(name: str) -> bool:
    """Whether a name is the place of code, ``file.py:NAME`` or ``module:NAME``."""
    return ":" in name or name.endswith(".py")


def offer_at(kind: Kind, place: str) -> Offer:
    """The object, class or function at a place, described as if a plugin offered it.

    :raises ConfigError: if there is nothing of the name.
    """
    used = Use(place)
    where, name, target = _found_at(kind, used)
    is_factory = isinstance(target, type) or (
        inspect.isfunction(target) and _makes_one(kind, target, used)
    )
    return Offer(kind, name, target if is_factory else Ready(target), plugin=where)


def _found_at(kind: Kind, used: Use) -> tuple[str, str, Any]:
    """(file or module, name in it, the thing of this name)."""
    place, _, name = used.name.rpartition(":")
    if not place and not name.endswith(".py"):
        raise ConfigError(
            f"'{used.name}' names no {kind}; write file.py:NAME or module:NAME, or a name that "
            f"`risen {kind}s` lists"
        )
    if not place or not name:
        raise ConfigError(f"'{used.name}' names no {kind} in it; write {place or name}:NAME")
    return place, name, attribute_of(module_at(place), name, place)


def _at_place(plugins: OfferFinder, kind: Kind, used: Use) -> Built:
    place, name, target = _found_at(kind, used)
    label = f"{kind} '{name}' ({place})"
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


def _refuse_other_kind(kind: Kind, value: Callable[..., Any], label: str) -> None:
    """Refuse an object whose signature shows for sure that it is of another kind."""
    try:
        signature = inspect.signature(value)
    except (Exception, SystemExit):  # noqa: BLE001  some builtins have none; others may raise anything
        return
    asked = [name for name, p in signature.parameters.items() if p.default is _UNSAID]
    foreign = next((name for name in asked if name in _FOREIGN[kind]), None)
    if foreign is not None:
        raise ConfigError(f"{label} is no {kind}: it needs '{foreign}'; {_CALLED[kind]}")
    try:
        if kind == "scheduler":
            signature.bind(None)
        else:
            signature.bind_partial(**dict.fromkeys(_ASKED_WITH[kind]))
    except TypeError:
        takes = "a progress alone" if kind == "scheduler" else _list_of(_ASKED_WITH[kind])
        raise ConfigError(f"{label} does not take {takes}; {_CALLED[kind]}") from None


def _a(kind: Kind) -> str:
    return f"an {kind}" if kind == "exporter" else f"a {kind}"


def _list_of(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))


# Options that are plugins themselves


def _composed(plugins: OfferFinder, hint: object, value: object, where: str) -> Any:
    """``value``, or the objects that it names where the annotation asks for plugins."""
    if not _asks_for_plugins(hint):
        return value
    if isinstance(value, str):  # on a command line a list or a mapping is a text
        read = list_or_mapping(value)
        value = value if read is None else read
    choices = _choices(hint)
    kinds: list[Kind] = [kind for kind in map(_kind, choices) if kind is not None]
    kind = kinds[0] if kinds else None
    if kind is not None and isinstance(value, str | Mapping | Use):
        with located(where):
            return look_up(plugins, kind, read_use(value, where)).value
    if isinstance(value, list | tuple):
        for items in map(_items, choices):
            each = items * len(value) if len(items) == 1 else items
            if len(each) == len(value) and any(map(_asks_for_plugins, items)):
                return [
                    _composed(plugins, each[i], item, f"{where}.{i}")
                    for i, item in enumerate(value)
                ]
    if kind is not None and not any(fits(value, one) for one in choices if _kind(one) is None):
        _refuse_unlike(kind, value, where)
    return value


def _refuse_unlike(kind: Kind, value: object, where: str) -> None:
    """Refuse an object in place of a plugin that cannot be one."""
    if isinstance(value, type):
        name = value.__name__
        raise ConfigError(f"{where} is the class {name}; give an object of it: {name}(...)")
    if not callable(value):
        raise ConfigError(
            f"{where} is {value!r:.60}, which cannot be called; {_a(kind)} is a callable object"
        )
    _refuse_other_kind(kind, value, where)


def _choices(hint: object) -> tuple[Any, ...]:
    """The annotations that a value may meet: those of a union, else the one."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _choices(inner[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(choice for one in inner for choice in _choices(one))
    return (hint,)


def _asks_for_plugins(hint: object) -> bool:
    return any(
        _kind(one) is not None or any(map(_asks_for_plugins, _items(one))) for one in _choices(hint)
    )


def _items(hint: object) -> tuple[Any, ...]:
    """The annotations of the items of a sequence: one of them all, or one for each."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if not isinstance(origin, type) or not issubclass(origin, collections.abc.Iterable):
        return ()
    if origin is tuple:
        return inner[:-1] if inner[-1:] == (Ellipsis,) else inner
    return inner if len(inner) == 1 else ()


def _kind(hint: object) -> Kind | None:
    """The kind of plugin that the annotation is."""
    return _KINDS.get(hint) if isinstance(hint, type) else None
