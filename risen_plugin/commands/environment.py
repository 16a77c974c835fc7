"""``risen env``: the versions that a bug report needs, and nothing that is private.

Of environment variables only those listed here are shown, and no path, user or host.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import click

from risen_plugin import __version__
from risen_plugin.commands.options import json_option
from risen_plugin.hookspecs import hookimpl
from risen_plugin.kit.foreign import say
from risen_plugin.plugins import Plugins

_OURS = "risen-plugin"
_BESIDE = (
    "bitsandbytes",
    "deepspeed",
    "vllm",
    "liger-kernel",
    "flash-attn",
    "tensorboard",
    "wandb",
)
_NOT_RUN = ("docs", "test")
_VARIABLES = (
    "ACCELERATE_MIXED_PRECISION",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "RANK",
    "RISEN_DISABLED_PLUGINS",
    "RISEN_STRICT_PLUGINS",
    "TOKENIZERS_PARALLELISM",
    "TRANSFORMERS_OFFLINE",
    "WORLD_SIZE",
)


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(env_command)


@click.command("env")
@json_option()
@click.pass_obj
def env_command(installed: Plugins, *, as_json: bool) -> None:
    """Print the versions and the machine, to go with a bug report.

    It shows no path, name of a user or a host, or token.
    """
    data = {
        "risen-plugin": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        **_accelerators(),
        "libraries": dict(_versions()),
        "plugins": {
            info.name: "left out" if info.left_out else f"{info.distribution} {info.version}"
            for info in installed.infos()
            if info.distribution != _OURS
        },
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    say(json.dumps(data, indent=2) if as_json else "\n".join(_lines(data)))


def _lines(data: Mapping[str, Any]) -> Iterator[str]:
    for name, value in data.items():
        if not isinstance(value, Mapping):
            yield f"{name}: {value}"
            continue
        yield f"{name}:{'' if value else ' none'}"
        yield from (f"  {inner}: {one}" for inner, one in value.items())


def _versions() -> Iterator[tuple[str, str]]:
    """The installed version of each library that we require, or that a run may meet."""
    try:
        required = metadata.requires(_OURS) or []
    except metadata.PackageNotFoundError:  # run from its source
        required = []
    used = [text for text in required if not any(f'"{extra}"' in text for extra in _NOT_RUN)]
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in used]
    for name in dict.fromkeys([*names, *_BESIDE]):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            if name not in _BESIDE:
                yield name, "not installed"


def _accelerators() -> dict[str, Any]:
    """The devices that torch can use."""
    try:
        torch = importlib.import_module("torch")
        cuda = torch.cuda
        devices = [cuda.get_device_name(index) for index in range(cuda.device_count())]
        if devices:
            return {"accelerators": ", ".join(devices), "cuda": torch.version.cuda}
        has_mps = torch.backends.mps.is_available()
    except Exception as error:  # noqa: BLE001  a broken torch is what the report may be about
        return {"accelerators": f"unknown, torch fails: {type(error).__name__}"}
    return {"accelerators": "mps" if has_mps else "none"}
