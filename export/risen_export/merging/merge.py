"""Load a source in fp32 and fold its adapter into the weights, checking both on the way.

The result is a plain model on the CPU without adapters, with the provenance of its weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.merging.adapter import check_finite, fold, fold_saved, vocabulary_rows
from risen_export.merging.source import (
    ADAPTER_CONFIG,
    Source,
    check_architecture,
    commit_of,
    hub_file,
    read_json,
)
from risen_export.quiet import quiet
from risen_plugin.errors import ExportError, one_line
from risen_plugin.kit.files import sha256

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class Merged:
    """A model ready to be compiled.

    :param model: fp32, on the CPU, in evaluation mode, without adapters.
    :param tokenizer: the tokenizer it was trained with.
    :param provenance: names and hashes of ``model`` and ``adapter``, for the manifest.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    provenance: dict[str, Any] = field(default_factory=dict)


def load(source: Source, *, show_log: bool = False) -> Merged:
    """Read the weights of ``source`` and merge its adapter.

    :raises ExportError: if weights are missing or not finite, the adapter does not fit the base,
        or there is no tokenizer.
    """
    import torch
    from transformers import AutoModelForCausalLM

    assert source.model is not None
    with quiet(show=show_log):
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source.model,
                revision=source.revision,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
            )
        except Exception as error:  # configs, weight files and tensors each have their own types
            raise ExportError(f"{source.model} cannot be loaded: {one_line(error)}") from error
        tokenizer = _tokenizer(source)
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise ExportError(
            f"{source.model} lacks weights: {missing[0]} and {len(missing) - 1} more of the "
            "tensors that its config.json asks for"
        )
    for name, shape, wanted in sorted(report["mismatched_keys"])[:1]:
        raise ExportError(
            f"{source.model}: weight {name} has the shape {tuple(shape)}, and its config.json asks "
            f"for {tuple(wanted)}; they do not belong together"
        )
    check_finite(model.named_parameters(), source.model)
    provenance: dict[str, Any] = {"model": _describe(source.model, model, source.revision)}
    if source.adapter is not None:
        with quiet(show=show_log):
            model = fold_saved(model, source.adapter, source.model)
        provenance["adapter"] = _describe_adapter(source.adapter)
    return _finish(model, tokenizer, provenance, source.text)


def from_memory(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, *, name: str
) -> Merged:
    """A copy of a model in memory, its adapters merged; the original stays as it is.

    :raises ExportError: if the architecture is not supported or weights are not finite.
    """
    import torch

    merged: Any = copy.deepcopy(model)
    for module in merged.modules():
        # A forward set on the instance (by accelerate) is bound to the original and would call it.
        module.__dict__.pop("forward", None)
    merged = merged.to(device="cpu", dtype=torch.float32)
    provenance: dict[str, Any] = {}
    if hasattr(merged, "peft_config"):
        adapters = {
            key: {
                field: getattr(value, "value", value)
                for field, value in config.to_dict().items()
                if field in ("peft_type", "r", "lora_alpha", "base_model_name_or_path")
            }
            for key, config in merged.peft_config.items()
        }
        provenance["adapter"] = {"path": None, "adapters": adapters}
        merged = fold(merged, name)
    merged.config.architectures = [type(merged).__name__]
    check_architecture(merged.config.to_dict(), name)
    provenance = {"model": _describe(name, merged), **provenance}
    return _finish(merged, tokenizer, provenance, name)


def _finish(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    provenance: dict[str, Any],
    name: str,
) -> Merged:
    check_finite(model.named_parameters(), f"{name}, merged")
    rows = vocabulary_rows(model)
    if len(tokenizer) > rows:
        raise ExportError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, its model only {rows}; "
            "they do not belong together"
        )
    model.eval()
    _agree_on_the_end(model, tokenizer)
    return Merged(model, tokenizer, provenance)


def _agree_on_the_end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Put the tokenizer's end-of-turn token among those that end an answer, for every client."""
    generation = model.generation_config
    known = generation.eos_token_id
    ids = list(known) if isinstance(known, (list, tuple)) else [] if known is None else [known]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.insert(0, tokenizer.eos_token_id)
    if not ids:
        raise ExportError(
            "neither the model's generation config nor its tokenizer names an end-of-text token; "
            "set tokenizer.eos_token"
        )
    generation.eos_token_id = ids[0] if len(ids) == 1 else ids
    if generation.pad_token_id is None:
        pad = tokenizer.pad_token_id
        generation.pad_token_id = ids[0] if pad is None else pad


def _tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The adapter's tokenizer if it has one, else the base model's."""
    from transformers import AutoTokenizer

    sources = [name for name in (source.adapter, source.model) if name is not None]
    for name in sources:
        # From a folder with a config.json alone, transformers would make an empty tokenizer.
        if not _brings_tokenizer(name):
            continue
        try:
            return AutoTokenizer.from_pretrained(name)
        except Exception as error:  # its backend raises plain Exceptions
            raise ExportError(
                f"the tokenizer in {name} cannot be loaded: {one_line(error)}; save it again: "
                "tokenizer.save_pretrained(...)"
            ) from error
    raise ExportError(
        f"there is no tokenizer in {' or '.join(sources)}; save it beside the model: "
        "tokenizer.save_pretrained(...)"
    )


def _brings_tokenizer(name: str) -> bool:
    folder = Path(name)
    if folder.is_dir():
        return any((folder / name).is_file() for name in _VOCABULARIES)
    return hub_file(name, "tokenizer_config.json") is not None


def _describe(name: str, model: PreTrainedModel, revision: str | None = None) -> dict[str, Any]:
    folder = Path(name)
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return {
        "name": name,
        "architecture": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tied_embeddings": bool(model.config.tie_word_embeddings),
        "commit": commit_of(name, revision),
        "sha256": {file.name: sha256(file) for file in files},
    }


def _describe_adapter(name: str) -> dict[str, Any]:
    folder = Path(name)
    if not folder.is_dir():
        return {"path": name}
    config = read_json(folder / ADAPTER_CONFIG)
    return {
        "path": name,
        "peft_type": config.get("peft_type"),
        "r": config.get("r"),
        "base": config.get("base_model_name_or_path"),
        "sha256": {file.name: sha256(file) for file in sorted(folder.glob("adapter_model.*"))},
    }
