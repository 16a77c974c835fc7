"""Answers that are sampled outside of torch: asked as GRPO asks, with the adapter as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer

from risen_plugin.contracts import Drawn, Prompt, Sampler
from risen_plugin.errors import ConfigError, typed_line
from risen_plugin.kit.foreign import contained
from risen_plugin.training.asking import Asking, end_ids
from risen_plugin.training.protocols import Model

Factors = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Per linear module of the base: A (rank, inputs) and B (outputs, rank), the scale in B."""

_PREFIX = "base_model.model."
_SEEDS = 2**63 - 1
# Settings of PEFT's LoRA under which an adapter is more than two factors.
_MORE = ("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "layer_replication")


class Outside:
    """A sampler, asked in TRL's way.

    :param sampler: of somebody else, for this phase.
    :param model: whose ends an answer has.
    :param label: of the sampler, for messages.
    """

    def __init__(self, sampler: Sampler, asking: Asking, model: Model, label: str) -> None:
        self.sampler = sampler
        self.asking = asking
        self.label = label
        self.ends = end_ids(model, asking.tokenizer)

    def rollout(self, prompts: Sequence[Prompt], trainer: Any) -> dict[str, list[Any]]:
        """TRL's ``rollout_func``: an answer to each prompt, of the model as it is now.

        :param prompts: those of a group follow one another; each group is asked once.
        """
        ids = [self.asking.prompt_ids(prompt) for prompt in prompts]
        self._follow(trainer.trained)
        # A resumed phase has the generators as they were, and draws the same seed.
        seed = int(torch.randint(_SEEDS, (1,), dtype=torch.int64))
        drawn = self._sample(grouped(ids), float(trainer.temperature), seed)
        return {
            "prompt_ids": ids,
            "completion_ids": [list(one.ids) for one in drawn],
            "logprobs": [list(one.logprobs) for one in drawn],
        }

    def greedy(
        self, model: Model, prompts: Sequence[list[int]], tokens: int | None = None
    ) -> list[list[int]]:
        """The likeliest answer to each prompt, its end included, of the model as it is now.

        :param tokens: of an answer, at the most; None for those of GRPO.
        """
        self._follow(model)
        groups = [(ids, 1) for ids in prompts]
        return [list(one.ids) for one in self._sample(groups, 0.0, 0, tokens=tokens)]

    def drawn(self, model: Model, prompts: Sequence[list[int]], seed: int) -> list[list[int]]:
        """An answer to each prompt, its end included, from the model's own distribution."""
        self._follow(model)
        return [list(one.ids) for one in self._sample(grouped(prompts), 1.0, seed)]

    def tried(self, model: Model, prompts: Sequence[list[int]], tokens: int) -> None:
        """Sample ``tokens`` tokens for each prompt, whatever they are; for measuring time."""
        self._follow(model)
        self._sample(grouped(prompts), 1.0, 0, tokens=tokens, ends=())

    def longest_prompt(self, longest: int) -> int:
        """Most tokens of a prompt, of those that the model reads, that leave room for an answer."""
        return min(longest, self.sampler.context - self.asking.answer_tokens)

    def close(self) -> None:
        """Let go of the sampler's memory."""
        with self._contained():
            self.sampler.close()

    def _follow(self, model: Model) -> None:
        factors = factors_of(model)
        with self._contained():
            self.sampler.follow(factors)

    def _sample(
        self,
        groups: Sequence[tuple[list[int], int]],
        temperature: float,
        seed: int,
        *,
        tokens: int | None = None,
        ends: Sequence[int] | None = None,
    ) -> list[Drawn]:
        with self._contained():
            made = self.sampler.sample(
                groups,
                max_new_tokens=self.asking.answer_tokens if tokens is None else tokens,
                temperature=temperature,
                ends=self.ends if ends is None else ends,
                seed=seed,
            )
        _check(made, groups, self.label)
        return [one for group in made for one in group]

    def _contained(self) -> AbstractContextManager[None]:
        return contained(lambda error: ConfigError(f"{self.label} failed: {typed_line(error)}"))


def _check(
    made: Sequence[Sequence[Drawn]], groups: Sequence[tuple[list[int], int]], label: str
) -> None:
    """Refuse answers that TRL cannot learn from.

    :raises ConfigError: naming the sampler.
    """
    if [len(group) for group in made] != [count for _, count in groups]:
        raise ConfigError(f"{label} gives another number of answers than it is asked for")
    if any(not one.ids or len(one.ids) != len(one.logprobs) for group in made for one in group):
        raise ConfigError(f"{label} gives an answer without tokens, or without their likelihoods")


def grouped(ids: Sequence[list[int]]) -> list[tuple[list[int], int]]:
    """Equal neighbours once, with their number.

    >>> grouped([[1], [1], [2], [1]])
    [([1], 2), ([2], 1), ([1], 1)]
    """
    return [(prompt, len(list(same))) for prompt, same in groupby(ids)]


def factors_of(model: Model) -> Factors:
    """The active LoRA adapter of a model; nothing for a plain model.

    :raises ConfigError: if it is more than LoRA on linear modules.
    """
    if not isinstance(model, PeftModel):
        return {}
    if (reason := unfit(model)) is not None:
        raise ConfigError(f"the adapter {reason}, which cannot be sampled from outside of torch")
    found: Factors = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            [adapter] = module.active_adapters
            if adapter in module.lora_A:
                down = _array(module.lora_A[adapter].weight)
                up = _array(module.lora_B[adapter].weight) * np.float32(module.scaling[adapter])
                found[name.removeprefix(_PREFIX)] = (down, up)
    return found


def unfit(model: Model) -> str | None:
    """Why a model's adapter is more than two factors beside linear modules; None if it is not."""
    if not isinstance(model, PeftModel):
        return None
    if len(model.active_adapters) != 1:
        return f"is {len(model.active_adapters)} adapters at once"
    config: Any = model.peft_config[model.active_adapters[0]]
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        return f"is of the kind {kind}, not LORA"
    more = [name for name in _MORE if getattr(config, name, None)]
    if more or getattr(config, "bias", "none") != "none":
        return f"has the setting {(more or ['bias'])[0]}"
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and not _is_plain(module):
            return f"changes {name.removeprefix(_PREFIX)}, which is no plain linear module"
    return None


def _is_plain(module: BaseTunerLayer) -> bool:
    return isinstance(module, LoraLayer) and type(module.get_base_layer()) is torch.nn.Linear


def _array(weight: Any) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = weight.detach().float().cpu().numpy()
    return array
