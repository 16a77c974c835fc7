"""The tasks of reasoning-gym, the fields of their configurations, and their levels.

Every use of the package is here, and it is loaded no earlier than needed. A wrong task or setting
is refused in one line.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
from collections.abc import Mapping
from typing import Any

from risen_plugin import RisenError
from risen_plugin.errors import ConfigError, near_miss
from risen_reasoning_gym.isolation import isolated

CHUNK = 500  # items per dataset, reasoning-gym's own default: some tasks prepare them all at once
_OURS = ("seed", "size")  # fields that follow from the run
_NOT_ALONE = {"composite": "it only mixes other tasks; list those"}
_BY_HASH = frozenset(
    ("isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder")
)  # seen with 0.1.25: they walk through sets of strings, whose order Python salts per process


def version() -> str:
    """The version of reasoning-gym that is installed."""
    return str(importlib.import_module("reasoning_gym").__version__)


def task_names() -> list[str]:
    """Every task that can be drawn from."""
    return sorted(set(_factory().DATASETS) - set(_NOT_ALONE))


def check_task(task: str) -> None:
    """Refuse a task that is unknown or cannot keep to its seed.

    :raises ConfigError: with the near miss, or with a way out.
    """
    if task in _NOT_ALONE:
        raise ConfigError(f"the task '{task}' cannot be drawn from: {_NOT_ALONE[task]}")
    known = task_names()
    if task not in known:
        raise ConfigError(
            f"reasoning-gym {version()} has no task '{task}'{near_miss(task, known)}; "
            f"it has {len(known)} of them"
        )
    if task in _BY_HASH and not os.environ.get("PYTHONHASHSEED", "random").isdecimal():
        raise ConfigError(
            f"the task '{task}' makes other rows in each process, so a run could not be resumed; "
            "set PYTHONHASHSEED=0 in the environment, or leave the task out"
        )


def check_config(task: str, config: Mapping[str, Any]) -> None:
    """Refuse unknown fields and values for the configuration of ``task``.

    :raises ConfigError: with the near miss or the task's own words.
    """
    known = [field.name for field in dataclasses.fields(_config_class(task))]
    offered = [name for name in known if name not in _OURS]
    for name in config:
        if name in _OURS:
            raise ConfigError(f"config of '{task}': '{name}' follows from the run; leave it out")
        if name not in known:
            raise ConfigError(
                f"config of '{task}' has no field '{name}'{near_miss(str(name), offered) or '.'} "
                f"It has: {', '.join(offered) or 'none'}"
            )
    try:
        json.dumps(dict(config), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config of '{task}' holds what JSON cannot: {error}") from error
    _settings(task, config, None)


def levels_of(task: str, config: Mapping[str, Any]) -> list[int]:
    """The levels of the task's curriculum that agree with ``config``; empty if there are none."""
    if task not in _factory().CURRICULA:
        return []
    attributes = _factory().create_curriculum(task).attributes.values()
    count = max((len(attribute.levels) for attribute in attributes), default=0)
    return [level for level in range(count) if _agrees(task, config, level)]


@functools.lru_cache(maxsize=256)
def dataset(task: str, config: str, level: int | None, seed: int) -> Any:
    """``CHUNK`` items of a task; the same arguments give the same items.

    :param config: fields of the task's configuration as JSON.
    :param level: of the task's curriculum, below ``config``; None for the task's own defaults.
    """
    settings = _settings(task, json.loads(config), level, seed)
    return _factory().DATASETS[task][0](settings)


def _agrees(task: str, config: Mapping[str, Any], level: int) -> bool:
    try:
        _settings(task, config, level)
    except RisenError:
        return False
    return True


def _settings(task: str, config: Mapping[str, Any], level: int | None, seed: int = 0) -> Any:
    ours = {"seed": seed, "size": CHUNK}
    try:
        if level is None:
            settings = _config_class(task)(**{**ours, **config})
        else:
            curriculum = _factory().create_curriculum(task)
            curriculum.set_global_level(level)
            settings = dataclasses.replace(curriculum.generate_configuration(ours), **config)
        if hasattr(settings, "validate"):
            settings.validate()
    except (AssertionError, TypeError, ValueError) as error:
        at = "" if level is None else f" at level {level}"
        reason = " ".join(str(error).split()) or "its values do not agree with one another"
        raise ConfigError(f"config of '{task}'{at}: {reason}") from error
    return settings


def _config_class(task: str) -> Any:
    return _factory().DATASETS[task][1]


@functools.cache
def _factory() -> Any:
    with isolated(0):  # one of its modules draws a number when it is loaded
        return importlib.import_module("reasoning_gym.factory")
