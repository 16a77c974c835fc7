"""Open a bundle: choose a variant, and compare its folder with its manifest before use.

What is not as the manifest says is refused with the file's name: a file that is missing, cut,
changed, not listed, a link out of the folder, or one that would run code when read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from risen_export.bundles import manifest
from risen_export.bundles.hashes import sha256_of
from risen_export.bundles.leavings import moved_aside
from risen_export.bundles.manifest import GRAPH, MANIFEST, PICKLES
from risen_plugin.errors import ExportError, near_miss, near_path

_AGAIN = "copy or export the bundle again"
_REMOVE = "remove it"


def open_folder(
    path: Path, variant: str | None = None, *, check_hashes: bool = True
) -> tuple[Path, dict[str, Any]]:
    """The folder of one variant of ``OUT``, or ``OUT/<variant>`` itself, with its manifest.

    :param variant: its name; None takes fp32, else the first.
    :param check_hashes: compare the content of every file, not only names and sizes.
    :raises ExportError: if there is no bundle, no such variant, or a file is not as it should be.
    """
    content = manifest.read(path) if path.is_dir() else None
    if content is not None and manifest.spans(content):
        name = _choose(path, list(content["variants"]), variant)
        expected = content["variants"][name]["manifest_sha256"]
        path = path / name
        _check_inner(path, expected if check_hashes else None)
        content = manifest.read(path)
    elif content is not None and check_hashes:
        _check_place(path)
    if content is None or manifest.spans(content):
        raise ExportError(_no_bundle(path))
    if variant not in (None, content["variant"], path.name):
        raise ExportError(f"{path} is {content['variant']}, not '{variant}'")
    found = problem(path, content["files"], check_hashes=check_hashes)
    if found is None and GRAPH not in content["files"]:
        found = f"{path / GRAPH} is missing"
    if found is not None:
        raise ExportError(_with_advice(found))
    return path, content


def check(path: str | Path) -> list[str]:
    """Files of ``OUT`` or ``OUT/<variant>`` that differ from the manifest's hashes; [] is good.

    Everything is read, whatever is remembered of an earlier check. Files that are not listed count
    as different.

    :raises ExportError: if there is no manifest, or it is damaged.
    """
    return sorted(_all_problems(Path(path)))


def refuse_changed(out: Path) -> None:
    """Read every file of a bundle, as :func:`check` does.

    :raises ExportError: naming the first that is not as it should be, and why.
    """
    found = _all_problems(out)
    for name in sorted(found):
        raise ExportError(_with_advice(f"{out / name} {found[name]}"))


def _all_problems(folder: Path) -> dict[str, str]:
    """What is wrong with the files of a bundle or of one variant, in words, by name."""
    content = manifest.read(folder)
    if content is None:
        raise ExportError(f"{folder} has no {MANIFEST}")
    bad = _problems(folder, content["files"], check_hashes=True, remember=False)
    if not manifest.spans(content):
        return bad
    inside = tuple(f"{name}/" for name in content["variants"])
    bad = {
        name: why
        for name, why in bad.items()
        if not name.startswith(inside) or name in content["files"]
    }
    for variant, entry in content["variants"].items():
        try:
            _check_inner(folder / variant, entry["manifest_sha256"])
            found = _all_problems(folder / variant)
            bad |= {f"{variant}/{name}": why for name, why in found.items()}
        except ExportError:
            bad[f"{variant}/{MANIFEST}"] = "is not what was exported"
    return bad


def _with_advice(found: str) -> str:
    return found if found.endswith(_REMOVE) else f"{found}; {_AGAIN}"


def problem(
    folder: Path, files: Mapping[str, manifest.FileEntry], *, check_hashes: bool = True
) -> str | None:
    """The first thing about a folder that is not as ``files`` says, with the file's name."""
    found = _problems(folder, files, check_hashes=check_hashes)
    return next((f"{folder / name} {why}" for name, why in found.items()), None)


def verified(out: Path, content: Mapping[str, Any], names: Iterable[str]) -> None:
    """Check files at the root of a bundle, such as an adapter's, before they are read.

    :param content: the manifest of ``out``, which spans the variants.
    :raises ExportError: if one is not listed there, or is not as it says.
    """
    for name in names:
        if name not in content["files"]:
            raise ExportError(f"{out / name} is not listed in {out / MANIFEST}")
        entry = {name: content["files"][name]}
        why = _misplaced(out, out / name, entry) or _differences(out, entry).get(name)
        if why is not None:
            raise ExportError(f"{out / name} {why}; {_AGAIN}")


def _problems(
    folder: Path,
    files: Mapping[str, manifest.FileEntry],
    *,
    check_hashes: bool,
    remember: bool = True,
) -> dict[str, str]:
    """What is wrong with each file that is not as ``files`` says, in words."""
    there = manifest.listed(folder)
    found = {name: why for name, path in there.items() if (why := _misplaced(folder, path, files))}
    rest = {name: entry for name, entry in files.items() if name not in found}
    return found | _differences(folder, rest, check_hashes=check_hashes, remember=remember)


def _differences(
    folder: Path,
    files: Mapping[str, manifest.FileEntry],
    *,
    check_hashes: bool = True,
    remember: bool = True,
) -> dict[str, str]:
    """What differs in size or content from ``files``, in words."""
    found: dict[str, str] = {}
    for name, entry in files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else -1
        if size < entry["bytes"]:
            found[name] = "is missing or cut short"
        elif size > entry["bytes"]:
            found[name] = "is longer than it should be"
    if not check_hashes:
        return found
    paths = [folder / name for name in files if name not in found]
    try:
        hashes = sha256_of(paths, remember=remember)
    except OSError as error:
        raise ExportError(f"{error.filename} cannot be read: {error.strerror}") from error
    for name, entry in files.items():
        if name not in found and hashes[folder / name] != entry["sha256"]:
            found[name] = "is not what was exported: its content was changed"
    return found


def _misplaced(folder: Path, path: Path, files: Mapping[str, manifest.FileEntry]) -> str | None:
    """Why a file should not lie in a bundle's folder as it does; None if it may."""
    name = path.relative_to(folder).as_posix()
    if name.lower().endswith(PICKLES):
        return "is of a kind that runs code when it is read, which no bundle holds"
    if path.is_symlink() and not _stays_inside(folder, path):
        return "is a link out of the bundle"
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        return "is no ordinary file"
    if name in files or _is_of_the_system(path, folder):
        return None
    return f"is not listed in the manifest; {_REMOVE}"


def _is_of_the_system(path: Path, folder: Path) -> bool:
    """Hidden files that systems, git and the hub's tools leave; no client reads them."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _stays_inside(folder: Path, path: Path) -> bool:
    """Whether a link ends in its folder, or in the store of the hub's own cache.

    That cache holds ``snapshots/REVISION/FILE`` as links to ``blobs/HASH``.
    """
    target = Path(os.path.realpath(path))
    root = Path(os.path.realpath(folder))
    if target.is_relative_to(root):
        return True
    snapshots = next((one for one in (root, *root.parents) if one.parent.name == "snapshots"), None)
    return snapshots is not None and target.parent == snapshots.parent.parent / "blobs"


def _check_place(folder: Path) -> None:
    """Refuse a variant that the bundle around it knows otherwise; one copied alone is fine.

    :raises ExportError: if the variants of a bundle were exchanged, say.
    """
    out = folder.absolute().parent
    try:
        spanning = manifest.read(out)
    except (ExportError, OSError):
        return  # whatever that is, it is not what was asked for
    if spanning is not None and manifest.spans(spanning) and folder.name in spanning["variants"]:
        _check_inner(folder, spanning["variants"][folder.name]["manifest_sha256"])


def _check_inner(folder: Path, expected: str | None) -> None:
    path = folder / MANIFEST
    if not path.is_file():
        raise ExportError(f"{path} is missing; {_AGAIN}")
    if folder.is_symlink() and not _stays_inside(folder.parent, folder):
        raise ExportError(f"{folder} is a link out of the bundle; {_AGAIN}")
    if expected is not None and sha256_of([path])[path] != expected:
        raise ExportError(f"{path} is not what was exported: its content was changed; {_AGAIN}")


def _choose(path: Path, offered: list[str], variant: str | None) -> str:
    if not offered:
        raise ExportError(f"bundle {path} has no variant; export the model again")
    wanted = variant or manifest.default_variant(offered)
    if wanted not in offered:
        raise ExportError(
            f"bundle {path} has no precision '{wanted}'{near_miss(wanted, offered) or '.'} "
            f"It has: {', '.join(offered)}"
        )
    return wanted


def _no_bundle(path: Path) -> str:
    lacks = "there is no such folder"
    if path.exists():
        lacks = f"no {MANIFEST} with a {GRAPH} in it"
    aside = moved_aside(path)
    if aside is not None:
        return (
            f"{path} is not there: an export was killed while it replaced it; the bundle lies in "
            f"{aside}, and the next export to {path} puts it back"
        )
    hint = near_path(path, folders=True) or "; make one with: risen export RUN_OR_MODEL OUT"
    return f"{path} is not a bundle: {lacks}{hint}"
