"""Fold adapters into the weights that they sit on, each by its own kind's rule, and measure it.

Works on any model that holds PEFT's layers: a ``PeftModel``, or a model after transformers'
``add_adapter``. The answers before and after are compared, so that a kind of adapter whose rule is
not a change of weights is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from risen_export.merging.weights import settle_biases, settle_ties, vocabulary_rows
from risen_plugin.errors import ExportError, one_line

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

# fp32 rounding of the merged product, relative to the largest logit.
_MERGE_TOLERANCE = 1e-3
_ROWS, _LENGTH = 2, 24


@dataclass(frozen=True)
class Folded:
    """A base model with adapters in its weights.

    :param changes: per adapter, the Frobenius norm of what it changed in each module, relative to
        the module's weights before.
    :param measured: ``max_logit_diff`` between the model with adapters and the merged one,
        ``max_logit`` and ``argmax_agreement`` over ``tokens`` positions of seeded random tokens.
    """

    model: PreTrainedModel
    changes: dict[str, dict[str, float]]
    measured: dict[str, float]


def fold(wrapped: PreTrainedModel | PeftModel, name: str) -> Folded:
    """The base model of ``wrapped`` with its active adapters in the weights.

    :raises ExportError: if they cannot be folded in, or the model then answers otherwise.
    """
    places = list(_places(wrapped))
    if not places:
        raise ExportError(f"the adapter of {name} has no weights to merge")
    wrapped.eval()
    expected = _some_logits(wrapped)
    _untie(wrapped)
    changes: dict[str, dict[str, float]] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PEFT, that others are merged already
            for path, module in places:
                for adapter, change in _fold_module(module).items():
                    changes.setdefault(adapter, {})[_plain_name(path)] = change
            model = _unloaded(wrapped)
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"{name} cannot be merged: {one_line(error)}") from error
    except (AttributeError, NotImplementedError) as error:
        raise ExportError(
            f"the adapter of {name} ({_kinds(wrapped)}) cannot be merged into weights"
        ) from error
    settle_ties(model)
    settle_biases(model, name)
    return Folded(model, changes, _compare(expected, _some_logits(model), name))


def _kinds(wrapped: Any) -> str:
    configs = getattr(wrapped, "peft_config", {}).values()
    return ", ".join(sorted({str(getattr(c.peft_type, "value", c.peft_type)) for c in configs}))


def _places(model: Any) -> Iterator[tuple[str, Any]]:
    """The modules that adapters sit on, by name, each the outermost of its place."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    inside: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)) and not any(
            path.startswith(f"{outer}.") for outer in inside
        ):
            inside.append(path)
            yield path, module


def _plain_name(path: str) -> str:
    return path.removeprefix("base_model.model.")


def _fold_module(module: Any) -> dict[str, float]:
    """Fold the active adapters of one module into its base layer; what each has changed.

    They are folded in the order in which they answer: DoRA scales what those before it have made,
    by the norm of the weights without them, which releases of PEFT before 0.21 do not do.
    """
    from peft.utils import ModulesToSaveWrapper

    if isinstance(module, ModulesToSaveWrapper):
        return _saved_changes(module)
    layer = getattr(module, "token_adapter", module)
    if layer.merged or not hasattr(layer, "merge"):
        raise NotImplementedError
    base = layer.get_base_layer()
    active = [name for name in layer.active_adapters if name in _available(layer)]
    if layer.disable_adapters or not active:
        return {}
    _make_room_for_bias(layer, base, active)
    weights = dict(base.named_parameters())
    changes = {}
    for name in active:
        places = {path: value.data for path, value in weights.items()}
        start = {path: value.clone() for path, value in places.items()}
        layer.merge(safe_merge=True, adapter_names=[name])
        changes[name] = _relative_change(start, weights)
        # Back to where the weights lay: new memory would stand beside a mapped file of the model.
        for path, value in weights.items():
            if value.shape == places[path].shape:
                value.data = places[path].copy_(value.data)
    return changes


def _available(layer: Any) -> set[str]:
    """The adapters that have weights in this layer."""
    return {name for kind in layer.adapter_layer_names for name in getattr(layer, kind, {}) or {}}


def _make_room_for_bias(layer: Any, base: Any, active: list[str]) -> None:
    """Give a layer without bias a zero one where an adapter brings a bias."""
    import torch

    biases = getattr(layer, "lora_bias", {})
    if any(biases.get(name) for name in active) and getattr(base, "bias", None) is None:
        base.bias = torch.nn.Parameter(base.weight.new_zeros(base.weight.shape[0]))


def _saved_changes(module: Any) -> dict[str, float]:
    if module.disable_adapters:
        return {}
    before = dict(module.original_module.named_parameters())
    return {
        name: _relative_change(before, dict(module.modules_to_save[name].named_parameters()))
        for name in module.active_adapters
        if name in module.modules_to_save
    }


def _relative_change(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Frobenius norm of the difference, relative to that of ``before`` where this is not zero."""
    difference = size = 0.0
    for path, value in before.items():
        size += float(value.detach().norm()) ** 2
        if path in after and after[path].shape == value.shape:
            difference += float((after[path].detach() - value.detach()).norm()) ** 2
    return float((difference / size if size else difference) ** 0.5)


def _unloaded(wrapped: Any) -> PreTrainedModel:
    """The base model with the merged layers in the places of the adapters'."""
    for path, module in list(_places(wrapped)):
        parent = wrapped.get_submodule(path.rpartition(".")[0])
        if hasattr(module, "unload_and_optionally_merge_module"):
            # Its weights are merged already, so that this only chooses the module.
            plain = module.unload_and_optionally_merge_module(
                merge=True, safe_merge=True, adapter_names=None
            )
        else:
            plain = module.get_base_layer()
        setattr(parent, path.rpartition(".")[2], plain)
    base: PreTrainedModel = wrapped
    if hasattr(wrapped, "get_base_model"):
        base = wrapped.get_base_model()
    if hasattr(base, "peft_config"):
        del base.peft_config
    return base


def _some_logits(model: PreTrainedModel | PeftModel) -> torch.Tensor:
    """Logits (B, T, V) of seeded random tokens, the newest tokens among them."""
    import torch

    rows = vocabulary_rows(model)
    seeded = torch.Generator().manual_seed(0)
    ids = torch.randint(rows, (_ROWS, _LENGTH), generator=seeded)
    newest = torch.arange(max(0, rows - _LENGTH // 3), rows)
    ids[0, : len(newest)] = newest
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids).logits
    return logits.float()


def _compare(expected: torch.Tensor, merged: torch.Tensor, name: str) -> dict[str, float]:
    """What merging has done to the answers.

    :raises ExportError: if it is more than rounding.
    """
    difference = float((merged - expected).abs().max())
    largest = float(expected.abs().max())
    if not difference <= _MERGE_TOLERANCE * max(1.0, largest):
        raise ExportError(
            f"merging the adapter of {name} changes its answers (logits by {difference:.2g}); "
            "its kind of adapter cannot be folded into the weights of this model"
        )
    same = (merged.argmax(-1) == expected.argmax(-1)).float().mean()
    return {
        "max_logit_diff": difference,
        "max_logit": largest,
        "argmax_agreement": float(same),
        "tokens": _ROWS * _LENGTH,
    }


def _untie(wrapped: Any) -> None:
    """Separate the output layer from the embedding if one of them has an adapter.

    Merged into shared memory, the adapter would change both, unlike in training. Trained tokens of
    a tied pair are held in both by PEFT itself.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    base = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
    for module in (base.get_input_embeddings(), base.get_output_embeddings()):
        if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)):
            held: Any = module
            inner = getattr(held, "base_layer", None) or held.original_module
            inner.weight = torch.nn.Parameter(inner.weight.detach().clone())
