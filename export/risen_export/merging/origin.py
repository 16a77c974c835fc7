"""What the model, its adapters and its run say of themselves: cards, licences, packages, data.

Small text files are read from folders or from the hub. What is missing is left out: it is told to
whoever gets the bundle, and decides nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from risen_export.bundles.licences import (
    CARD,
    LICENCE_FILES,
    MOST_BYTES,
    packages,
    read_card,
)
from risen_export.merging.source import Source, hub_file, public_name
from risen_plugin.errors import DataError
from risen_plugin.record.reading import read_description
from risen_plugin.record.run_record import DESCRIPTION, FOLDER


def origin_of(source: Source) -> dict[str, Any]:
    """Entries for the manifest: ``card``, ``adapter_cards``, ``run_model`` and ``packages``.

    ``card`` is what the base model's card says; ``packages`` the distributions that the run's
    rewards and other parts came from, with their licences.
    """
    assert source.model is not None
    found: dict[str, Any] = {"card": _card(source.model, source.revision)}
    cards = {public_name(name): _card(name) for name in source.adapters}
    found["adapter_cards"] = {name: card for name, card in cards.items() if card}
    if source.run is not None and (source.run / FOLDER / DESCRIPTION).is_file():
        try:
            record = read_description(source.run / FOLDER)
        except DataError:
            return {key: value for key, value in found.items() if value}
        plugins = record.get("plugins")
        origins = list(plugins.values()) if isinstance(plugins, dict) else plugins or []
        found["packages"] = packages(one for one in origins if isinstance(one, str))
        found["run_model"] = record.get("model")
        found["data"] = {key: record["hashes"][key] for key in _data_keys(record)}
    return {key: value for key, value in found.items() if value}


def copy_licences(source: Source, out: Path) -> list[str]:
    """Put the base model's licence files into ``out``, beside the weights; their names."""
    assert source.model is not None
    copied = []
    for name in LICENCE_FILES:
        path = _file(source.model, name, source.revision)
        if path is not None and path.stat().st_size <= MOST_BYTES:
            shutil.copyfile(path, out / name)
            copied.append(name)
    return copied


def _data_keys(record: Mapping[str, Any]) -> list[str]:
    hashes = record.get("hashes")
    return [key for key in ("held_out", "probe") if isinstance(hashes, dict) and key in hashes]


def _card(name: str, revision: str | None = None) -> dict[str, Any]:
    path = _file(name, CARD, revision)
    return {} if path is None else read_card(path)


def _file(name: str, file: str, revision: str | None = None) -> Path | None:
    folder = Path(name).expanduser()
    if folder.is_dir():
        path = folder / file
        return path if path.is_file() else None
    return hub_file(name, file, revision)
