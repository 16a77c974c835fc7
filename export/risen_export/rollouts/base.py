"""Export the base of a model in training, with places for the adapter that is trained on it.

The graph is used for a phase and thrown away, so nothing is measured or published; it is made as
those of a bundle are. It is made again only where the base's weights have changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.backends import branches
from risen_export.backends.asked_rows import write_engine_graph
from risen_export.backends.choosing import choose
from risen_export.bundles import publish
from risen_export.bundles.manifest import ADAPTED_GRAPH, GRAPH, versions
from risen_export.memory import give_back_memory
from risen_export.merging import apart, merge, saving
from risen_export.merging.source import config_in_memory
from risen_export.quiet import quiet
from risen_plugin.kit.files import read_json, write_json

if TYPE_CHECKING:
    import torch

TARGET = "cpu"
BACKEND = "genai"
"""The exporter whose graphs take adapters."""
_STAMP = "made-of.json"
_NAME = "the model in training"


def export_base(model: Any, tokenizer: Any, folder: Path, precision: str) -> Path:
    """The folder of the graph of a model's base, without the adapter that is trained on it.

    :param model: plain, or PEFT's around it; it is left as it is.
    :param folder: keeps the graph, for the next phase to find.
    :raises ExportError: if it cannot be exported, in one line.
    """
    stamp = {"base": fingerprint(model), "precision": precision, "versions": versions()}
    made = folder / precision
    if _read(folder / _STAMP) == stamp and made.is_dir():
        return made
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scratch = folder / "scratch"
    with quiet():
        config = config_in_memory(model, _NAME)
        backend = choose(config, [(TARGET, precision)], BACKEND, named_for="it takes adapters")
        merged = merge.from_memory(model, tokenizer, name=_NAME, apart=True)
        saving.save(merged, scratch / "merged")
        sizes = apart.linear_sizes(merged.model)
        del merged
        give_back_memory()
        backend.build(scratch / "merged", made, TARGET, precision, scratch=scratch / "cache")
    publish.complete(made, scratch / "merged" / saving.CLIENT)
    write_engine_graph(made)
    branches.add(made / GRAPH, sizes)
    write_engine_graph(made, ADAPTED_GRAPH)
    publish.describe(made, precision, {}, target=TARGET, backend=BACKEND, draft=True)
    shutil.rmtree(scratch)
    write_json(folder / _STAMP, stamp)
    return made


def fingerprint(model: Any) -> str:
    """A hash of a base's configuration and weights, whatever adapters are on it."""
    import torch

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found = hashlib.sha256(json.dumps(base.config.to_dict(), default=str, sort_keys=True).encode())
    for name, tensor in _of_base(base.state_dict().items()):
        found.update(name.encode())
        flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        found.update(flat.numpy().data)
    return found.hexdigest()


def _of_base(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterable[tuple[str, torch.Tensor]]:
    for name, tensor in tensors:
        if ".lora_" not in name:
            yield name.replace(".base_layer.", "."), tensor


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
