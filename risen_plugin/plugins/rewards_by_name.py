"""Find the reward that a command line means: an offered name, or code in a file or module.

Options come as ``name=value`` and are read as YAML reads a scalar, so that the same words mean the
same as in a configuration.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from risen_plugin.errors import ConfigError
from risen_plugin.plugins import Plugins
from risen_plugin.plugins.lookup import attribute_of, module_at
from risen_plugin.plugins.options import build
from risen_plugin.rewards.adherence import NamedReward, wrap

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?e[-+]?\d+", re.IGNORECASE)  # YAML 1.1 reads it as text


def resolve(
    text: str, options: Mapping[str, Any] | None = None, plugins: Plugins | None = None
) -> NamedReward:
    """The reward that ``text`` names, made with ``options``.

    :param text: a name that a plugin offers, or ``path.py:attribute`` or ``module:attribute``. The
        attribute is a reward, or a class or function that makes one from the options: whatever does
        not take ``completions`` is taken for a maker.
    :param plugins: where to look names up; the installed ones if None.
    :raises ConfigError: if there is no such reward, or it does not take the options.
    :raises PluginError: if it cannot be made.
    """
    options = options or {}
    place, colon, attribute = text.rpartition(":")
    if colon and place and attribute:
        label = f"reward '{attribute}' ({place})"
        found = attribute_of(module_at(place), attribute, place)
        return _named(_made(found, options, label), attribute, label)
    if text.endswith(".py") or (text.endswith(":") and text != ":"):
        raise ConfigError(f"'{text}' names no reward in it; write {text.rstrip(':')}:NAME")
    plugins = plugins or Plugins.load()
    offer = plugins.find("reward", text)
    return _named(plugins.build("reward", text, options), offer.name, offer.label)


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options from ``name=value`` pairs; what is no YAML scalar is a text.

    >>> parse_options(["low=20", "partial=false", "pattern=[a-z]+", "slack=1e-1"])
    {'low': 20, 'partial': False, 'pattern': '[a-z]+', 'slack': 0.1}

    :raises ConfigError: for a pair without ``=`` or name, and for a name given twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"the option '{pair}' has no value; write name=value")
        if name in options:
            raise ConfigError(f"the option '{name}' is given twice")
        options[name] = _scalar(value)
    return options


def _scalar(text: str) -> Any:
    import yaml

    if _EXPONENT.fullmatch(text.strip()):
        return float(text)
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that there is not
        return text
    if isinstance(value, str):
        return value if text.strip()[:1] in ("'", '"') else text
    is_plain = value is None or isinstance(value, bool | int | float)
    return value if is_plain and "#" not in text else text  # no comments on a command line


def _named(reward: Any, name: str, label: str) -> NamedReward:
    if isinstance(reward, type):
        raise ConfigError(f"{label} is a class; a reward is an object of it")
    if not callable(reward):
        raise ConfigError(f"{label} cannot be called; a reward is a callable object")
    return wrap(reward, name, label)


def _made(found: Any, options: Mapping[str, Any], label: str) -> Any:
    if isinstance(found, type) or (inspect.isfunction(found) and not _takes_completions(found)):
        return build(found, options, label)
    if options:
        raise ConfigError(
            f"{label} is a reward already and takes no options; name a class or function that "
            "makes one from them"
        )
    return found


def _takes_completions(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters
    return "completions" in parameters or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()
    )
