"""Change values of a mapping by ``a.b=value``, as the command line's ``--set`` does."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from risen_plugin.commands.options import parse_options
from risen_plugin.errors import ConfigError, one_line


def overridden(data: Mapping[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """``data`` with the values that ``pairs`` set; the original stays as it is.

    A value is read as YAML reads it, lists and mappings included; a mapping that is not there is
    made, and a number in the path is an index of a list.

    >>> overridden({"rewards": ["exact"]}, ["grpo.beta=0.04", "rewards.0=regex"])
    {'rewards': ['regex'], 'grpo': {'beta': 0.04}}

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
        node = node[key]


def _value(text: str, pair: str) -> Any:
    if text.strip()[:1] not in ("[", "{"):
        return parse_options([f"value={text}"])["value"]
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = one_line(error)
        raise ConfigError(f"--set '{pair}' is not valid YAML: {line}") from error
