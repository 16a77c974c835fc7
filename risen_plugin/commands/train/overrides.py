"""Change values of a mapping by ``a.b=value``, as the command line's ``--set`` does."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from risen_plugin.commands.options import parse_options
from risen_plugin.config.choices import GRADING
from risen_plugin.errors import ConfigError, one_line
from risen_plugin.kit.yaml_files import read_yaml

_SOURCES = ("data", "evaluation")
_OF_SOURCES = ("path", "dataset", "split", "columns", "limit")
_PLUGINS = ("generator", "scheduler", "held_out", "quality", "reward", "domain")
_OF_PLUGINS = ("use", "options")


def overridden(data: Mapping[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """``data`` with the values that ``pairs`` set; the original stays as it is.

    A value is read as YAML reads it, lists and mappings included; a mapping that is not there is
    made, and a number in the path is an index of a list. A bare name of a plugin, or of a file of
    rows, becomes the mapping that it is short for.

    >>> overridden({"rewards": ["exact"]}, ["grpo.beta=0.04", "rewards.0=regex"])
    {'rewards': ['regex'], 'grpo': {'beta': 0.04}}
    >>> overridden({"rewards": ["exact"]}, ["rewards.0.weight=2"])
    {'rewards': [{'use': 'exact', 'weight': 2}]}

    :raises ConfigError: for a pair without a value or a path that leads through a plain value.
    """
    changed = copy.deepcopy(dict(data))
    for pair in pairs:
        path, equals, text = pair.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set '{pair}' sets nothing; write --set name=value or a.b=value")
        _put(changed, keys, _value(text, pair), pair)
    return changed


def _put(data: dict[str, Any], keys: Sequence[str], value: object, pair: str) -> None:
    node: Any = data
    for depth, key in enumerate(keys):
        is_last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                where = ".".join(keys[:depth])
                raise ConfigError(
                    f"--set '{pair}': {where} is a list of {len(node)}; name a place from 0 to "
                    f"{len(node) - 1}"
                )
            if is_last:
                node[int(key)] = value
                return
            _unfold(node, int(key), keys, depth)
            node = node[int(key)]
            continue
        if not isinstance(node, dict):
            where = ".".join(keys[:depth])
            raise ConfigError(
                f"--set '{pair}': {where} is {node!r:.40} and holds no '{key}'; set {where} itself"
            )
        if is_last:
            node[key] = value
            return
        if node.get(key) is None:
            node[key] = {}
        _unfold(node, key, keys, depth)
        node = node[key]


def _unfold(node: Any, key: str | int, keys: Sequence[str], depth: int) -> None:
    """Turn a bare name at ``node[key]`` into its mapping, where the path goes on into that."""
    if not isinstance(node[key], str):
        return
    is_source = keys[depth] in _SOURCES and depth == 0
    is_reward = depth > 0 and keys[depth - 1] == "rewards" and isinstance(key, int)
    is_plugin = is_reward or keys[depth] in _PLUGINS or "options" in keys[:depth]
    if is_source and keys[depth + 1] in _OF_SOURCES:
        node[key] = {"path": node[key]}
    elif is_plugin and keys[depth + 1] in (*_OF_PLUGINS, *(GRADING if is_reward else ())):
        node[key] = {"use": node[key]}


def _value(text: str, pair: str) -> Any:
    if text.strip()[:1] not in ("[", "{"):
        return parse_options([f"value={text}"])["value"]
    import yaml

    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        line = one_line(error)
        raise ConfigError(f"--set '{pair}' is not valid YAML: {line}") from error
