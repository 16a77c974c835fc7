"""Make a compiled graph a complete bundle, and publish it whole or not at all.

Completing adds the files that clients need beside the graph. Publishing writes to a hidden sibling
folder and renames; an existing bundle is moved aside first and only then deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from risen_export.bundles import leavings, manifest, strict
from risen_export.bundles.card import write_card
from risen_export.bundles.javascript import share_with_javascript
from risen_export.bundles.private import scrub, scrub_folder
from risen_export.bundles.requirements import smallest_runtime
from risen_export.bundles.sizes import bytes_by_kind
from risen_plugin.errors import DataError, ExportError
from risen_plugin.kit.files import (
    number_of,
    replace_folder,
    sha256,
    write_json,
)
from risen_plugin.record.reading import read_description
from risen_plugin.record.run_record import DESCRIPTION, FOLDER

# The generation settings that onnxruntime-genai takes; its builder writes some of them as 1.0 or 0
# whatever the model says.
_SEARCH: dict[str, Callable[[Any], Any]] = {
    "repetition_penalty": float,
    "no_repeat_ngram_size": int,
    "min_length": int,
    "length_penalty": float,
    "diversity_penalty": float,
}
_MOST_BYTES = 64 * 1024 * 1024  # of a configuration
_CPU_ONLY = ("no_repeat_ngram_size",)
# What OUT/manifest.json repeats of the manifest of each variant.
_SPANNED = ("target", "precision", "backend", "ran", "gate")


def complete(folder: Path, client: Path, *, on_cpu: bool = True) -> None:
    """Put the files of ``client`` beside a graph, over a builder's own of those names.

    They are ``config.json``, ``generation_config.json``, the tokenizer and its chat template, made
    when the model was merged. ``genai_config.json`` gets the model's generation settings, as far as
    onnxruntime-genai knows them.

    :param on_cpu: onnxruntime-genai refuses ``no_repeat_ngram_size`` elsewhere.
    """
    shutil.copytree(client, folder, dirs_exist_ok=True)
    path = folder / "genai_config.json"
    if path.is_file():
        _follow_generation(path, folder, on_cpu=on_cpu)
    share_with_javascript(folder)


def _follow_generation(path: Path, folder: Path, *, on_cpu: bool) -> None:
    """Write the model's generation settings into ``genai_config.json``."""
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    genai = json.loads(path.read_text(encoding="utf-8"))
    search = genai.setdefault("search", {})
    for name, kind in _SEARCH.items():
        value = generation.get(name)
        if value is not None and (on_cpu or name not in _CPU_ONLY):
            search[name] = kind(value)
    write_json(path, genai, ascii_only=False)


def describe(
    folder: Path,
    precision: str,
    facts: dict[str, Any],
    *,
    target: str = "cpu",
    backend: str = "genai",
    ran: str = manifest.NOT_RUN,
    gate: dict[str, Any] | None = None,
    keep_paths: bool = False,
    draft: bool = False,
    known: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write the manifest of one variant, whose name is its folder's, and return it.

    :param facts: what else the manifest should say.
    :param ran: where the graph was run: the provider and the machine, in words.
    :param gate: measured names and numbers, and ``passed``; None if nothing was measured.
    :param keep_paths: leave paths of this machine in the manifest and the configurations.
    :param known: hashes of large files, which :func:`manifest.large_hashes` has computed.
    :param draft: it will be written again before anyone else reads it; no file is hashed for it.
    """
    if not keep_paths:
        scrub_folder(folder)
    content = {
        "format": manifest.FORMAT,
        "variant": folder.name,
        "target": target,
        "precision": precision,
        "backend": backend,
        "ran": ran,
        "gate": gate,
        "requires": smallest_runtime(folder / manifest.GRAPH),
        "bytes_by_kind": bytes_by_kind(folder),
        **(facts if keep_paths else scrub(facts)),
        "files": manifest.files_of(folder, hashed=not draft, known=known),
    }
    return manifest.write(folder, content)


def span(
    out: Path,
    inner: dict[str, dict[str, Any]],
    facts: dict[str, Any],
    *,
    keep_paths: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Write ``OUT/manifest.json`` over the manifests of all variants and return it.

    :param inner: the manifests of the variants by their folders.
    :param more: other entries, such as ``adapters``. Files beside the variants' folders are listed
        as they are found.
    """
    content = {
        "format": manifest.FORMAT,
        **(facts if keep_paths else scrub(facts)),
        "variants": {
            name: {
                "bytes": sum(entry["bytes"] for entry in one["files"].values()),
                "manifest_sha256": sha256(out / name / manifest.MANIFEST),
                **{key: one[key] for key in _SPANNED if key in one},
            }
            for name, one in inner.items()
        },
        **more,
    }
    _add_card(out, next(iter(inner)), content)
    beside = {
        name: path for name, path in manifest.listed(out).items() if name.split("/")[0] not in inner
    }
    return manifest.write(out, {**content, "files": manifest.entries(beside)})


def _add_card(out: Path, variant: str, content: dict[str, Any]) -> None:
    generation = strict.read_object(out / variant / "generation_config.json", _MOST_BYTES)
    has_template = (out / variant / "chat_template.jinja").is_file()
    write_card(out, content, has_template=has_template, ends=generation.get("eos_token_id"))


def mark(out: Path, name: str, ran: str, gate: dict[str, Any]) -> None:
    """Say in the manifests of a published bundle where a variant was run, and what was measured.

    :raises OSError: if they cannot be written.
    """
    inner = manifest.read(out / name)
    whole = manifest.read(out)
    assert inner is not None
    assert whole is not None
    inner |= {"ran": ran, "gate": gate}
    manifest.write(out / name, inner)
    entry = whole["variants"][name]
    entry |= {"ran": ran, "gate": gate}
    entry["manifest_sha256"] = sha256(out / name / manifest.MANIFEST)
    manifest.write(out, whole)


def drop(folder: Path) -> None:
    """Remove a variant that is not kept, if it was begun."""
    shutil.rmtree(folder, ignore_errors=True)


def rewards_of(run: Path | None) -> dict[str, Any] | None:
    """The ``plugins`` and ``rewards`` of a run's record; None if there is no record."""
    if run is None or not (run / FOLDER / DESCRIPTION).is_file():
        return None
    try:
        record = read_description(run / FOLDER)
    except DataError as error:
        raise ExportError(str(error)) from error
    return {key: record[key] for key in ("plugins", "rewards") if key in record}


def check_target(out: Path, *, force: bool) -> None:
    """Refuse a target that exists already, after killed exports to it were tidied up.

    :raises ExportError: if ``out`` exists and ``force`` is off, ``out`` is not a bundle, or nothing
        can be written beside it.
    """
    leavings.tidy(out)
    _check_place(out)
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return
    is_bundle = not out.is_symlink() and manifest.is_ours(out)
    if not force:
        why, way = (
            ("", ", or replace it with --replace") if is_bundle else (", since it is no bundle", "")
        )
        raise ExportError(f"{out} exists and is left as it is{why}; choose another OUT{way}")
    if not is_bundle:
        raise ExportError(f"{out} is not a bundle, so it is not replaced; choose another OUT")


def _check_place(out: Path) -> None:
    """Refuse a place where nothing can be written, before a model is loaded for it."""
    parent = out.absolute().parent
    nearest = next(one for one in (parent, *parent.parents) if one.exists())
    if not nearest.is_dir():
        raise ExportError(
            f"cannot write the bundle {out}: {nearest} is a file and no folder; choose another OUT"
        )
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        # The file that tries the place means nothing to a reader.
        raise _cannot_write(out, OSError(error.errno, error.strerror)) from error


@contextlib.contextmanager
def published(out: Path, *, force: bool) -> Iterator[Path]:
    """A scratch folder on the disk of ``out``; its ``bundle`` folder becomes ``out`` at the end.

    If anything fails, the scratch folder is removed and ``out`` is as it was. An OSError becomes
    an ExportError; every other exception passes.
    """
    check_target(out, force=force)
    made: Path | None = None
    try:
        made = _make_parents(out.absolute().parent)
        with leavings.scratch_beside(out) as scratch:
            (scratch / leavings.NEW).mkdir()
            yield scratch
            _swap(scratch / leavings.NEW, out, scratch / leavings.OLD, force=force)
            made = None
    except OSError as error:
        raise _cannot_write(out, error) from error
    finally:
        if made is not None:
            _drop_empty(out.absolute().parent, made)


def _cannot_write(out: Path, error: OSError) -> ExportError:
    """The line for a bundle that the system did not let through."""
    hidden = str(out.absolute().parent / f".{out.name}.")  # means nothing to a reader
    known = error.filename is not None and not str(error.filename).startswith(hidden)
    which = f" ({error.filename})" if known else ""
    number = number_of(error)
    what = error if number is None else os.strerror(number)
    return ExportError(f"cannot write the bundle {out}: {what}{which}; nothing was left")


def _swap(new: Path, out: Path, old: Path, *, force: bool) -> None:
    check_target(out, force=force)  # somebody may have written it in the meantime
    replace_folder(new, out, old)


def _make_parents(parent: Path) -> Path | None:
    """Make missing folders; the topmost one made, or None."""
    missing = None
    for folder in (parent, *parent.parents):
        if folder.exists():
            break
        missing = folder
    parent.mkdir(parents=True, exist_ok=True)
    return missing


def _drop_empty(parent: Path, made: Path) -> None:
    """Remove the folders that were made for a bundle that failed."""
    folder = parent
    with contextlib.suppress(OSError):
        while True:
            folder.rmdir()
            if folder == made:
                return
            folder = folder.parent
