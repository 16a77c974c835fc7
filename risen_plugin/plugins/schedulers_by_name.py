"""Find the scheduler that a command line means: an offered name, code, or a configuration.

Options come as ``name=value``; those of a scheduler inside another as ``scheduler.name=value``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from risen_plugin.contracts import Scheduler
from risen_plugin.errors import ConfigError, near_miss, one_line
from risen_plugin.plugins import Plugins
from risen_plugin.plugins.build import build_offer
from risen_plugin.plugins.lookup import attribute_of, module_at
from risen_plugin.plugins.options import build
from risen_plugin.plugins.rewards_by_name import parse_options

_YAML = (".yaml", ".yml")


def resolve_scheduler(
    text: str, pairs: Sequence[str] = (), plugins: Plugins | None = None
) -> tuple[Scheduler, str]:
    """The scheduler that ``text`` names, and whose it is in words.

    :param text: a name that a plugin offers; ``path.py:NAME`` or ``module:NAME``, a scheduler or
        what makes one from options; or a YAML file with a ``scheduler``, as a configuration has it.
    :param pairs: options as ``name=value``.
    :raises ConfigError: if there is no such scheduler, or it does not take the options.
    """
    plugins = plugins or Plugins.load()
    options = nested(parse_options(pairs))
    if text.endswith(_YAML):
        return _from_yaml(Path(text), options, plugins)
    place, colon, attribute = text.rpartition(":")
    if colon and place and attribute:
        label = f"scheduler '{attribute}' ({place})"
        found = attribute_of(module_at(place), attribute, place)
        return _checked(_made(found, options, label), label)
    if text.endswith(".py") or text.endswith(":"):
        raise ConfigError(f"'{text}' names no scheduler in it; write {text.rstrip(':')}:NAME")
    offer = plugins.find("scheduler", text)
    return _checked(build_offer(plugins, "scheduler", text, options), offer.label)


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of options, told with dots, as ``{use: ..., options: {...}}`` has them.

    >>> nested({"seconds": 60, "scheduler": "after", "scheduler.steps": 20})
    {'seconds': 60, 'scheduler': {'use': 'after', 'options': {'steps': 20}}}

    :raises ConfigError: for options of what is not named.
    """
    plain = {name: value for name, value in options.items() if "." not in name}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        outer, dot, rest = name.partition(".")
        if dot:
            inner.setdefault(outer, {})[rest] = value
    for outer, given in inner.items():
        if not isinstance(plain.get(outer), str):
            hint = near_miss(outer, plain)
            raise ConfigError(
                f"'{outer}.{next(iter(given))}' is an option of {outer}, which is not named{hint}; "
                f"add -o {outer}=NAME"
            )
        plain[outer] = {"use": plain[outer], "options": nested(given)}
    return plain


def _from_yaml(path: Path, options: Mapping[str, Any], plugins: Plugins) -> tuple[Scheduler, str]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {one_line(error)}") from error
    places = [data, data.get("risen")] if isinstance(data, Mapping) else []
    for place in places:
        if isinstance(place, Mapping) and place.get("scheduler") is not None:
            given = place["scheduler"]
            break
    else:
        raise ConfigError(f"{path} has no 'scheduler'; it is a configuration, or a part of one")
    if isinstance(given, str):
        given = {"use": given}
    if not isinstance(given, Mapping) or not isinstance(given.get("use"), str):
        raise ConfigError(f"{path}: scheduler is {given!r:.60}; it is {{use: NAME, options: ...}}")
    for key in given:
        if key not in ("use", "options"):
            hint = near_miss(str(key), ("use", "options")) or "."
            raise ConfigError(f"{path}: scheduler has no key '{key}'{hint} It takes: options, use")
    own = given.get("options") or {}
    if not isinstance(own, Mapping):
        raise ConfigError(f"{path}: scheduler.options is not a mapping of names to values")
    offer = plugins.find("scheduler", given["use"])
    made = build_offer(plugins, "scheduler", given["use"], {**own, **options})
    return _checked(made, offer.label)


def _made(found: Any, options: Mapping[str, Any], label: str) -> Any:
    if isinstance(found, type) or (inspect.isfunction(found) and _makes_one(found, options)):
        return build(found, options, label)
    if options:
        raise ConfigError(
            f"{label} is a scheduler already and takes no options; name a class or function that "
            "makes one from them"
        )
    return found


def _makes_one(function: Any, options: Mapping[str, Any]) -> bool:
    """Whether a function makes a scheduler and is none: a scheduler needs one thing, a progress."""
    needed = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    return len(needed) != 1 or needed[0] in options


def _checked(made: Any, label: str) -> tuple[Scheduler, str]:
    if isinstance(made, type):
        raise ConfigError(f"{label} is a class; a scheduler is an object of it")
    if not callable(made):
        raise ConfigError(f"{label} cannot be called; a scheduler is a callable object")
    scheduler: Any = made
    return scheduler, label
