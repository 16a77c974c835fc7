"""Hold a model's weights to what its configuration says of them, before anything is built.

A configuration may claim tied matrices that are two, carry keys of another program that no class
reads, and stand beside buffers that a cast has rounded. Whoever compiles the model believes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_plugin.errors import ExportError, one_line
from risen_plugin.training.seam import Reach

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel

# Written by transformers itself on configurations of every class.
_OF_EVERY_CLASS = ("model_type", "architectures", "transformers_version", "dtype")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_BIAS_FLAGS = (("attention_bias",), ("mlp_bias",), ("attention_bias", "mlp_bias"), ("use_bias",))


def why_unread(folder: str, error: Exception) -> str:
    """Why weights could not be read, in words, and what to do.

    Libraries say of a file that may not be read that it is not there.
    """
    from safetensors import SafetensorError

    for file in sorted(Path(folder).glob("*.safetensors")):
        if not os.access(file, os.R_OK):
            return f"there is no permission to read {file}"
    damaged = "; copy or download its weights again" if isinstance(error, SafetensorError) else ""
    return f"{one_line(error)}{damaged}"


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], whose: str) -> None:
    """Refuse weights with NaN or infinity.

    :raises ExportError: naming the first tensor that has one.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        # The extremes need no memory beside the tensor, and NaN passes through them.
        low, high = (float(value) for value in tensor.detach().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            kind = "NaN" if math.isnan(low) or math.isnan(high) else "infinity"
            raise ExportError(
                f"{whose}: weight {name} holds {kind}; export an earlier checkpoint, and look at "
                "the run's losses"
            )


def vocabulary_rows(model: PreTrainedModel | PeftModel) -> int:
    """The rows of the model's embedding, which has one for each token."""
    table: Any = model.get_input_embeddings()
    return int(table.weight.shape[0])


def context_length(config: PreTrainedConfig) -> int | None:
    """The longest text in tokens that the model's class was made for; None if it has no limit."""
    for name in _CONTEXT:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def drop_foreign_keys(config: PreTrainedConfig) -> tuple[str, ...]:
    """Remove the keys that the configuration's class does not have, and name them.

    They are left by other programs (``seq_length``, a ``sliding_window`` in a Llama), the model
    does not read them, and a builder may.
    """
    if not dataclasses.is_dataclass(config):
        return ()
    own = {field.name for field in dataclasses.fields(config)}
    # Those that it derives from its fields are in a new one too (attention_layers of GPT-Neo).
    own |= {*config.attribute_map, *_OF_EVERY_CLASS, *vars(type(config)())}
    foreign = sorted(
        name
        for name in vars(config)
        if not name.startswith("_") and name not in own and not hasattr(type(config), name)
    )
    for name in foreign:
        delattr(config, name)
    return tuple(foreign)


def settle_ties(model: PreTrainedModel) -> None:
    """Make ``tie_word_embeddings`` say what is true of output layer and embedding.

    Equal ones become one where the class ties them; two different ones stay two.
    """
    import torch

    head: Any = model.get_output_embeddings()
    table: Any = model.get_input_embeddings()
    if head is None or getattr(head, "weight", None) is None:
        return
    if head.weight is not table.weight:
        same = head.weight.shape == table.weight.shape and torch.equal(head.weight, table.weight)
        if model.config.tie_word_embeddings and same:
            head.weight = table.weight
            return
        _write_tied(model.config, tied=False)
    elif not model.config.tie_word_embeddings:
        if _class_ties(model):
            _write_tied(model.config, tied=True)
        else:
            head.weight = torch.nn.Parameter(table.weight.detach().clone())


def _write_tied(config: PreTrainedConfig, *, tied: bool) -> None:
    for one in {id(one): one for one in (config, config.get_text_config())}.values():
        one.tie_word_embeddings = tied


TIES = (
    Reach(
        "transformers.modeling_utils.PreTrainedModel",
        "_tied_weights_keys",
        "attribute",
        "a class says in it whether it ties its output layer",
    ),
)
"""Names of transformers that are reached for in this module alone."""


def _class_ties(model: PreTrainedModel) -> bool:
    return bool(getattr(type(model), "_tied_weights_keys", None))


def settle_biases(model: PreTrainedModel, name: str) -> None:
    """Let the configuration ask for the biases that merging has brought; others become zero.

    :raises ExportError: if the architecture has no bias at such a layer.
    """
    import torch

    have = _biases(model)
    if have <= _expected_biases(model, ()):
        return
    for flags in _BIAS_FLAGS:
        if not all(hasattr(model.config, flag) for flag in flags):
            continue
        expected = _expected_biases(model, flags)
        if have <= expected:
            for flag in flags:
                setattr(model.config, flag, True)
            for path in sorted(expected - have):
                layer: Any = model.get_submodule(path.rpartition(".")[0])
                layer.bias = torch.nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))
            return
    odd = sorted(have - _expected_biases(model, ()))[0]
    raise ExportError(
        f"the adapter of {name} was trained with lora_bias on {odd.rpartition('.')[0]}, which has "
        f"no bias in {type(model).__name__}; train it without lora_bias"
    )


def _biases(model: torch.nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.endswith(".bias")}


def _expected_biases(model: PreTrainedModel, flags: tuple[str, ...]) -> set[str]:
    """The biases that a model of this configuration has, with some flags put on."""
    import copy

    import torch

    config = copy.deepcopy(model.config)
    for flag in flags:
        setattr(config, flag, True)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _biases(type(model)(config))


def rebuilt(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """A plain model around the same weights, its buffers computed anew from the configuration.

    A model that was cast as a whole has rounded rotary frequencies; one that held adapters itself
    keeps traces of them.

    :raises ExportError: if the weights are not those that the configuration asks for.
    """
    import torch

    state = model.state_dict()
    if model.config.tie_word_embeddings:
        # transformers takes both matrices of a tied pair for two.
        for path in _tied_away(model):
            state.pop(path, None)
    try:
        loaded: Any = type(model).from_pretrained(
            None,
            config=model.config,
            state_dict=state,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # configurations and tensors each have their own types
        raise ExportError(f"{name} cannot be made a plain model: {one_line(error)}") from error
    plain, report = loaded
    for key in ("missing_keys", "unexpected_keys"):
        for path in sorted(report[key])[:1]:
            raise ExportError(
                f"{name}: weight {path} is {'missing' if key == 'missing_keys' else 'left over'}; "
                "its class and its configuration do not describe it"
            )
    with contextlib.suppress(AttributeError):
        plain.generation_config = model.generation_config
    return plain  # type: ignore[no-any-return]


def _tied_away(model: PreTrainedModel) -> list[str]:
    """Names of weights that are the embedding's own by another name."""
    table: Any = model.get_input_embeddings()
    names = [
        path
        for path, value in model.named_parameters(remove_duplicate=False)
        if value is table.weight
    ]
    return names[1:]
