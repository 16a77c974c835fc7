"""Import code that a person names by its place: ``file.py:NAME`` or ``module:NAME``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from risen_plugin.errors import ConfigError, near_beside, near_miss, typed_line
from risen_plugin.kit.foreign import contained


def attribute_of(module: ModuleType, attribute: str, place: str) -> Any:
    """The attribute of a module under a name, dots included.

    :param place: how the person called the module, for messages.
    :raises ConfigError: naming the near miss, if there is no such thing, or it cannot be read.
    """
    said = f"'{attribute}' of {place} cannot be read"
    with contained(lambda error: ConfigError(f"{said}: {typed_line(error)}")):
        return _attribute_of(module, attribute, place)  # it may answer with code of its own


def _attribute_of(module: ModuleType, attribute: str, place: str) -> Any:
    value: Any = module
    for name in attribute.split("."):
        if not hasattr(value, name):
            known = [known for known in dir(value) if _may_be_meant(value, known)]
            raise ConfigError(
                f"{place} has no '{attribute}'{near_miss(name, known) or '.'} "
                f"It has: {', '.join(known) or 'nothing'}"
            )
        value = getattr(value, name)
    return value


def _may_be_meant(value: object, name: str) -> bool:
    """Whether it is public, callable and, in a module, defined there."""
    member = getattr(value, name, None)
    is_defined_here = (
        not isinstance(value, ModuleType) or getattr(member, "__module__", None) == value.__name__
    )
    return is_defined_here and callable(member) and not name.startswith("_")


def module_at(place: str) -> ModuleType:
    """The module in a file or by name; modules beside it can be imported, as from a script.

    :raises ConfigError: if there is none, or it cannot be imported.
    """
    path = Path(place)
    is_file = place.endswith(".py")
    if is_file and not path.is_file():
        beside = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ConfigError(f"there is no file '{place}'{near_beside(path, beside)}")
    folder = str(path.resolve().parent) if is_file else os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    said = f"the {'file' if is_file else 'module'} '{place}' cannot be imported"
    with contained(lambda error: ConfigError(f"{said}: {typed_line(error)}"), passes=None):
        return _from_file(path) if is_file else importlib.import_module(place)


def _from_file(path: Path) -> ModuleType:
    """Import ``path`` under its own name where that is free, so that its objects can be pickled."""
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return known
    if known is not None or importlib.util.find_spec(name) is None:
        name = f"risen_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # leaves nothing beside it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.dont_write_bytecode = writes
    return module
