"""Add an adapter to a bundle that keeps adapters apart, or take one out, without torch.

The graphs and their weights are not touched. An adapter is read, found to belong to the base,
written beside the graphs, and measured in each of them before the manifest names it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from risen_export.bundles import adapters, lora, manifest
from risen_export.bundles.changing import changing
from risen_export.bundles.opening import open_folder
from risen_export.bundles.sites import of_graph
from risen_export.runtime import adapters as files
from risen_export.runtime.bundle import Bundle
from risen_plugin.errors import ExportError
from risen_plugin.kit.files import replacing

_PROBE_TOKENS = 16
_ROUNDING = 1e-3  # relative to the largest logit


@dataclass(frozen=True)
class Added:
    """An adapter that was added to a bundle.

    :param name: by which it is asked for.
    :param path: its file.
    :param entry: what the bundle's manifest says of it.
    :param seconds: how long it took.
    """

    name: str
    path: Path
    entry: adapters.AdapterEntry
    seconds: float


def adapt(
    bundle: str | Path,
    adapter: str | Path,
    *,
    name: str | None = None,
    force: bool = False,
    threads: int | None = None,
) -> Added:
    """Add the LoRA adapter of a run, or a saved one, to a bundle::

        adapt("out/bundle", "out/run", name="orders")
        Bundle.open("out/bundle").generate(prompts, adapter="orders")

    :param bundle: a bundle that was exported with ``separate=True``.
    :param adapter: the output folder of a run, or the folder of a PEFT adapter.
    :param name: by which it is asked for; the folder's name if None.
    :param force: replace an adapter of that name, and take one whose base has another name.
    :raises ExportError: if it was trained on another base, cannot be kept apart, holds NaN or
        infinity, or the graphs do not compute it; the bundle is as it was.
    """
    started = time.perf_counter()
    root = open_root(Path(bundle))
    chosen = adapters.check_name(name or _name_of(Path(adapter)))
    with _changing(root):
        entry = _put(root, chosen, Path(adapter), force=force, threads=threads)
        adapters.record(root, chosen, entry)
    return Added(
        chosen, root / entry["file"], entry, seconds=round(time.perf_counter() - started, 3)
    )


def _put(
    root: Path, chosen: str, adapter: Path, *, force: bool, threads: int | None
) -> adapters.AdapterEntry:
    """Write the file of an adapter that the bundle may have under this name."""
    if chosen in adapters.listed(root) and not force:
        raise ExportError(
            f"bundle {root} has an adapter '{chosen}'; choose another --name, or replace it "
            "with --force"
        )
    found = lora.read(lora.find(adapter))
    content = manifest.read(root)
    assert content is not None
    model: Mapping[str, Any] = content.get("model") or {}
    reason = adapters.belongs(found, model, adapters.hashes_of(found.base, found.path))
    if reason is not None and not force:
        raise ExportError(
            f"adapter {found.path} was trained on another model: {reason}; "
            "--force takes it all the same"
        )
    return put(root, chosen, found, threads=threads)


def remove_adapter(bundle: str | Path, name: str) -> None:
    """Take an adapter out of a bundle.

    :raises ExportError: if the bundle has none of that name.
    """
    root = open_root(Path(bundle))
    with _changing(root):
        adapters.forget(root, name)


@contextlib.contextmanager
def _changing(root: Path) -> Iterator[None]:
    """Hold others off the bundle.

    :raises ExportError: if they do not finish, or nothing can be written there.
    """
    try:
        with changing(root):
            yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise ExportError(f"cannot change {root}: {error.strerror or error}{where}") from error


def put(
    root: Path, name: str, found: lora.Lora, *, threads: int | None = None
) -> adapters.AdapterEntry:
    """Write the file of an adapter once every variant of the bundle at ``root`` computes it.

    The manifest is left to the caller.

    :raises ExportError: if a graph has no place for it, or its logits are not finite.
    """
    file = root / adapters.place_of(name)
    file.parent.mkdir(exist_ok=True)
    content = manifest.read(root)
    assert content is not None
    checks: dict[str, dict[str, float] | None] = {}
    with replacing(file) as temporary:
        packed: dict[str, lora.Array] | None = None
        for variant, recorded in content["variants"].items():
            opened = _opened(root / variant, recorded["target"], threads)
            sites = of_graph(root / variant / manifest.GRAPH) if opened is None else opened.sites
            if not sites:
                raise ExportError(
                    f"{root / variant} takes no adapters: they were merged when it was exported; "
                    "export it with --adapters separate"
                )
            inputs = lora.pack(found, sites)
            if packed is None:
                packed = inputs
                files.write(temporary, inputs)
            elif {key: one.shape for key, one in inputs.items()} != {
                key: one.shape for key, one in packed.items()
            }:
                raise ExportError(
                    f"the variants of {root} take adapters in different places; "
                    "export the bundle again"
                )
            checks[variant] = None if opened is None else measure(opened, files.read(temporary))
    return adapters.entry_of(file, found, checks)


def _opened(folder: Path, target: str, threads: int | None) -> Bundle | None:
    """A variant on the CPU; None for one that was built for another device and does not run there.

    Where it runs in fp16, it shows numbers that are too large for that.
    """
    try:
        return Bundle.open(folder, threads=threads, device="cpu")
    except ExportError:
        if target == "cpu":
            raise
        return None


def measure(opened: Bundle, values: files.Values) -> dict[str, float]:
    """How far an adapter moves the logits of ids from all over the vocabulary.

    :raises ExportError: if a logit is not finite.
    """
    ids = (np.arange(_PROBE_TOKENS, dtype=np.int64) * (opened.vocabulary // _PROBE_TOKENS))[None]
    base, moved = opened.logits(ids), opened.logits(ids, adapter=values)
    apart = float(np.abs(opened.logits(ids, adapter={}) - base).max())
    if not apart <= _ROUNDING * max(1.0, float(np.abs(base).max())):
        raise ExportError(
            f"the graphs of {opened.path} are not one model: without an adapter their logits "
            f"differ by {apart:.2g}; export the bundle again"
        )
    if not np.isfinite(moved).all():
        raise ExportError(
            f"with the adapter the logits of {opened.path} are not finite; it was not added"
        )
    difference = np.abs(moved - base)
    return {
        "logits_moved_max": float(difference.max()),
        "logits_moved_mean": float(difference.mean()),
    }


def open_root(path: Path) -> Path:
    """The bundle that ``path`` names.

    :raises ExportError: if it is none.
    """
    root = adapters.root_of(path) if path.is_dir() else None
    if root is None:
        open_folder(path)  # says what is wrong with it
        raise ExportError(f"{path} is one variant; name the bundle that it is part of")
    return root


def _name_of(path: Path) -> str:
    return path.expanduser().resolve().name
