"""Find the adapters that a bundle keeps beside its base, before and after weights are read.

What cannot be kept apart is refused before the base is loaded. A model in memory has its adapters
saved, so that all of them are read in one way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.bundles import lora
from risen_export.bundles.adapters import check_name, last_word
from risen_export.merging.source import ADAPTER_CONFIG, Source, hub_file
from risen_plugin.errors import ExportError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Adapters = dict[str, Path]
"""Folders of saved adapters by name."""


def kept_apart(
    source: Source | None, more: Sequence[str | Path], *, separate: bool
) -> tuple[Source | None, Adapters]:
    """The source without its outermost adapter, and the adapters that stay beside it.

    :param source: None for a model in memory, whose adapters :func:`saved` finds.
    :param more: adapters of the same base that stay beside it too.
    :param separate: False leaves the source as it is.
    :raises ExportError: if one cannot be kept apart, or two have one name.
    """
    kept: Adapters = {}
    if source is None or not separate:
        return source, kept
    if source.adapter is not None:
        kept[_name_of(source.text)] = _local(source.adapter)
        source = replace(source, adapters=source.adapters[:-1], kept=source.adapter)
    for given in more:
        name = _name_of(str(given))
        if name in kept:
            raise ExportError(
                f"two adapters are called '{name}'; export without {given}, and add it with a "
                "name of its own: risen adapt BUNDLE ADAPTER --name NAME"
            )
        kept[name] = lora.find(Path(given))
    for folder in kept.values():
        lora.read(folder)
    return source, kept


def saved(model: PreTrainedModel | PeftModel, scratch: Path) -> Adapters:
    """Save every adapter of a model in memory to ``scratch``, and say where; none of a plain one.

    :raises ExportError: if one cannot be kept apart.
    """
    configs: dict[str, Any] = getattr(model, "peft_config", {})
    if not configs:
        return {}
    if not hasattr(model, "unload"):
        raise ExportError(
            "the model holds its adapter itself (add_adapter); save the adapter, and export its "
            "folder to keep it apart"
        )
    model.save_pretrained(str(scratch), selected_adapters=list(configs))
    # PEFT saves one called default in the folder itself, and others in folders of their names.
    folders = {
        check_name(name): scratch if name == "default" else scratch / name for name in configs
    }
    for folder in folders.values():
        lora.read(folder)
    return folders


def linear_sizes(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """The inputs and outputs of every linear module that may be adapted, by name."""
    import torch

    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and module not in ends
    }


def _name_of(text: str) -> str:
    return check_name(last_word(str(Path(text).resolve())))


def _local(adapter: str) -> Path:
    """The folder of an adapter, from the hub or its cache where it is no folder."""
    if Path(adapter).is_dir():
        return Path(adapter)
    config, weights = hub_file(adapter, ADAPTER_CONFIG), hub_file(adapter, lora.WEIGHTS)
    if config is None or weights is None:
        raise ExportError(f"adapter {adapter} has no {lora.WEIGHTS}, here or on the hub")
    return config.parent
