"""Write a merged model to a folder, for builders to read and for clients of every bundle.

Builders read the folder itself: weights, configuration and tokenizer. :data:`CLIENT` below it has
the small files that stand beside every graph, in the form that clients read alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.merging.merge import Merged
from risen_export.quiet import quiet
from risen_plugin.kit.files import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CLIENT = "client"
_SHARD = "1GB"  # one shard at a time is in memory beside the model


def save(merged: Merged, folder: Path, *, link: bool = False, show_log: bool = False) -> None:
    """Write a merged model; the folder then stands for it, and the model may be dropped.

    :param link: let files that hold the weights already stand for them, where there are any.
    :raises OSError: if the disk is full.
    """
    model = merged.model
    generation = _generation(model.generation_config)
    with quiet(show=show_log):
        try:
            if link and merged.weights:
                _link(merged.weights, folder)
            else:
                _write_weights(model, folder)
        except Exception as error:
            # safetensors raises its own error type on a full disk.
            if "No space left" in str(error) or "os error" in str(error):
                raise OSError(str(error)) from error
            raise
    config = model.config.to_dict()
    config.pop("_name_or_path", None)
    config["architectures"] = [type(model).__name__]
    write_json(folder / "config.json", _as_json(config), ascii_only=False)
    client = folder / CLIENT
    client.mkdir()
    older = _readable_by_4(model.config, config)
    write_json(client / "config.json", _as_json(older), ascii_only=False)
    for place in (folder, client):
        write_json(place / "generation_config.json", generation, ascii_only=False)
        merged.files.write(place)


def _as_json(value: Any) -> Any:
    """Values that JSON has no form for as transformers writes them (Granite 4 has an infinity)."""
    if isinstance(value, float) and not math.isfinite(value):
        name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return {"__float__": name}
    if isinstance(value, dict):
        return {key: _as_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(part) for part in value]
    return value


def _link(weights: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in weights:
        (folder / path.name).symlink_to(path.resolve())


def _write_weights(model: Any, folder: Path) -> None:
    # transformers refuses to save settings that are odd together, such as a temperature of a
    # greedy model. They are the model's own, and are written by themselves.
    kept = model.generation_config
    model.generation_config = type(kept)()
    try:
        model.save_pretrained(folder, max_shard_size=_SHARD)
    finally:
        model.generation_config = kept


def _generation(config: Any) -> dict[str, Any]:
    """The generation settings that are set, as data."""
    unset = type(config)().to_dict()
    return {
        name: value
        for name, value in config.to_dict().items()
        if not name.startswith("_") and (name not in unset or value != unset[name])
    }


def _readable_by_4(config: PreTrainedConfig, written: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the names that transformers 4 reads beside those of 5.

    5 writes ``rope_parameters``. 4 reads ``rope_theta``, and falls silently to 10000 without it,
    and ``rope_scaling``. Names that would change what 5 reads are left out.
    """
    rope = written.get("rope_parameters") or {}
    older: dict[str, Any] = {}
    kinds = {"rope_theta": rope.get("full_attention", rope)}
    kinds["rope_local_base_freq"] = rope.get("sliding_attention")
    for name, values in kinds.items():
        if isinstance(values, dict) and "rope_theta" in values:
            older[name] = values["rope_theta"]
    whole = kinds["rope_theta"]
    if isinstance(whole, dict) and whole.get("rope_type", "default") != "default":
        older["rope_scaling"] = {key: value for key, value in whole.items() if key != "rope_theta"}
    both = dict(written)
    for name, value in older.items():
        if name not in both and _reads_rope(config, {**both, name: value}) == rope:
            both[name] = value
    return both


def _reads_rope(config: PreTrainedConfig, written: dict[str, Any]) -> Any:
    """The ``rope_parameters`` that 5 reads of a configuration; None if it refuses to read it."""
    try:
        read = type(config).from_dict(written)
    except Exception:  # noqa: BLE001  a class of its own kind may raise anything
        return None
    return read.to_dict().get("rope_parameters")
