"""Load a source in fp32 and fold its adapters into the weights, checking both on the way.

The result is a plain model on the CPU without adapters, with the provenance of its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.merging.adapter import fold_saved
from risen_export.merging.fold import Folded, fold
from risen_export.merging.source import (
    ADAPTER_CONFIG,
    Source,
    check_architecture,
    commit_of,
    hub_file,
    public_name,
    read_json,
)
from risen_export.merging.tokenizers import TokenizerFiles, faithful
from risen_export.merging.weights import (
    check_finite,
    drop_foreign_keys,
    rebuilt,
    settle_ties,
    vocabulary_rows,
    why_unread,
)
from risen_export.quiet import quiet
from risen_export.runtime.logits import not_followed
from risen_plugin.errors import ExportError, one_line
from risen_plugin.kit.files import sha256

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class Merged:
    """A model ready to be compiled. Nothing else holds on to its weights.

    :param model: fp32, on the CPU, in evaluation mode, without adapters.
    :param tokenizer: the tokenizer it was trained with.
    :param files: the tokenizer's files, as every client reads them alike.
    :param provenance: names and hashes of ``model`` and ``merged_adapters``, for the manifest.
    :param notes: sentences for the person who exports, each of what a bundle will not do.
    :param weights: files that hold these very weights already; none where they were changed.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    files: TokenizerFiles
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    weights: tuple[Path, ...] = ()


def load(source: Source, *, show_log: bool = False) -> Merged:
    """Read the weights of ``source`` and merge its adapters, the innermost first.

    :raises ExportError: if weights are missing or not finite, an adapter does not fit the base,
        or there is no tokenizer that every client can read.
    """
    assert source.model is not None
    with ThreadPoolExecutor(max_workers=1) as pool:
        # Gigabytes are hashed while the imports and the tensors are loaded.
        hashing = pool.submit(_hashes, Path(source.model))
        with quiet(show=show_log):
            tokenizer = _tokenizer(source)
            files = faithful(tokenizer, source.text)
            model = _loaded(source)
        check_finite(model.named_parameters(), source.model)
        described = _describe(source.model, model, hashing.result(), source.revision)
    provenance: dict[str, Any] = {"model": described}
    adapters = []
    for name in source.adapters:
        length = len(tokenizer) if _brings_tokenizer(name) else 0
        with quiet(show=show_log):
            folded = fold_saved(model, name, source.model, length)
        model = folded.model
        adapters.append({**_describe_adapter(name), **_measured(folded)})
    if adapters:
        provenance["merged_adapters"] = adapters
        check_finite(model.named_parameters(), f"{source.text}, merged")
    merged = _finish(model, tokenizer, files, provenance, source.text)
    return merged if adapters else replace(merged, weights=_unchanged(merged, source.model))


def _unchanged(merged: Merged, source: str) -> tuple[Path, ...]:
    """The files of a plain model's folder, if what they hold is what was loaded."""
    folder = Path(source)
    config = folder / "config.json"
    if not config.is_file():
        return ()
    tied = read_json(config).get("tie_word_embeddings")
    if tied is not None and bool(tied) != bool(merged.model.config.tie_word_embeddings):
        return ()
    found = sorted(folder.glob("model*.safetensors"))
    return (*found, *folder.glob("model.safetensors.index.json")) if found else ()


def _loaded(source: Source) -> PreTrainedModel:
    """The base model in fp32, all its weights there and of the right shape."""
    import torch
    from transformers import AutoModelForCausalLM

    assert source.model is not None
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.model,
            revision=source.revision,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except Exception as error:  # configs, weight files and tensors each have their own types
        why = why_unread(source.model, error)
        raise ExportError(f"{source.model} cannot be loaded: {why}") from error
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
    return model  # type: ignore[no-any-return]


def from_memory(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str,
    apart: bool = False,
) -> Merged:
    """A copy of a model in memory, its active adapters merged; the original stays as it is.

    :param apart: leave the adapters out.
    :raises ExportError: if the architecture is not supported or weights are not finite.
    """
    import torch

    if getattr(model, "is_quantized", False):
        raise ExportError(
            f"the weights of {name} are quantized; export the adapter that was trained on them "
            "from its folder, whose base is read in full precision"
        )
    files = faithful(tokenizer, name)
    merged: Any = copy.deepcopy(model)
    for module in merged.modules():
        # A forward set on the instance (by accelerate) is bound to the original and would call it.
        module.__dict__.pop("forward", None)
    merged = merged.to(device="cpu", dtype=torch.float32)
    provenance: dict[str, Any] = {}
    configs: Mapping[str, Any] = dict(getattr(merged, "peft_config", {}))
    if configs and apart:
        merged = merged.unload()
    elif configs:
        folded = fold(merged, name)
        merged = folded.model
        described = {key: _describe_config(config.to_dict()) for key, config in configs.items()}
        provenance["merged_adapters"] = [
            {"name": key, **described[key], **_measured(folded, key)} for key in folded.changes
        ]
    merged.config.architectures = [type(merged).__name__]
    check_architecture(merged.config.to_dict(), name)
    settle_ties(merged)
    merged = rebuilt(merged, name)
    check_finite(merged.named_parameters(), f"{name}, merged")
    provenance = {"model": _describe(name, merged, _hashes(Path(name))), **provenance}
    return _finish(merged, tokenizer, files, provenance, name)


def _finish(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    files: TokenizerFiles,
    provenance: dict[str, Any],
    name: str,
) -> Merged:
    rows = vocabulary_rows(model)
    if len(tokenizer) > rows:
        raise ExportError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, its model only {rows}; "
            "they do not belong together"
        )
    model.eval()
    settle_ties(model)
    model.config.architectures = [type(model).__name__]
    foreign = drop_foreign_keys(model.config)
    if foreign:
        provenance["model"]["ignored_config_keys"] = list(foreign)
    _agree_on_the_end(model, tokenizer)
    return Merged(model, tokenizer, files, provenance, (*files.notes, *_settings_notes(model)))


def _settings_notes(model: PreTrainedModel) -> tuple[str, ...]:
    """One sentence about the generation settings that answers of the bundle do not follow."""
    dropped = not_followed(model.generation_config.to_dict())
    if not dropped:
        return ()
    named = ", ".join(f"{name} {value!r}" for name, value in dropped.items())
    return (f"the bundle does not follow these of the model's generation settings: {named}",)


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


def check_tokenizer(source: Source) -> None:
    """Refuse a source without a tokenizer, or with one that cannot be loaded; loads no weights.

    :raises ExportError: in one line.
    """
    _tokenizer(source)


def _tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The outermost adapter's tokenizer if it has one, and so inwards to the base model's."""
    from transformers import AutoTokenizer

    assert source.model is not None
    kept = () if source.kept is None else (source.kept,)
    sources = [*kept, *reversed(source.adapters), source.model]
    for name in sources:
        # The revision that an adapter names is its base's.
        revision = source.revision if name == source.model else None
        # From a folder with a config.json alone, transformers would make an empty tokenizer.
        if not _brings_tokenizer(name, revision):
            continue
        try:
            return AutoTokenizer.from_pretrained(name, revision=revision)
        except Exception as error:  # its backend raises plain Exceptions
            raise ExportError(
                f"the tokenizer in {name} cannot be loaded: {one_line(error)}; save it again: "
                "tokenizer.save_pretrained(...)"
            ) from error
    raise ExportError(
        f"there is no tokenizer in {' or '.join(sources)}; save it beside the model: "
        "tokenizer.save_pretrained(...)"
    )


def _brings_tokenizer(name: str, revision: str | None = None) -> bool:
    folder = Path(name)
    if folder.is_dir():
        return any((folder / name).is_file() for name in _VOCABULARIES)
    return hub_file(name, "tokenizer_config.json", revision) is not None


def _hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of a folder's weights by their names; none where it is a name on the hub."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return {file.name: sha256(file) for file in files}


def _describe(
    name: str, model: PreTrainedModel, hashes: Mapping[str, str], revision: str | None = None
) -> dict[str, Any]:
    return {
        "name": public_name(name),
        "architecture": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tied_embeddings": bool(model.config.tie_word_embeddings),
        "commit": commit_of(name, revision),
        "sha256": dict(hashes),
    }


def _describe_adapter(name: str) -> dict[str, Any]:
    folder = Path(name)
    if not folder.is_dir():
        config = hub_file(name, ADAPTER_CONFIG)
        described = {} if config is None else _describe_config(read_json(config))
        return {"name": name, "commit": commit_of(name, file=ADAPTER_CONFIG), **described}
    return {
        "name": public_name(name),
        **_describe_config(read_json(folder / ADAPTER_CONFIG)),
        "sha256": {file.name: sha256(file) for file in sorted(folder.glob("adapter_model.*"))},
    }


def _describe_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter's configuration says of its kind, without the folders of this machine."""
    base = config.get("base_model_name_or_path")
    kind = config.get("peft_type")
    return {
        "peft_type": getattr(kind, "value", kind),
        "r": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "use_dora": bool(config.get("use_dora")),
        "use_rslora": bool(config.get("use_rslora")),
        "base": None if base is None else public_name(str(base)),
    }


def _measured(folded: Folded, adapter: str | None = None) -> dict[str, Any]:
    """What folding has changed and how exact it was, as data.

    :param adapter: one of several that were folded at once; None for the only one.
    """
    changes = folded.changes.get(adapter or next(iter(folded.changes), ""), {})
    largest = max(changes, key=changes.__getitem__, default=None)
    return {
        "relative_change": {name: float(f"{change:.4g}") for name, change in changes.items()},
        "largest_change": largest,
        "merged_against_adapter": folded.measured,
    }
