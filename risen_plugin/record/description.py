"""Describe a run for its record: its configuration and plugins, versions, machine and hashes.

Pure but for reading the environment. Two descriptions are compared when a run is resumed; objects
from Python are compared by their representation.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from risen_plugin.config import RisenConfig
from risen_plugin.contracts import Stateful
from risen_plugin.kit.files import text_sha256

LIBRARIES = (
    "risen-plugin",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "numpy",
    "pyarrow",
)
_OF_ONE_START = ("format", "output_dir")  # make no other run of a description


def environment_of(
    description: Mapping[str, Any],
    *,
    distributions: Iterable[str],
    held_out: Mapping[str, Sequence[Any]],
    probe: Sequence[Any],
    devices: Sequence[str],
) -> dict[str, Any]:
    """``versions``, ``hashes`` and ``environment`` as ``run.json`` has them.

    :param description: the run's configuration, as its record has it.
    :param distributions: those of the plugins in use.
    :param held_out: the rows set apart, by their purpose.
    :param probe: the rows whose loss is watched, as they are measured.
    :param devices: the names of those that the model is on.
    """
    configured = {key: value for key, value in description.items() if key not in _OF_ONE_START}
    return {
        "versions": versions_of((*LIBRARIES, *sorted(set(distributions) - set(LIBRARIES)))),
        "hashes": {
            "config": hash_of(configured),
            "held_out": hash_of({name: list(rows) for name, rows in held_out.items()}),
            "probe": hash_of(list(probe)),
        },
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": os.cpu_count() or 1,
            "devices": list(devices),
            "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def hash_of(value: object) -> str:
    """A SHA-256 that is the same for equal data, in any order of its keys.

    The address of an object in memory, which its ``repr`` may hold, does not count.
    """
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", json.dumps(value, sort_keys=True, default=repr))
    return text_sha256(text)


def model_of(model: Any) -> dict[str, str]:
    """``name`` and ``class`` of a model: where it was loaded from, and its architecture's class.

    The name is that of the base model where adapters lie on it, of which ``adapter`` is the one
    that is trained; a model that was built from a config alone has none.
    """
    is_adapted = hasattr(model, "get_base_model")
    base = model.get_base_model() if is_adapted else model
    name = str(getattr(base, "name_or_path", "") or "")
    adapter = getattr(model, "active_adapter", None) if is_adapted else None
    return {
        **({"name": name} if name else {}),
        "class": type(base).__name__,
        **({"adapter": adapter} if isinstance(adapter, str) else {}),
    }


def since_first_start(description: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a resumed run: ``begun`` stays as it was, and ``resumed`` says since when.

    :param earlier: the description that the run had before.
    """
    environment = description.get("environment")
    before = earlier.get("environment")
    begun = before.get("begun") if isinstance(before, Mapping) else None
    if not isinstance(environment, Mapping) or not begun:
        return dict(description)
    dates = {"begun": begun, "resumed": environment.get("begun")}
    return {**description, "environment": {**environment, **dates}}


def device_names(model: Any) -> list[str]:
    """The devices that a model's parameters are on, in words."""
    names: dict[str, None] = {}
    for parameter in model.parameters():
        device = parameter.device
        name = str(device)
        if device.type == "cuda":
            torch: Any = importlib.import_module("torch")
            name = f"{device}: {torch.cuda.get_device_name(device)}"
        names[name] = None
    return list(names)


def versions_of(distributions: Iterable[str]) -> dict[str, str]:
    """The versions of those of the distributions that are installed."""
    versions: dict[str, str] = {}
    for name in distributions:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


_FREE = frozenset(
    (
        "checkpoint_before_phase",
        "checkpoint_every",
        "force",
        "keep_entry",
        "disable",
        "upload_record",
    )
)
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


def without_address(value: object) -> str:
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


def _walk(name: str, old: object, new: object) -> list[tuple[str, Any, Any]]:
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


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _plain(value: object) -> Any:
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
