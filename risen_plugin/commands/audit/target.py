"""Find the reward that a command names: one on offer, or a stranger's in a module or a file."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from risen_plugin.errors import ConfigError, near_miss, one_line
from risen_plugin.plugins import Plugins
from risen_plugin.plugins.options import build


@dataclass(frozen=True)
class Source:
    """Where a reward comes from, so that another process can make it too.

    :param name: ``name``, ``plugin/name``, ``module:attribute`` or ``path.py:attribute``.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self, plugins: Plugins | None = None) -> tuple[Callable[..., Any], str]:
        """The reward, and its label as messages name it.

        :raises ConfigError: if it cannot be found, imported, built or called.
        """
        place, colon, attribute = self.name.rpartition(":")
        if not colon:
            offer = (plugins or Plugins.load()).find("reward", self.name)
            return build(offer.factory, self.options, offer.label), offer.label
        label = f"reward '{attribute}' ({place})"
        found = _attribute(_module(place), attribute, place)
        if isinstance(found, type) or self.options:
            found = build(found, self.options, label)
        if not callable(found):
            raise ConfigError(f"{label} is a {type(found).__name__} and cannot be called")
        return found, label


def _attribute(module: Any, name: str, place: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [known for known in vars(found) if not known.startswith("_")]
            raise ConfigError(
                f"{place} has no attribute '{part}'{near_miss(part, known) or '.'} "
                f"It has: {', '.join(known) or 'none'}"
            )
        found = getattr(found, part)
    return found


def _module(place: str) -> Any:
    if not place:
        raise ConfigError("write module:attribute or path.py:attribute")
    try:
        if place.endswith(".py") or "/" in place:
            return _from_file(Path(place))
        if "" not in sys.path:
            sys.path.insert(0, "")  # as `python -m` finds modules of this folder
        return importlib.import_module(place)
    except ConfigError:
        raise
    except Exception as error:  # whatever a stranger's module raises while it is imported
        told = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"cannot import {place}: {told}") from error


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    path = path.resolve()
    name = re.sub(r"\W", "_", path.stem)
    loaded = sys.modules.get(name)
    if loaded is not None:
        if getattr(loaded, "__file__", None) == str(path):
            return loaded
        name = f"audited_{name}"  # another module has this name already
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # for the modules beside it
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where pickle and dataclasses look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
