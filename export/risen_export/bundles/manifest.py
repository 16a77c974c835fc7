"""The manifest of a bundle: format ``risen-bundle/2``, its shape, reading and writing.

A *variant* (``OUT/int8``) has a manifest of its own; ``OUT/manifest.json`` spans the variants and
is a model package of onnxruntime as well (``package``). Both are sealed: they hold the SHA-256 of
their own content, so that a changed digit shows.
Nothing here builds or runs anything; ``opening`` compares a folder with its manifest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from risen_export.bundles import package, strict
from risen_export.bundles.hashes import sha256_of
from risen_plugin.errors import ExportError
from risen_plugin.kit.files import write_json
from risen_plugin.record.description import versions_of

FORMAT = "risen-bundle/2"
MANIFEST = "manifest.json"
GRAPH = "model.onnx"
DATA = "model.onnx.data"
ENGINE_GRAPH = "engine.onnx"
ADAPTED_GRAPH = "engine_adapters.onnx"
NOT_RUN = "built, not run"
_LARGE_BYTES = 64 * 1024 * 1024
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".py")
"""Endings of files that run code when they are read; a bundle never holds one."""
FREE = ("README.md", "model.sig")
"""Files at the top of a folder that no manifest lists: a card may be edited, a signature added."""
SEAL = "sha256"
_OURS = "risen-bundle/"
_MOST_BYTES = 16 * 1024 * 1024  # of a manifest; that of 1,000 files has 150 kB
_MOST_FILES = 10_000
_LARGEST = 2**53  # bytes of a file
_PACKAGES = (
    "risen-plugin",
    "torch",
    "transformers",
    "peft",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-genai",
    "onnxruntime-genai-cuda",
    "onnx",
    "onnx-ir",
    "tokenizers",
)


class FileEntry(TypedDict):
    """One file of a bundle."""

    bytes: int
    sha256: str


def is_safe(name: str) -> bool:
    """Whether a file's name in a manifest stays inside of its folder, on every system."""
    parts = PurePosixPath(name).parts
    return (
        0 < len(name) <= 400
        and name == "/".join(parts)
        and not name.startswith("/")
        and not any(part in (".", "..") or part.endswith((".", " ")) for part in parts)
        and not re.search(r'[\x00-\x1f\x7f\\:*?"<>|]', name)
    )


_name = strict.text(100, fitting=lambda name: is_safe(name) and "/" not in name)
_words = strict.text(4000)
_hash = strict.text(64, fitting=lambda text: bool(re.fullmatch("[0-9a-f]{64}", text)))
_files = strict.mapping(
    strict.record({"bytes": strict.integer(0, _LARGEST), "sha256": _hash}),
    keys=strict.text(
        400, fitting=lambda name: is_safe(name) and not name.lower().endswith(PICKLES)
    ),
    most=_MOST_FILES,
)
_gate = strict.either(strict.nothing, strict.record({"passed": strict.boolean}))
_versions = strict.mapping(strict.text(100), keys=strict.text(100), most=1000)
_VARIANT = strict.record(
    {
        "format": strict.one_of(FORMAT),
        "variant": _name,
        "target": _name,
        "precision": _name,
        "backend": _name,
        "ran": _words,
        "requires": _versions,
        "files": _files,
        SEAL: _hash,
    },
    {"gate": _gate, "versions": _versions},
)
_ROOT = strict.record(
    {
        "format": strict.one_of(FORMAT),
        "variants": strict.mapping(
            strict.record(
                {
                    "bytes": strict.integer(0, _LARGEST),
                    "manifest_sha256": _hash,
                    "target": _name,
                    "precision": _name,
                    "backend": _name,
                    "ran": _words,
                },
                {"gate": _gate},
            ),
            keys=_name,
            most=1000,
        ),
        "files": _files,
        SEAL: _hash,
    },
    {"versions": _versions, "adapters": strict.mapping(strict.record({}), keys=_name)},
)


def listed(folder: Path) -> dict[str, Path]:
    """Every file below ``folder`` but its manifest and those of ``FREE``, by its name there."""
    left_out = {folder / name for name in (MANIFEST, *FREE)}
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path not in left_out and (path.is_symlink() or not path.is_dir())
    }


def entries(
    files: Mapping[str, Path], known: Mapping[str, str] | None = None
) -> dict[str, FileEntry]:
    """The ``bytes`` and ``sha256`` of files, by their names.

    :param known: hashes that were computed since the files were written, by their names.
    """
    hashes = dict(known or {})
    unknown = {name: path for name, path in files.items() if name not in hashes}
    found = sha256_of(list(unknown.values()))
    hashes |= {name: found[path] for name, path in unknown.items()}
    return {
        name: {"bytes": path.stat().st_size, "sha256": hashes[name]} for name, path in files.items()
    }


def large_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each large file below ``folder``, by its name there."""
    large = {
        name: path for name, path in listed(folder).items() if path.stat().st_size > _LARGE_BYTES
    }
    return {name: entry["sha256"] for name, entry in entries(large).items()}


def files_of(
    folder: Path, *, hashed: bool = True, known: Mapping[str, str] | None = None
) -> dict[str, FileEntry]:
    """Every file below ``folder`` but its manifest: its ``bytes`` and ``sha256``.

    :param hashed: False writes zeros for hashes, which fit no file.
    :param known: what :func:`large_hashes` has found since they were written.
    """
    files = listed(folder)
    if hashed:
        return entries(files, known)
    return {
        name: {"bytes": path.stat().st_size, "sha256": "0" * 64} for name, path in files.items()
    }


def versions() -> dict[str, str]:
    """Versions of the packages that a bundle is made with, those installed only."""
    return versions_of(_PACKAGES)


def write(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Seal ``content``, write it as the folder's manifest and return it as it was written.

    :raises ExportError: if it has not the shape of a manifest.
    """
    plain = json.loads(json.dumps(content, default=str))
    plain.pop(SEAL, None)
    sealed = {**plain, SEAL: seal(plain)}
    try:
        _shape_of(sealed)(sealed, "")
    except strict.ShapeError as error:
        raise ExportError(f"the manifest of {folder} cannot be written: {error}") from error
    write_json(folder / MANIFEST, _written(sealed), ascii_only=False)
    return sealed


def seal(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a manifest's content, its keys in order and the seal itself left out."""
    plain = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def is_ours(folder: Path) -> bool:
    """Whether ``folder`` is a bundle of any format, whole or not.

    :raises ExportError: if its manifest cannot be read.
    """
    if not (folder / MANIFEST).is_file():
        return False
    written = strict.read_object(folder / MANIFEST, _MOST_BYTES)
    content = package.unwrap(written) or written
    return isinstance(content, dict) and str(content.get("format")).startswith(_OURS)


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest of a bundle or of one of its variants; None if there is none.

    :raises ExportError: if the file is there but is no manifest, is of another format, or was
        changed after it was written.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if path.is_symlink() or path.exists():
            raise ExportError(f"{path} is no ordinary file")
        return None
    written = strict.read_object(path, _MOST_BYTES)
    content = package.unwrap(written) or written
    if not isinstance(content, dict):
        raise ExportError(f"{path} is not a bundle's manifest (additional_metadata is no object)")
    found = content.get("format")
    if found != FORMAT:
        if isinstance(found, str) and re.fullmatch(re.escape(_OURS) + r"\d{1,9}", found):
            raise ExportError(
                f"{path} is of the format '{found}', and this release reads '{FORMAT}'; "
                "export the model again"
            )
        raise ExportError(f"{path} is not a bundle's manifest (its format is not '{FORMAT}')")
    try:
        _shape_of(content)(content, "")
    except strict.ShapeError as error:
        raise ExportError(f"{path} is damaged or of another make: {error}") from error
    if content[SEAL] != seal(content) or written != _written(content):
        raise ExportError(f"{path} was changed after it was written; copy or export it again")
    return content


def spans(content: Mapping[str, Any]) -> bool:
    """Whether a manifest is that of a whole bundle and not of one variant."""
    return "variants" in content


def default_variant(names: Iterable[str]) -> str:
    """The variant that is opened where none is named: fp32, else the first."""
    offered = list(names)
    return "fp32" if "fp32" in offered else offered[0]


def _written(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """A manifest as its file has it."""
    return package.wrap(content, GRAPH) if spans(content) else content


def _shape_of(content: Mapping[str, Any]) -> strict.Shape:
    return _ROOT if spans(content) else _VARIANT
