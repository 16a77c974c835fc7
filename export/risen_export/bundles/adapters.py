"""The adapters that lie beside the graphs of a bundle: their entries in the manifest, their files.

``OUT/adapters/NAME.onnx_adapter`` serves every variant of ``OUT``. The manifest at the root names
each with its hash; adding or removing one changes that manifest, the list in the README and the
folder ``adapters`` alone. Whoever does it holds others off with ``changing``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from risen_export.bundles import card, javascript, manifest
from risen_export.bundles.hashes import sha256_of
from risen_export.bundles.lora import Lora
from risen_export.bundles.opening import verified
from risen_plugin.errors import ExportError, near_miss
from risen_plugin.kit.files import sha256

FOLDER = "adapters"
SUFFIX = ".onnx_adapter"
KEY = "adapters"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AdapterEntry(TypedDict):
    """One adapter in the manifest of a bundle.

    ``file`` is relative to the bundle. ``rank``: the largest of a module. ``targets``: the kinds of
    module that it changes, ``modules`` how many. ``source``: the name of what it was made from.
    ``delta_norm``: Frobenius norm of all that merging would add to the base's weights;
    ``largest_delta``: the module that it adds most to, with its norm. ``check``: what was measured
    when it was added.
    """

    file: str
    bytes: int
    sha256: str
    rank: int
    targets: list[str]
    modules: int
    source: str
    delta_norm: float
    largest_delta: tuple[str, float]
    check: dict[str, Any]


def root_of(folder: Path) -> Path | None:
    """The bundle that ``folder`` is, or is a variant of; None for a variant that lies alone."""
    for place in (folder, folder.absolute().parent):
        content = manifest.read(place)
        if content is not None and manifest.spans(content):
            return place if place == folder or folder.name in content["variants"] else None
    return None


def takes(root: Path | None) -> bool:
    """Whether the graphs of a bundle take adapters."""
    content = None if root is None else manifest.read(root)
    return content is not None and KEY in content


def plain_graph(root: Path | None, folder: Path) -> Path | None:
    """The graph of a variant without places for adapters; None if it has but one graph.

    It is the one that transformers.js opens, which knows of no adapters.
    """
    graphs = list(folder.glob(f"{javascript.FOLDER}/*.onnx")) if takes(root) else []
    return graphs[0] if len(graphs) == 1 else None


def listed(root: Path | None) -> dict[str, AdapterEntry]:
    """The adapters of a bundle by name, as its manifest has them now.

    :raises ExportError: if the manifest cannot be read.
    """
    content = None if root is None else manifest.read(root)
    return dict((content or {}).get(KEY) or {})


def file_of(root: Path | None, name: str) -> Path:
    """The file of an adapter, its hash compared with the manifest's.

    :raises ExportError: if the bundle has no such adapter, or its file was changed.
    """
    entries = listed(root)
    if root is not None and not takes(root):
        raise ExportError(
            f"{root} takes no adapters: they were merged when it was exported; export it with "
            "--adapters separate"
        )
    if root is None or name not in entries:
        if not entries:
            raise ExportError(
                f"there is no adapter '{name}': the bundle has none; "
                "add one with: risen adapt BUNDLE ADAPTER"
            )
        raise ExportError(
            f"there is no adapter '{name}'{near_miss(name, entries) or '.'} "
            f"The bundle has: {', '.join(entries)}"
        )
    content = manifest.read(root)
    assert content is not None
    file = place_of(name)
    verified(root, content, [file])
    return root / file


def place_of(name: str) -> str:
    """The file of an adapter, relative to the bundle.

    :raises ExportError: if the name is not fit for a file on every system.
    """
    return f"{FOLDER}/{check_name(name)}{SUFFIX}"


def check_name(name: str) -> str:
    """A name that is fit for a file on every system.

    :raises ExportError: if it is not.
    """
    if _NAME.fullmatch(name) is None or name.endswith("."):
        raise ExportError(
            f"'{name}' is no name for an adapter: use up to 64 letters, digits, '.', '_' and '-', "
            "the first a letter or a digit (--name)"
        )
    return name


def entry_of(file: Path, lora: Lora, check: Mapping[str, Any]) -> AdapterEntry:
    """What the manifest says of an adapter whose file is written."""
    norms = {name: factors.norm for name, factors in lora.factors.items()}
    largest = max(norms, key=lambda name: norms[name])
    return AdapterEntry(
        file=f"{FOLDER}/{file.name}",
        bytes=file.stat().st_size,
        sha256=sha256(file),
        rank=lora.rank,
        targets=lora.targets,
        modules=len(norms),
        source=lora.path.name,
        delta_norm=sum(norm**2 for norm in norms.values()) ** 0.5,
        largest_delta=(largest, norms[largest]),
        check=dict(check),
    )


def record(root: Path, name: str, entry: AdapterEntry) -> None:
    """Put an adapter into the bundle's manifest, in place of one of the same name."""
    _rewrite(root, {**listed(root), name: entry})


def forget(root: Path, name: str) -> None:
    """Take an adapter out of the bundle's manifest, and then remove its file.

    :raises ExportError: if there is no such adapter.
    """
    entries = listed(root)
    if name not in entries:
        file_of(root, name)
    _rewrite(root, {key: entry for key, entry in entries.items() if key != name})
    (root / place_of(name)).unlink(missing_ok=True)


def _rewrite(root: Path, entries: Mapping[str, AdapterEntry]) -> None:
    content = manifest.read(root)
    assert content is not None
    rest = {
        name: file for name, file in content["files"].items() if not name.startswith(f"{FOLDER}/")
    }
    ours = {
        entry["file"]: {"bytes": entry["bytes"], "sha256": entry["sha256"]}
        for entry in entries.values()
    }
    content |= {KEY: dict(entries), "files": {**rest, **ours}}
    manifest.write(root, content)
    card.renew_adapters(root, content)


def belongs(lora: Lora, model: Mapping[str, Any], hashes: Mapping[str, str] | None) -> str | None:
    """Why an adapter cannot be taken for one of this base; None if it can.

    By the hashes of the base's weights where the adapter's base lies on this machine, else by
    name: its last word, since a folder has another path on another machine.

    :param model: the base in the bundle's manifest.
    :param hashes: of the weight files of the base that the adapter names; None if unknown.
    """
    recorded: Mapping[str, str] = model.get("sha256") or {}
    if hashes and recorded:
        if dict(hashes) == dict(recorded):
            return None
        return f"its base {lora.base} has other weights than the bundle's base"
    if lora.base is None:
        return "it names no base model"
    ours, theirs = last_word(str(model.get("name", ""))), last_word(lora.base)
    if ours.casefold() == theirs.casefold():
        return None
    return f"its base is {theirs}, and the bundle's is {ours}"


def last_word(name: str) -> str:
    """The last part of a path or a hub id."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]


def hashes_of(base: str | None, beside: Path) -> dict[str, str] | None:
    """SHA-256 of the weight files of an adapter's base, if it is a folder that is here."""
    for folder in () if base is None else (Path(base).expanduser(), beside / base):
        if folder.is_dir():
            hashes = sha256_of(sorted(folder.glob("*.safetensors")))
            return {file.name: one for file, one in hashes.items()} or None
    return None
