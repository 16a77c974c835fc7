"""Fold a PEFT adapter into its base model's weights, so that the answers stay the same.

Checks that the adapter belongs to the base and that both are finite. Tied embeddings need care:
an adapter on the embedding must not change the output layer, nor the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from risen_plugin.errors import ExportError, one_line

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

# fp32 rounding of the merged product, relative to the largest logit.
_MERGE_TOLERANCE = 1e-3


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], whose: str) -> None:
    """Refuse weights with NaN or infinity.

    :raises ExportError: naming the first tensor that has one.
    """
    import torch

    for name, tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "infinity"
            raise ExportError(
                f"{whose}: weight {name} holds {kind}; export an earlier checkpoint, and look at "
                "the run's losses"
            )


def fold_saved(model: PreTrainedModel, adapter: str, base: str) -> PreTrainedModel:
    """Put the adapter saved in ``adapter`` on ``model``, loaded from ``base``, and fold it in.

    :raises ExportError: if it is not finite, was trained on another base, or cannot be folded.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    try:
        weights = load_peft_weights(adapter, device="cpu")
    except Exception as error:
        detail = one_line(error)
        raise ExportError(f"the weights of adapter {adapter} cannot be read: {detail}") from error
    check_finite(weights.items(), f"adapter {adapter}")
    misfit = f"adapter {adapter} was trained on another model than {base}"
    _grow_vocabulary(model, weights)
    try:
        wrapped = PeftModel.from_pretrained(model, adapter)
    except (RuntimeError, ValueError, KeyError) as error:
        detail = one_line(error)
        raise ExportError(f"{misfit}: {detail}") from error
    odd = sorted(set(weights) ^ set(get_peft_model_state_dict(wrapped)))
    if odd:
        raise ExportError(f"{misfit}: {odd[0]} is in one of them only")
    return fold(wrapped, adapter)


def vocabulary_rows(model: PreTrainedModel | PeftModel) -> int:
    """The rows of the model's embedding, which has one for each token."""
    table: Any = model.get_input_embeddings()
    return int(table.weight.shape[0])


def _grow_vocabulary(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> None:
    """Add the rows of tokens to the base that the adapter has and the base lacks."""
    table = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    trained = weights.get(f"base_model.model.{name}.weight")
    if trained is not None and trained.shape[0] != vocabulary_rows(model):
        model.resize_token_embeddings(trained.shape[0], mean_resizing=False)


def fold(wrapped: PeftModel, name: str) -> PreTrainedModel:
    """The base model of a ``PeftModel`` with the active adapters in its weights.

    :raises ExportError: if they cannot be folded in, or the model then answers otherwise.
    """
    if not hasattr(wrapped, "merge_and_unload"):
        raise ExportError(f"the adapter of {name} has no weights to merge")
    wrapped.eval()
    expected = _some_logits(wrapped)
    _untie(wrapped)
    try:
        merged: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ExportError(f"{name} cannot be merged: {one_line(error)}") from error
    except (AttributeError, NotImplementedError) as error:
        kinds = {
            str(getattr(config.peft_type, "value", config.peft_type))
            for config in wrapped.peft_config.values()
        }
        raise ExportError(
            f"the adapter of {name} ({', '.join(sorted(kinds))}) cannot be merged into weights"
        ) from error
    _tie_again(merged)
    difference = float((_some_logits(merged) - expected).abs().max())
    if not difference <= _MERGE_TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ExportError(
            f"merging the adapter of {name} changes its answers (logits by {difference:.2g}); "
            "its kind of adapter cannot be folded into the weights of this model"
        )
    return merged


def _some_logits(model: PreTrainedModel | PeftModel) -> torch.Tensor:
    import torch

    rows = vocabulary_rows(model)
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.arange(16)[None] * (rows // 16)).logits
    return logits


def _untie(wrapped: PeftModel) -> None:
    """Separate the output layer from the embedding if one of them has an adapter.

    Merged into shared memory, the adapter would change both, unlike in training.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    base: Any = wrapped.get_base_model()
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    for module in ends:
        if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)):
            held: Any = module
            inner = getattr(held, "base_layer", None) or held.original_module
            inner.weight = torch.nn.Parameter(inner.weight.detach().clone())


def _tie_again(model: PreTrainedModel) -> None:
    """Tie output layer and embedding again if they are equal; else record that they are not."""
    import torch

    head: Any = model.get_output_embeddings()
    table: Any = model.get_input_embeddings()
    if not model.config.tie_word_embeddings or head is None or head.weight is table.weight:
        return
    if torch.equal(head.weight, table.weight):
        head.weight = table.weight
    else:
        model.config.tie_word_embeddings = False
