"""Licence and provenance: what a model card, a licence file and an installed package say.

Read here as text; where the files come from is the business of ``merging``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

CARD = "README.md"
MOST_BYTES = 1024 * 1024
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md")
"""Names of files that have to go with the weights they are about."""
_FIELDS = ("license", "license_name", "license_link", "language", "base_model", "datasets")
_LONGEST = 200
_PACKAGE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*) (\S+)$")


def card_of(text: str) -> dict[str, Any]:
    """Licence, language, base models and data sets from the head of a model card; {} if none."""
    found = re.match(r"^---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    if found is None:
        return {}
    try:
        head = yaml.safe_load(found[1])
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    if not isinstance(head, Mapping):
        return {}
    return {key: plain for key in _FIELDS if (plain := _plain(head.get(key))) is not None}


def read_card(path: Path) -> dict[str, Any]:
    """As :func:`card_of`, of a file; {} if there is none or it cannot be read."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return {}
        return card_of(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def packages(origins: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """Version and licence of the distributions in texts such as ``risen-judge 0.1``.

    :return: ``{name: {"version": ..., "license": ...}}``; the licence is None where the
        distribution names none, or is not installed here any more.
    """
    found = {}
    for origin in origins:
        match = _PACKAGE.match(origin)
        if match:
            found[match[1]] = {"version": match[2], "license": licence_of(match[1])}
    return dict(sorted(found.items()))


def licence_of(distribution: str) -> str | None:
    """The licence that an installed distribution names, in its own words; None if it names none."""
    try:
        fields = metadata.metadata(distribution)
    except (metadata.PackageNotFoundError, ValueError):
        return None
    named = next((fields[key] for key in ("License-Expression", "License") if key in fields), None)
    if named and len(named) <= _LONGEST and "\n" not in named:
        return named
    kinds = [
        text.split(" :: ")[-1]
        for text in fields.get_all("Classifier") or []
        if text.startswith("License :: ")
    ]
    return ", ".join(kinds) or None


def _plain(value: Any) -> str | list[str] | None:
    if isinstance(value, str):
        return value[:_LONGEST] or None
    if isinstance(value, list):
        texts = [one[:_LONGEST] for one in value[:50] if isinstance(one, str) and one]
        return texts or None
    return None
