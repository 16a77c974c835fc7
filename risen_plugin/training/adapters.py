"""A phase's adapter: made, saved, folded into the model's parameters, or put back as it was."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftModelForCausalLM
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from risen_plugin.config import LoraSettings
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.protocols import AdaptedModel, Model

REFERENCE = "ref"
"""TRL's name for the frozen copy of a user's adapter."""


def base_of(model: Model) -> Model:
    """The model that an adapter is on; a plain model itself."""
    return cast(Model, model.get_base_model()) if isinstance(model, PeftModel) else model


class OwnAdapter(PeftModelForCausalLM):
    """PEFT's view of a model that holds its adapter itself, with the same modules and parameters.

    So does a model after transformers' ``add_adapter``, and saves nothing but that adapter.
    """


def is_adapted_itself(model: Model) -> bool:
    """Whether a model holds adapters, and no PeftModel is around it."""
    return not isinstance(model, PeftModel) and any(
        isinstance(module, BaseTunerLayer) for module in model.modules()
    )


def active_adapters(model: Model) -> list[str]:
    """The names of the adapters that a model answers with."""
    layers = (module for module in model.modules() if isinstance(module, BaseTunerLayer))
    return list(dict.fromkeys(name for layer in layers for name in layer.active_adapters))


def as_peft_model(model: Model) -> Model:
    """The model as PEFT and TRL know models with adapters; it is left as it was itself."""
    if not is_adapted_itself(model):
        return model
    [name] = active_adapters(model)
    config = plainly_begun(cast(AdaptedModel, model).peft_config[name])
    with clean_room(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Begins the adapter anew; the clean room puts the modules and parameters back.
        return cast(Model, OwnAdapter(cast(PreTrainedModel, model), config, name))


def as_saved(model: Model) -> Model:
    """The model whose ``save_pretrained`` a Trainer calls."""
    return base_of(model) if isinstance(model, OwnAdapter) else model


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
    model's own file, with a forward of its own (Llama 4). Falcon's layers have one too, which
    returns what any linear layer does.
    """
    modules = dict(cast(torch.nn.Module, model).named_modules())
    home = type(model).__module__
    unfit = [
        name
        for name, module in modules.items()
        if isinstance(module, torch.nn.Linear)
        and type(module).__module__ == home
        and type(module).forward is not torch.nn.Linear.forward
        and not _gives_one_row(module)
    ]
    if getattr(model.config, "model_type", None) in _MAMBA:
        unfit += [name for name in modules if name.rpartition(".")[2] in _READ_PAST]
    return unfit


def _gives_one_row(layer: torch.nn.Linear) -> bool:
    """Whether a layer makes one tensor of a row, as wide as it says."""
    row = layer.weight.new_zeros(1, layer.in_features)
    try:
        with torch.no_grad():
            made = layer(row)
    except Exception:  # noqa: BLE001  a forward of somebody else's, which may ask for more
        return False
    return isinstance(made, torch.Tensor) and made.shape == (1, layer.out_features)


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


def entry_folder(folder: Path) -> Path:
    """The folder of the weights at phase entry, if they are saved."""
    return folder / "entry"


@contextmanager
def same_weights(model: Model) -> Iterator[None]:
    """Put values and types back that the making of a trainer changed, and what the user trains.

    TRL casts adapters on quantized bases to bf16, in which the outer run does not train them, and a
    further adapter has PEFT train all of the active one and nothing else.
    """
    is_users = isinstance(model, PeftModel)
    held = [(p, p.data, p.requires_grad) for p in model.parameters()]
    yield
    for parameter, data, requires_grad in held:
        if parameter.device == data.device:
            parameter.data = data
        if is_users:  # a plain model is frozen under its temporary adapter
            parameter.requires_grad_(requires_grad)


def add_reference(model: AdaptedModel) -> None:
    """Add the frozen copy of the user's adapter that TRL takes its KL to.

    TRL's own copying finds only an adapter called 'default', leaves out the parts whose names end
    in the adapter's name, and begins the copy as the adapter was begun: PiSSA, OLoRA and their like
    then rewrite the weights of the base model.
    """
    name = str(model.active_adapter)
    with same_weights(model):
        model.add_adapter(REFERENCE, plainly_begun(model.peft_config[name]))
    for kind in (model.named_parameters, model.named_buffers):
        tensors = dict(kind(remove_duplicate=False))
        for copied, tensor in tensors.items():
            original = _counterpart(copied, name, tensors)
            if original is not None:
                tensor.requires_grad_(False)
                tensor.data = tensors[original].detach().clone()


def plainly_begun(config: PeftConfig) -> PeftConfig:
    """The configuration of a copy, whose first values are of no account."""
    plain = copy.deepcopy(config)
    if isinstance(plain, LoraConfig):
        if isinstance(plain.init_lora_weights, str):
            plain.init_lora_weights = True
        plain.lora_dropout = 0.0
    return plain


def _counterpart(copied: str, name: str, tensors: Container[str]) -> str | None:
    """The tensor of the adapter called ``name`` that one of the reference is a copy of."""
    parts = copied.split(".")
    for place, part in enumerate(parts):
        if part == REFERENCE:
            original = ".".join([*parts[:place], name, *parts[place + 1 :]])
            if original in tensors:
                return original
    return None


class Snapshot:
    """A model's weights at phase entry: put back where a phase is dropped, and after an exception.

    What training writes in place, the weights of a user's adapter, is trained in copies. Of all
    other parameters nothing is copied: whatever changes them, be it a cast, another adapter's first
    values or merging, puts another tensor in the place of theirs.
    """

    def __init__(self, model: Model) -> None:
        self.is_users = isinstance(model, PeftModel)
        self.held = [(parameter, parameter.data) for parameter in model.parameters()]
        self.trained = _trained_in_place(cast(AdaptedModel, model)) if self.is_users else []
        for parameter in self.trained:
            parameter.data = parameter.data.clone()
        self._whole: list[tuple[torch.nn.Parameter, torch.Tensor, torch.Tensor]] = []

    def restore(self) -> None:
        """Put every parameter's values back, in their own type and place."""
        for parameter, data in self.held:
            parameter.data = data

    @contextmanager
    def as_kept(self, trained: AdaptedModel) -> Iterator[None]:
        """The model in training as it would be kept, for as long as this is open."""
        now = [(parameter, parameter.data) for parameter, _ in self.held]
        self.settle(trained)
        try:
            yield
        finally:
            for parameter, data in now:
                parameter.data = data
            _forget_merge(trained)

    def settle(self, trained: AdaptedModel) -> bool:
        """Have the model be as it is kept: a temporary adapter merged, each type as it was.

        :return: whether it can be kept; an adapter that makes weights infinite or NaN cannot, and
            is not merged.
        """
        entry = {id(parameter): data for parameter, data in self.held}
        for parameter in self.trained:
            data = entry.pop(id(parameter))
            parameter.data = parameter.data.to(data.device, data.dtype)
        for parameter, data in self.held:
            if id(parameter) in entry:
                parameter.data = data
        if self.is_users:
            return all(bool(torch.isfinite(parameter).all()) for parameter in self.trained)
        try:
            # Writes new tensors into the same Parameter objects.
            trained.merge_adapter(safe_merge=True)
        except ValueError:  # PEFT's word for weights that are not finite
            self.restore()
            _forget_merge(trained)
            return False
        return True

    def settle_at(self, trained: AdaptedModel, strength: float) -> bool:
        """Have a model that is settled be as it is kept at a share of what was trained.

        Of each pair of a new LoRA adapter one factor is scaled, the one that begins at 0, so that
        whoever loads it gets the share without a word of it. Every other parameter, such as those
        of an adapter that had been trained before, goes that share of the way from its value at
        phase entry.

        :param strength: above 0; 1 for all that was trained, bit for bit.
        :return: whether it can be kept, as of :meth:`settle`.
        """
        if not self._whole:
            self._whole = self._ways(trained)
        for parameter, entry, whole in self._whole:
            parameter.data = whole if strength == 1.0 else _between(entry, whole, strength)
        if not self.is_users:
            _forget_merge(trained)
        return self.settle(trained)

    def _ways(
        self, trained: AdaptedModel
    ) -> list[tuple[torch.nn.Parameter, torch.Tensor, torch.Tensor]]:
        """The parameters that a strength changes: each with its value at entry, and as trained."""
        if not self.is_users:
            seconds = {id(second): second for _, second in _factors(trained)}
            return [(p, torch.zeros_like(p.data), p.data) for p in seconds.values()]
        entry = {id(parameter): data for parameter, data in self.held}
        whole: set[int] = set()
        for first, second in _factors(trained):
            for begun, other in ((second, first), (first, second)):
                if id(begun) in entry and not entry[id(begun)].any():
                    whole.add(id(other))
                    break
        return [
            (parameter, entry[id(parameter)], parameter.data)
            for parameter in self.trained
            if id(parameter) not in whole and parameter.is_floating_point()
        ]

    @contextmanager
    def as_entered(self) -> Iterator[None]:
        """The settled model as it was at phase entry, for as long as this is open."""
        now = [(parameter, parameter.data) for parameter, _ in self.held]
        self.restore()  # a merged adapter's layers add nothing to it
        try:
            yield
        finally:
            for parameter, data in now:
                parameter.data = data

    @contextmanager
    def entry_weights(self) -> Iterator[None]:
        """The old weights in place of those in training, for as long as this is open."""
        now = [parameter.data for parameter in self.trained]
        entry = {id(parameter): data for parameter, data in self.held}
        for parameter in self.trained:
            parameter.data = entry[id(parameter)]
        try:
            yield
        finally:
            for parameter, data in zip(self.trained, now, strict=True):
                parameter.data = data

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None:
            self.restore()


def _trained_in_place(model: AdaptedModel) -> list[torch.nn.Parameter]:
    """What a phase may train: what the user trains, and all of their adapter."""
    name = str(model.active_adapter)
    return [p for n, p in model.named_parameters() if p.requires_grad or name in n.split(".")]


def _factors(model: AdaptedModel) -> Iterator[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """The two factors of each pair of the active LoRA adapters."""
    for module in model.modules():
        if not isinstance(module, LoraLayer):
            continue
        for name in module.active_adapters:
            for first, second in (
                (module.lora_A, module.lora_B),
                (module.lora_embedding_A, module.lora_embedding_B),
            ):
                if name in first:
                    yield _weight_of(first[name]), _weight_of(second[name])


def _weight_of(factor: torch.nn.Module | torch.Tensor) -> torch.nn.Parameter:
    """A factor's weight; LoRA has it in a module, its embeddings and AdaLoRA have it bare."""
    weight = factor.weight if isinstance(factor, torch.nn.Module) else factor
    return cast(torch.nn.Parameter, weight)


def _between(entry: torch.Tensor, whole: torch.Tensor, strength: float) -> torch.Tensor:
    """A share of the way from one tensor to another, in their own type."""
    precise = torch.promote_types(whole.dtype, torch.float32)
    begin = entry.to(whole.device, precise)
    return torch.lerp(begin, whole.to(precise), strength).to(whole.dtype)


def _forget_merge(trained: AdaptedModel) -> None:
    """Have the layers of an adapter add it again; PEFT's own way back rounds."""
    for module in trained.modules():
        if isinstance(module, BaseTunerLayer):
            module.merged_adapters.clear()
