"""A phase's adapter: made, saved, folded into the model's parameters, or put back as it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel

from risen_plugin.config import LoraSettings
from risen_plugin.training.protocols import AdaptedModel, Model

_REFERENCE = "ref"  # TRL's name for the frozen copy of a user's adapter
_TRLS_NAME = "default"  # the only adapter name that TRL's reference copy knows


def base_of(model: Model) -> Model:
    """The model that an adapter is on; a plain model itself."""
    return cast(Model, model.get_base_model()) if isinstance(model, PeftModel) else model


def fresh_lora(model: Model, settings: LoraSettings) -> LoraConfig:
    """The adapter of a phase on a plain model, or of a run that trains an adapter alone."""
    targets = settings.target_modules
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=_unfit_layers(model) or None if targets == "all-linear" else None,
        task_type="CAUSAL_LM",
    )


_MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_READ_PAST = ("out_proj", "conv1d")
"""PEFT refuses these layers in models of these types: their kernels read the weights themselves."""


def _unfit_layers(model: Model) -> list[str]:
    """Linear layers that no adapter can sit on although ``all-linear`` means them, by name.

    A router, for one, may be a linear layer that returns more than one tensor: a class of the
    model's own file, with a forward of its own (Llama 4).
    """
    modules = dict(cast(torch.nn.Module, model).named_modules())
    home = type(model).__module__
    unfit = [
        name
        for name, module in modules.items()
        if isinstance(module, torch.nn.Linear)
        and type(module).__module__ == home
        and type(module).forward is not torch.nn.Linear.forward
    ]
    if getattr(model.config, "model_type", None) in _MAMBA:
        unfit += [name for name in modules if name.rpartition(".")[2] in _READ_PAST]
    return unfit


def save_adapter(
    model: Model, trained: AdaptedModel, folder: Path, called: str = "adapter"
) -> None:
    """Save the adapter of ``trained`` under a name in ``folder``, whole or not at all.

    :param model: the model that the phase began with.
    """
    if isinstance(model, PeftModel):
        name = str(model.active_adapter)
    else:
        name = "default"
        # It belongs to the weights at phase entry, not to the model that the run began with.
        entry = str(entry_folder(folder).absolute())
        trained.peft_config[name].base_model_name_or_path = entry
    temporary = folder.with_name(f".{folder.name}.adapter")
    try:
        trained.save_pretrained(
            str(temporary), selected_adapters=[name], save_embedding_layers=False
        )
        saved = temporary / name if (temporary / name).is_dir() else temporary
        folder.mkdir(parents=True, exist_ok=True)
        saved.replace(folder / called)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def merge(trained: AdaptedModel) -> None:
    """Write the adapter into the same Parameter objects; refuses an adapter that holds NaN."""
    trained.merge_adapter(safe_merge=True)


def entry_folder(folder: Path) -> Path:
    """The folder of the weights at phase entry, if they are saved."""
    return folder / "entry"


class adapter_called_default:  # noqa: N801 reads as a phrase where it is used
    """Show the user's adapter to TRL as ``default``, then copy it to TRL's reference.

    TRL 1.16 looks for an adapter of that name alone, so any other one ends in a KeyError.
    """

    def __init__(self, model: Model, *, enabled: bool) -> None:
        self.model = cast(AdaptedModel, model)  # if it is enabled
        self.name = self.model.active_adapter if enabled else _TRLS_NAME
        self.enabled = enabled and self.name != _TRLS_NAME

    def __enter__(self) -> None:
        if self.enabled:
            self.model.peft_config[_TRLS_NAME] = self.model.peft_config[self.name]

    def __exit__(self, *exception: object) -> None:
        if not self.enabled:
            return
        del self.model.peft_config[_TRLS_NAME]
        if exception[0] is None:
            _copy_adapter(self.model, self.name, _REFERENCE)


def _copy_adapter(model: Model, source: str, target: str) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        if f".{source}." in name:
            parameters[name.replace(f".{source}.", f".{target}.")].data.copy_(parameter.data)


class Snapshot:
    """A PeftModel's trainable weights as they were; put back also after an exception.

    A plain model's weights are only written when a phase is accepted, so it needs no snapshot.
    """

    def __init__(self, model: Model) -> None:
        self.held: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        if isinstance(model, PeftModel):
            self.held = [(p, p.detach().clone()) for p in model.parameters() if p.requires_grad]

    def restore(self) -> None:
        with torch.no_grad():
            for parameter, value in self.held:
                parameter.copy_(value)

    @contextmanager
    def entry_weights(self) -> Iterator[None]:
        """The old weights in place of those in training, for as long as this is open."""
        trained = [parameter.data for parameter, _ in self.held]
        for parameter, value in self.held:
            parameter.data = value
        try:
            yield
        finally:
            for (parameter, _), value in zip(self.held, trained, strict=True):
                parameter.data = value

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None:
            self.restore()
