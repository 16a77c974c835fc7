"""The files of a plugin that is new: a package with a hook, an entry point, tests and a README."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from risen_plugin import __version__
from risen_plugin.commands.new.filling import filled
from risen_plugin.errors import ConfigError
from risen_plugin.plugins import Kind

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_BEFORE = "risen-"


def plugin_name(text: str, taken: Sequence[str]) -> str:
    """The name of a plugin's offer, which its package is called after.

    >>> plugin_name("risen-polite", ["length"])
    'polite'

    :param taken: the names of offers of its kind that are installed.
    :raises ConfigError: for what is no such name, or is taken.
    """
    name = text.removeprefix(_BEFORE)
    if not _NAME.fullmatch(name):
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        hint = f"; did you mean '{better}'?" if _NAME.fullmatch(better) else "."
        raise ConfigError(
            f"'{text}' cannot be the name of a plugin{hint} It has small letters, digits and "
            "hyphens, and begins with a letter"
        )
    if name in taken:
        raise ConfigError(f"'{name}' is offered already; name the plugin otherwise")
    return name


def plugin_files(kind: Kind, name: str, folder: Path) -> dict[Path, str]:
    """The text of each file of a plugin that offers one of the kind.

    :param name: of the offer; see :func:`plugin_name`.
    """
    module = f"risen_{name.replace('-', '_')}"
    words = {
        "kind": kind,
        "name": name,
        "distribution": f"{_BEFORE}{name}",
        "module": module,
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "constant": name.replace("-", "_").upper(),
        "version": ".".join(__version__.split(".")[:2]),
    }
    return {
        folder / "pyproject.toml": filled("pyproject.toml", words),
        folder / "README.md": filled("README.md", {**words, "use": filled(f"use_{kind}", words)}),
        folder / f"{module}.py": filled(f"{kind}.py", words),
        folder / "tests" / f"test_{module}.py": filled(f"test_{kind}.py", words),
    }
