"""The environment of a run for its record: versions, the machine, and hashes to compare runs by."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

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


def hash_of(value: Any) -> str:
    """A SHA-256 that is the same for equal data, in any order of its keys.

    The address of an object in memory, which its ``repr`` may hold, does not count.
    """
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", json.dumps(value, sort_keys=True, default=repr))
    return text_sha256(text)


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
