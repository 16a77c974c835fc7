"""Find the weights that RUN_OR_MODEL names, and refuse unfit models before weights are read.

A source is a model folder, a hub id, a PEFT adapter, or a run's output folder (its saved model,
else its newest checkpoint); an adapter's base may be an adapter itself. Only small JSON files are
read here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from risen_export.backends import classes
from risen_plugin.embedded import EMBEDDED, base_model
from risen_plugin.errors import ExportError, near_beside
from risen_plugin.kit.hub import may_be_on_hub

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Source:
    """The weights to export.

    :param text: the name that the user wrote.
    :param model: folder or hub id of the base weights; None for a model in memory.
    :param adapters: folders or hub ids of the PEFT adapters on it, in the order of folding: each
        was trained on the base with those before it.
    :param run: the run's output folder with its record, if it came from a run.
    :param revision: revision of ``model`` on the hub, where the adapter on it names one.
    :param kept: an adapter that stays beside the weights; its tokenizer is taken all the same.
    """

    text: str
    model: str | None
    adapters: tuple[str, ...] = ()
    run: Path | None = None
    revision: str | None = None
    kept: str | None = None

    @property
    def adapter(self) -> str | None:
        """The outermost adapter; None if there is none."""
        return self.adapters[-1] if self.adapters else None


def resolve(name: str | Path, adapters: Sequence[str | Path] = ()) -> Source:
    """Find the weights that ``name`` refers to.

    :param adapters: adapters to fold in after what ``name`` refers to, in this order, whatever
        base they name themselves.
    :raises ExportError: if there are none, naming the files that it needs.
    """
    source = _resolve(str(name) or ".", frozenset())
    more = [_resolve(str(one), frozenset()) for one in adapters]
    for given, one in zip(adapters, more, strict=True):
        if one.adapter is None:
            raise ExportError(f"{given} is not a PEFT adapter (it has no {ADAPTER_CONFIG})")
    stacked = (*source.adapters, *(one.adapter for one in more if one.adapter is not None))
    return replace(source, adapters=stacked)


def _resolve(text: str, above: frozenset[str]) -> Source:
    """As :func:`resolve`, for one name.

    :param above: the adapters that led to this one as their base, to see a circle.
    """
    path = Path(text).expanduser()
    if text == EMBEDDED and not path.exists():
        path = base_model()
    if path.is_dir():
        return _in_folder(text, path, above)
    if path.exists():
        raise ExportError(f"{text} is a file; give the folder of a model, an adapter or a run")
    if not may_be_on_hub(text):
        raise ExportError(f"there is no folder {text}{_sibling(path)}")
    return _on_hub(text, path, above)


def _in_folder(name: str, path: Path, above: frozenset[str]) -> Source:
    run = next(
        (
            f
            for f in (path, path.parent, path.parent.parent)
            if (f / "risen" / "run.json").is_file()
        ),
        None,
    )
    trained = None if run is None else _trained_adapter(run)
    holder = _holder(path, trained) or _newest_checkpoint(path, trained)
    if holder is None:
        _refuse_several(name, path)
        lone = [one for one in ("config.json", ADAPTER_CONFIG) if (path / one).is_file()]
        what = f"{lone[0]} and no" if lone else f"no config.json or {ADAPTER_CONFIG} with"
        raise ExportError(
            f"{name} holds nothing to export: {what} weights (*.safetensors), and no checkpoint-N "
            f"with them; {_what_to_do(name, path)}"
        )
    if not _holds_adapter(holder):
        return Source(name, str(holder), run=run)
    base = _base_of(holder / ADAPTER_CONFIG, name, above)
    return replace(base, text=name, adapters=(*base.adapters, str(holder)), run=run)


def _trained_adapter(run: Path) -> str | None:
    """The name of the adapter that a run trained, by its record; None if it says none."""
    model = read_json(run / "risen" / "run.json").get("model")
    name = model.get("adapter") if isinstance(model, dict) else None
    return name if isinstance(name, str) else None


def _holder(folder: Path, trained: str | None) -> Path | None:
    """The folder itself, or an adapter in it: PEFT saves each in a folder of its name.

    Only the adapter called ``default`` lies in the folder itself, beside those of other names.

    :param trained: the name of the one that the run trained, where that is known.
    """
    named = _named_adapters(folder)
    if trained in named:
        return named[trained]
    if _holds_weights(folder):
        return folder
    return next(iter(named.values())) if len(named) == 1 else None


def _named_adapters(folder: Path) -> dict[str, Path]:
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    return {
        child.name: child
        for child in children
        if _holds_adapter(child) and not _CHECKPOINT.match(child.name)
    }


def _refuse_several(name: str, folder: Path) -> None:
    """Refuse a folder with adapters of which none is known to be meant."""
    checkpoints = [child for child in folder.iterdir() if _CHECKPOINT.match(child.name)]
    for place in (folder, *sorted(checkpoints)):
        named = _named_adapters(place) if place.is_dir() else {}
        if len(named) > 1:
            raise ExportError(
                f"{name} holds nothing to export by itself, but the adapters "
                f"{', '.join(named)}; give one of them: {next(iter(named.values()))}"
            )


def _holds_weights(folder: Path) -> bool:
    model = (folder / "config.json").is_file() and _any(folder, _WEIGHTS)
    return model or _holds_adapter(folder)


def _holds_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).is_file() and _any(folder, _ADAPTER_WEIGHTS)


def _newest_checkpoint(folder: Path, trained: str | None) -> Path | None:
    """The checkpoint of the highest step that is complete."""
    holders = {
        int(match[1]): _holder(child, trained)
        for child in folder.iterdir()
        if (match := _CHECKPOINT.match(child.name)) and child.is_dir()
    }
    steps = {step: holder for step, holder in holders.items() if holder is not None}
    return steps[max(steps)] if steps else None


def _base_of(config: Path, name: str, above: frozenset[str]) -> Source:
    """The base model that an adapter names: a folder, seen from here or from it, or an id.

    It may be an adapter in turn, which was trained first.
    """
    adapter = read_json(config)
    base = adapter.get("base_model_name_or_path")
    if not base:
        raise ExportError(
            f"{config} names no base model (base_model_name_or_path is empty); "
            "write its folder or hub id there"
        )
    text = str(base)
    here = str(config.parent.resolve())
    if here in above:
        raise ExportError(f"adapter {name} names itself as its base; correct {config}")
    for folder in (Path(text).expanduser(), config.parent / text):
        if _holds_adapter(folder) and folder.resolve() != config.parent.resolve():
            return _resolve(str(folder), above | {here})
        if folder.is_dir():
            return Source(str(folder), str(folder))
    if Path(text).is_absolute() or not may_be_on_hub(text):
        raise ExportError(
            f"the base model of adapter {name} is not there: {text}; "
            f"export the whole run, keep the weights at phase entry (keep_entry=True), or correct "
            f"base_model_name_or_path in {config}"
        )
    revision = adapter.get("revision")
    if hub_file(text, ADAPTER_CONFIG, revision) is not None:
        return _on_hub(text, Path(text), above | {here})
    return Source(text, text, revision=revision)


def _what_to_do(name: str, path: Path) -> str:
    """Where a folder has no weights: its run goes on, or has ended and kept no phase."""
    try:
        has_kept: object = read_json(path / "finished.json").get("kept")
    except ExportError:  # none, or none that can be read
        has_kept = None
    if has_kept is False:
        return f"its run has ended and kept no phase: 'risen report {name}' says why"
    return "if the run is still going, wait for its first save"


def _on_hub(name: str, path: Path, above: frozenset[str]) -> Source:
    """A hub id, or one in the local cache; the files show whether it is an adapter.

    The repository of an adapter may hold a ``config.json`` too, as transformers reads it.
    """
    config = hub_file(name, ADAPTER_CONFIG)
    if config is not None:
        base = _base_of(config, name, above)
        return replace(base, text=name, adapters=(*base.adapters, name))
    if hub_file(name, "config.json") is not None:
        return Source(name, name)
    raise ExportError(
        f"'{name}' is neither a folder nor a model on the hub or in its local cache{_unasked()}"
        f"{_sibling(path)}"
    )


def _unasked() -> str:
    """Why the hub says nothing of any model just now, in brackets; empty where it can be asked."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return " (the hub was not asked: HF_HUB_OFFLINE is set)"
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE_S)
    except Exception:  # noqa: BLE001 requests or httpx, by release, each with its own errors
        return " (the hub cannot be reached)"
    return ""


def hub_file(name: str, file: str, revision: str | None = None) -> Path | None:
    """A small file of a hub repository, from the cache or downloaded; None if neither works."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except (OSError, HFValidationError, HfHubHTTPError):
        return None


def public_name(name: str) -> str:
    """A model or adapter by name, without the folders of this machine above it."""
    folder = Path(name).expanduser()
    return folder.resolve().name if folder.is_dir() or folder.is_absolute() else name


def commit_of(name: str, revision: str | None = None, file: str = "config.json") -> str | None:
    """The commit that a hub repository was loaded at; None for a folder or an unknown one.

    :param file: a file that is in the repository.
    """
    path = None if Path(name).is_dir() else hub_file(name, file, revision)
    return path.parent.name if path is not None and path.parent.parent.name == "snapshots" else None


def check_config(source: Source) -> dict[str, Any]:
    """The base model's whole configuration, if it is a decoder that writes text.

    :raises ExportError: for encoder-decoder and classification models, and for classes that
        transformers does not have, in one line with the reason.
    """
    assert source.model is not None
    folder = Path(source.model)
    path = (
        folder / "config.json"
        if folder.is_dir()
        else hub_file(source.model, "config.json", source.revision)
    )
    if path is None or not path.is_file():
        whose = f"the base model of adapter {source.text}" if source.adapter else "the model"
        raise ExportError(
            f"{whose} cannot be found: {source.model} has no config.json here, on the hub "
            "or in its local cache"
            + (
                f"; correct base_model_name_or_path in its {ADAPTER_CONFIG}"
                if source.adapter
                else ""
            )
        )
    config = read_json(path)
    return check_architecture(config, source.model)


def config_in_memory(model: Any, name: str) -> dict[str, Any]:
    """The whole configuration of a model in memory, plain or with adapters of PEFT.

    :raises ExportError: as :func:`check_config`.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return check_architecture(
        {**base.config.to_dict(), "architectures": [type(base).__name__]}, name
    )


def check_architecture(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The whole configuration of a model, if it is a decoder that writes text.

    Whether a graph can be made of it is left to the exporters.

    :raises ExportError: as :func:`check_config`.
    """
    named = config.get("architectures")
    named = named if isinstance(named, list) else []
    architecture = named[0] if named else f"model_type '{config.get('model_type')}'"
    if config.get("is_encoder_decoder"):
        raise ExportError(
            f"{name} is an encoder-decoder model ({architecture}); only decoder-only language "
            "models are exported"
        )
    if named and "Classification" in architecture:
        raise ExportError(
            f"{name} is a classification model ({architecture}); only models that write text "
            "(...ForCausalLM) are exported"
        )
    if not named:
        raise ExportError(
            f"{name}/config.json names no architectures; add the list with the model class there"
        )
    reason = _no_class(architecture, str(config.get("model_type") or ""))
    if reason is not None:
        raise ExportError(f"{name}: architecture {architecture} cannot be exported{reason}")
    try:
        return classes.whole(config)
    except ExportError as error:
        raise ExportError(f"{name}/config.json: {error}") from error


def _no_class(architecture: str, kind: str) -> str | None:
    """Why transformers would not load the architecture as the model that the file says it is."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = {str(key): value for key, value in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()}
    if architecture == known.get(kind):
        return None
    if architecture not in known.values():
        # Another architecture with a like name is another model, so only the model type tells.
        meant = f", and model_type '{kind}' is that of {known[kind]}" if kind in known else ""
        return f": transformers has no causal language model of this name{meant}"
    if not kind:
        return ": config.json names no model_type"
    other = known.get(kind, "no model that writes text")
    return f": model_type '{kind}' in config.json is that of {other}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    :raises ExportError: if it cannot be read or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path} does not hold a JSON object")
    return content


def _any(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in names)


def _sibling(path: Path) -> str:
    """A near miss among the folders beside a path that does not exist."""
    if not path.parent.is_dir():
        return ""
    return near_beside(path, [child.name for child in path.parent.iterdir() if child.is_dir()])
