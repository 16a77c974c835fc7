"""Put an adapter that was saved on the model that it was trained on, and fold it in.

Checks that it belongs to this base and is finite, and adds the tokens that it brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from risen_export.merging.fold import Folded, fold
from risen_export.merging.weights import check_finite, vocabulary_rows
from risen_plugin.errors import ExportError, one_line

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig
    from transformers import PreTrainedModel


def fold_saved(model: PreTrainedModel, adapter: str, base: str, tokens: int = 0) -> Folded:
    """Put the adapter saved in ``adapter`` on ``model``, loaded from ``base``, and fold it in.

    :param tokens: the length of the tokenizer that the adapter brings; 0 if it brings none.
    :raises ExportError: if it is not finite, was trained on another base, or cannot be folded.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    try:
        config = PeftConfig.from_pretrained(adapter)
        weights = load_peft_weights(adapter, device="cpu")
    except Exception as error:
        detail = one_line(error)
        raise ExportError(f"the weights of adapter {adapter} cannot be read: {detail}") from error
    if config.is_prompt_learning:
        raise ExportError(f"the adapter of {adapter} has no weights to merge")
    check_finite(weights.items(), f"adapter {adapter}")
    misfit = f"adapter {adapter} was trained on another model than {base}"
    _grow_vocabulary(model, weights, config, adapter=adapter, tokens=tokens)
    try:
        wrapped = PeftModel.from_pretrained(model, adapter)
    except (RuntimeError, ValueError, KeyError) as error:
        detail = one_line(error)
        raise ExportError(f"{misfit}: {detail}") from error
    odd = sorted(set(weights) ^ set(get_peft_model_state_dict(wrapped)))
    if odd:
        raise ExportError(f"{misfit}: {odd[0]} is in one of them only")
    return fold(wrapped, adapter)


def _grow_vocabulary(
    model: PreTrainedModel,
    weights: dict[str, torch.Tensor],
    config: PeftConfig,
    *,
    adapter: str,
    tokens: int,
) -> None:
    """Add the rows of tokens to the base that the adapter has and the base lacks.

    :raises ExportError: if a token of the adapter's tokenizer has no trained row, so that what the
        model made of it is lost.
    """
    table = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    rows = vocabulary_rows(model)
    saved = weights.get(f"base_model.model.{name}.weight")
    if saved is not None:
        if saved.shape[0] != rows:
            model.resize_token_embeddings(saved.shape[0], mean_resizing=False)
        return
    trained = _trained_tokens(config)
    wanted = max([tokens, *(index + 1 for index in trained)])
    if wanted <= rows:
        return
    lost = sorted(set(range(rows, wanted)) - trained)
    if lost:
        raise ExportError(
            f"adapter {adapter} brings {wanted - rows} tokens that its base does not have, and no "
            f"weights for token {lost[0]}; save it with the embedding "
            "(save_embedding_layers=True), or train those tokens (trainable_token_indices)"
        )
    model.resize_token_embeddings(wanted, mean_resizing=False)


def _trained_tokens(config: Any) -> set[int]:
    """The tokens that the adapter trained one by one."""
    named = getattr(config, "trainable_token_indices", None) or getattr(
        config, "token_indices", None
    )
    lists = named.values() if isinstance(named, dict) else [named or []]
    return {int(index) for one in lists for index in one}
