"""Describe the parts of a run, and list the differences of one that is resumed.

Pure. Compares the configuration, plugins by name, options and version, and objects from Python by
their representation.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from risen_plugin.config import RisenConfig
from risen_plugin.contracts import Stateful
from risen_plugin.kit.files import text_sha256

_FREE = frozenset(("checkpoint_before_phase", "checkpoint_every", "force", "keep_entry", "disable"))
"""Fields that do not change the result of a run."""
_LONGEST_REPR = 400
_LONGEST_SHOWN = 60


def made_of(config: RisenConfig, origins: Mapping[str, str], version: str) -> dict[str, Any]:
    """Everything that decides the result of a run, as JSON values."""
    fields = {
        entry.name: _plain(getattr(config, entry.name))
        for entry in dataclasses.fields(config)
        if entry.name not in _FREE
    }
    if isinstance(fields["probe"], list):
        fields["probe"] = text_sha256(json.dumps(fields["probe"]))[:20]
    return {**fields, "plugins": dict(origins), "risen_plugin": version}


def without_address(value: Any) -> str:
    """The representation of an object, the same in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences, one short line each; a key that only one of them has does not count."""
    return [
        f"{name} was {_shown(old)} and is {_shown(new)}"
        for key in before
        if key in now
        for name, old, new in _walk(key, before[key], now[key])
    ]


def _walk(name: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = {**old, **new}
        return [
            difference
            for key in keys
            for difference in _walk(f"{name}.{key}", old.get(key), new.get(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [
            difference for index, (a, b) in pairs for difference in _walk(f"{name}.{index}", a, b)
        ]
    return [(name, old, new)]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(entry) for entry in value]
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("risen_plugin."):
        fields = dataclasses.fields(value)
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields}
    return _object(value)


def _object(value: Any) -> str:
    """An object by its name, and by its representation where that shows no state."""
    kind = value if hasattr(value, "__qualname__") else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind is value or isinstance(value, Stateful):
        return name
    return f"{name}: {without_address(value)[:_LONGEST_REPR]}"
