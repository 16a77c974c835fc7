"""The mismatch between where an answer was sampled and where it is learned from.

An engine that samples outside of torch computes in another order, maybe in another precision, so
that its distribution is not quite that of the model in training. Each token's gradient is weighted
by how much likelier it is in training (truncated importance sampling), and the distance of the two
distributions is logged. TRL does so for vLLM, with a forward pass of its own for it; here the pass
of the update itself tells the likelihoods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer

from risen_plugin.training.trimming import trimmed

MISMATCH = "mismatch_kl"
"""The name of the distance in the log, in nats per token."""
_SAMPLED, _OLD, _WEIGHTS = (
    "sampling_per_token_logps",
    "old_per_token_logps",
    "importance_sampling_ratio",
)
_SUMMED = ("cispo", "dapo", "vespo")
"""Losses that are a sum over tokens by a number known beforehand."""


@dataclass(frozen=True)
class Mismatch:
    """What differs between sampling and training, for the tokens of some answers.

    :param weights: (B, T) of each token: its likelihood in training over that where it was sampled,
        at most the largest weight; 1 where there is no token.
    :param kl: nats per token: the mean of ``r - 1 - log r`` for the ratios r, which is never below
        0 and estimates the KL divergence of the sampler from the model in training.
    """

    weights: torch.Tensor
    kl: float


def mismatch(
    trained: torch.Tensor, sampled: torch.Tensor, mask: torch.Tensor, max_weight: float
) -> Mismatch:
    """The mismatch of log-likelihoods (B, T) in training and where the tokens were sampled.

    :param mask: (B, T), 0 where there is no token.
    :param max_weight: the largest weight.
    """
    gap = (trained.detach().float() - sampled.float()).masked_fill(mask == 0, 0.0)
    gap = torch.nan_to_num(gap, nan=0.0)  # a broken model is for the losses to show
    ratio = gap.exp()
    tokens = (mask != 0).sum().clamp(min=1)
    # Sums of equal likelihoods round to a hair below 0.
    kl = max(0.0, float((torch.expm1(gap) - gap).sum() / tokens))
    return Mismatch(ratio.clamp(max=max_weight), kl)


class WeighedTrainer(GRPOTrainer):
    """TRL's GRPO trainer, which weighs what was sampled outside of it.

    :param max_weight: the largest weight of a token; None weighs nothing.
    """

    max_weight: float | None = None
    _unweighed: Mapping[str, Any] | None = None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """TRL's loss of what has a gradient, with weights where it expects those of vLLM."""
        inputs = trimmed(inputs, drops_rows=self._weighs_by_advantage())
        if self.max_weight is None or _SAMPLED not in inputs:
            return super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        # Filled in when the forward pass of this loss has told the likelihoods.
        weights = torch.ones_like(inputs[_SAMPLED], dtype=torch.float32)
        with self._as_of_vllm():
            self._unweighed = inputs = {**inputs, _WEIGHTS: weights}
            try:
                return super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
            finally:
                self._unweighed = None

    def _weighs_by_advantage(self) -> bool:
        """Whether a row of advantage 0 adds nothing to the loss, whoever is beside it.

        The losses that take a mean over rows or over the tokens of a part of the batch would take
        another mean; a KL, an entropy bonus and a router have gradients of their own; and processes
        exchange numbers of each row.
        """
        args: Any = self.args
        config = self.accelerator.unwrap_model(self.model).config
        return (
            args.loss_type in _SUMMED
            and self.beta == 0.0
            and not getattr(args, "entropy_coef", 0.0)
            and not getattr(args, "use_adaptive_entropy", False)
            and args.top_entropy_quantile == 1.0
            and not hasattr(config, "output_router_logits")
            and self.accelerator.num_processes == 1
        )

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        made: Any = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        inputs, self._unweighed = self._unweighed, None
        if inputs is not None:
            self._weigh(inputs, made[0])
        return made

    def _weigh(self, inputs: Mapping[str, Any], trained: torch.Tensor) -> None:
        """Write the weights into the tensor that the loss reads them from.

        :param trained: (B, T) log-likelihoods of the tokens now. Where the model was updated since
            they were sampled, TRL has taken those of that time.
        """
        assert self.max_weight is not None
        then = inputs.get(_OLD)
        found = mismatch(
            trained if then is None else then,
            inputs[_SAMPLED],
            inputs["completion_mask"],
            self.max_weight,
        )
        inputs[_WEIGHTS].copy_(found.weights)
        self._metrics["train"][MISMATCH].append(found.kl)

    @contextmanager
    def _as_of_vllm(self) -> Iterator[None]:
        """Have TRL's loss read the weights, which it does for vLLM's answers alone."""
        before = self.use_vllm, self.vllm_importance_sampling_correction
        self.use_vllm = self.vllm_importance_sampling_correction = True
        try:
            yield
        finally:
            self.use_vllm, self.vllm_importance_sampling_correction = before
