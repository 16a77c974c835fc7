"""Choose a way of training that fits into memory, by the sizes of model, rows and answers."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_plugin.commands.advise.advice import MemoryMeasured
from risen_plugin.commands.advise.advised_run import fitted
from risen_plugin.commands.advise.machine import (
    available_memory,
    loaded_memory,
    phase_memory,
    trainer_memory,
)
from risen_plugin.commands.advise.sizes import Shape, fit, least
from risen_plugin.commands.train.models import weight_bytes
from risen_plugin.commands.train.rows import read_rows
from risen_plugin.commands.train.run_config import RunConfig
from risen_plugin.commands.train.training import arguments
from risen_plugin.config import effective_grpo
from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError
from risen_plugin.training.asking import Asking
from risen_plugin.training.losses import encode_probe
from risen_plugin.training.protocols import Model, Tokenizer

_LONGEST_SEEN_IN = 64


@dataclass(frozen=True)
class Fitted:
    """A way of training that fits, if there is one.

    :param draft: the run, with batches, and an adapter, that fit.
    :param is_recast: whether the weights have to be loaded again, as an adapter takes them.
    """

    memory: MemoryMeasured
    draft: Mapping[str, Any]
    is_recast: bool = False


def fit_to_memory(
    draft: Mapping[str, Any],
    model: Model,
    tokenizer: Tokenizer,
    *,
    instructions: Sequence[Row],
    available: int | None = None,
) -> Fitted:
    """Batches, and an adapter if need be, with which training fits into memory.

    :param model: the model as it was loaded for ``draft``.
    :param instructions: rows that the model will answer; empty without RISEN.
    :param available: bytes that may be used; None for all that are free.
    """
    run = RunConfig.from_dict(draft, "risen advise")
    available = available_memory() if available is None else available
    with tempfile.TemporaryDirectory(prefix="risen-advise-") as folder:
        args = arguments(run, Path(folder), quiet=True)
    shape = _shape(run, model, value=2 if args.bf16 or args.fp16 else 4)
    tune = risen = None
    tokens = 0
    if run.data is not None:
        encoded = encode_probe(
            tokenizer, read_rows(run.data)[:_LONGEST_SEEN_IN], args.max_length or 1024
        )
        tokens = max(len(ids) for ids, _ in encoded)
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
        tune = fit(shape, batch, tokens, available, only_adapter=run.lora is not None)
    if run.risen is not None:
        grpo = effective_grpo(run.risen.grpo)
        asking = Asking(tokenizer, grpo)
        longest = max(len(asking.prompt_ids(row["prompt"])) for row in instructions)
        answer = longest + grpo["max_completion_length"]
        tokens = max(tokens, answer)
        batch = grpo["per_device_train_batch_size"] * grpo.get("gradient_accumulation_steps", 1)
        if tune is None or not tune.only_adapter:  # a phase's adapter leaves the weights as loaded
            shape = dataclasses.replace(shape, spared=0)
        shape = dataclasses.replace(shape, base=shape.base + phase_memory())
        risen = fit(shape, batch, answer, available, only_adapter=True)
    wanted = [(run.data is not None, tune), (run.risen is not None, risen)]
    if any(is_wanted and way is None for is_wanted, way in wanted):
        return Fitted(MemoryMeasured(available, least(shape, tokens), fits=False), draft)
    batches = fitted(draft, tune, risen)
    only_adapter = run.lora is None and tune is not None and tune.only_adapter
    needed = max(way.memory for way in (tune, risen) if way is not None)
    return Fitted(
        MemoryMeasured(available, needed, only_adapter=only_adapter),
        batches,
        is_recast=run.lora is None and batches.get("lora") is not None and shape.spared > 0,
    )


def _shape(run: RunConfig, model: Model, *, value: int) -> Shape:
    from torch import nn

    config = model.config.get_text_config()
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    parameters = list(model.parameters())
    then = weight_bytes(run.model, run.dtype, only_adapter=True)
    now = sum(p.numel() * p.element_size() for p in parameters)
    count = sum(p.numel() for p in parameters)
    try:
        return Shape(
            parameters=count,
            adapter=sum(16 * (m.in_features + m.out_features) for m in linears),
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            vocabulary=config.vocab_size,
            base=loaded_memory(model) + trainer_memory(),
            spared=0 if run.lora is not None else now - count * then,
            value=value,
        )
    except AttributeError as error:
        raise ConfigError(f"the model's configuration does not tell its size: {error}") from error
