"""A stand-in for vLLM 0.30: the names that TRL imports, with a transformers model inside.

``LLM`` is the engine of TRL's colocate mode. ``vllm.server`` serves the same engine as ``vllm
serve`` does, so far as TRL asks. Weights travel through a queue in place of NCCL.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

__version__ = "0.30.0"


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 16
    logprobs: int | None = None
    structured_outputs: Any = None


@dataclass
class Logprob:
    logprob: float
    rank: int = 1


@dataclass
class CompletionOutput:
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]]


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)


class Weights:
    """The engine's model: takes weights by its own names alone, as vLLM does."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def load_weights(self, named: list[tuple[str, torch.Tensor]]) -> None:
        own = dict(self.model.named_parameters())
        for name, tensor in named:
            if name not in own or own[name].shape != tensor.shape:
                raise KeyError(f"no weight {name} of shape {tuple(tensor.shape)}")
            own[name].data.copy_(tensor)


ENGINES: list[LLM] = []


class LLM:
    def __init__(self, model: str, seed: int = 0, **settings: Any) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(model).eval()
        self.settings = settings
        self.generator = torch.Generator().manual_seed(seed)
        self.asked = 0
        self.resets: list[dict[str, torch.Tensor]] = []
        runner = SimpleNamespace(model=Weights(self.model))
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=512),
            model_executor=SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner)),
        )
        ENGINES.append(self)

    def reset_prefix_cache(self) -> None:
        """TRL's last call of each update of the weights, so what they are is kept here."""
        held = self.model.named_parameters()
        self.resets.append({name: weights.detach().clone() for name, weights in held})

    @torch.no_grad()
    def generate(
        self, prompts: list[dict[str, Any]], sampling_params: SamplingParams, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        self.asked += 1
        made = []
        for prompt in prompts:
            ids = prompt["prompt_token_ids"]
            outputs = [self._sample(ids, sampling_params) for _ in range(sampling_params.n)]
            made.append(RequestOutput(ids, outputs))
        return made

    def _sample(self, prompt: list[int], params: SamplingParams) -> CompletionOutput:
        ids, tokens, logprobs = torch.tensor([prompt]), [], []
        for _ in range(params.max_tokens):
            scores = (self.model(input_ids=ids).logits[0, -1] / params.temperature).log_softmax(-1)
            token = int(torch.multinomial(scores.exp(), 1, generator=self.generator))
            tokens.append(token)
            logprobs.append({token: Logprob(float(scores[token]))})
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
            if token == self.model.config.eos_token_id:
                break
        return CompletionOutput(tokens, logprobs)
