"""Fill in the templates that come with the package. Loads nothing heavy."""

from __future__ import annotations

import string
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from risen_plugin.errors import ConfigError
from risen_plugin.kit.files import write_text

_FOLDER = "templates"


def filled(template: str, words: Mapping[str, object]) -> str:
    """The text of a template with ``$name`` replaced by the word of this name."""
    file = resources.files("risen_plugin.commands.new").joinpath(_FOLDER, f"{template}.tmpl")
    return string.Template(file.read_text(encoding="utf-8")).substitute(words)


def write_new(files: Mapping[Path, str]) -> None:
    """Write files that are not there yet, and the folders that they are in.

    :raises ConfigError: before any is written, if one is there; and if one cannot be written.
    """
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} is there already; name another place, or remove it")
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
