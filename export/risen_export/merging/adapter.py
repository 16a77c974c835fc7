"""Put an adapter that was saved on the model that it was trained on, and fold it in.

Checks that it belongs to this base and is finite, and adds the tokens that it brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from risen_export.merging.fold import Folded, fold
from risen_export.merging.weights import check_finite, vocabulary_rows, why_unread
from risen_plugin.errors import ExportError, one_line

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig
    from transformers import PreTrainedModel

# How PEFT names a whole embedding or output layer that it saves: alone, below a LoRA, below
# trained tokens.
_TABLES = (
    ".weight",
    ".base_layer.weight",
    ".token_adapter.base_layer.weight",
    ".original_module.weight",
)


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
        why = why_unread(adapter, error)
        raise ExportError(f"the weights of adapter {adapter} cannot be read: {why}") from error
    if config.is_prompt_learning:
        raise ExportError(f"the adapter of {adapter} has no weights to merge")
    check_finite(weights.items(), f"adapter {adapter}")
    misfit = f"adapter {adapter} was trained on another model than {base}"
    tables = {*_tables(model, is_head=False), *_tables(model, is_head=True)}
    _grow_vocabulary(model, weights, config, adapter=adapter, tokens=tokens)
    try:
        wrapped = PeftModel.from_pretrained(model, adapter)
    except (RuntimeError, ValueError, KeyError) as error:
        detail = one_line(error)
        raise ExportError(f"{misfit}: {detail}") from error
    mine, theirs = set(weights), set(get_peft_model_state_dict(wrapped))
    # Whether the embedding is saved too is PEFT's choice, by what it finds of the base.
    odd = sorted((mine ^ theirs) - tables)
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
    rows = vocabulary_rows(model)
    saved = _saved_rows(model, weights)
    if saved:
        if saved != rows:
            model.resize_token_embeddings(saved, mean_resizing=False)
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


def _saved_rows(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> int:
    """The rows of the embedding that is saved with an adapter; 0 if there is none.

    That of a tied model may be saved as its output layer.
    """
    names = _tables(model, is_head=False)
    if model.config.tie_word_embeddings:
        names += _tables(model, is_head=True)
    return next((int(weights[name].shape[0]) for name in names if name in weights), 0)


def _tables(model: PreTrainedModel, *, is_head: bool) -> list[str]:
    """The names under which PEFT may save the whole embedding or output layer."""
    end: Any = model.get_output_embeddings() if is_head else model.get_input_embeddings()
    paths = [path for path, module in model.named_modules() if module is end]
    return [f"base_model.model.{path}{suffix}" for path in paths for suffix in _TABLES]


def _trained_tokens(config: Any) -> set[int]:
    """The tokens that the adapter trained one by one."""
    named = getattr(config, "trainable_token_indices", None) or getattr(
        config, "token_indices", None
    )
    lists = named.values() if isinstance(named, dict) else [named or []]
    return {int(index) for one in lists for index in one}
