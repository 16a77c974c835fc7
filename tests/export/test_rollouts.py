"""What samples the answers of a phase on onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from risen_export.bundles.sites import Part, Site
from risen_export.engine.requests import Completion, Request, TokenLogprob
from risen_export.rollouts.base import fingerprint
from risen_export.rollouts.sampler import OnnxRollout, OnnxSampler
from risen_plugin.errors import ConfigError, ExportError
from risen_plugin.testing import check_rollout

SITES = [Site("layer.q", 4, (Part("layers.0.q_proj", 0, 3),))]
FACTORS = {"layers.0.q_proj": (np.ones((2, 4), np.float32), np.ones((3, 2), np.float32))}
HOW: dict[str, Any] = {"max_new_tokens": 40, "temperature": 0.5, "ends": [7], "seed": 3}


class Recorded:
    """An engine that writes down what it is asked."""

    def __init__(self, context: int | None) -> None:
        self.context = 512 if context is None else context
        self.loaded: list[str] = []
        self.asked: list[Request] = []

    def load_adapter(self, name: str, source: Any) -> int:
        self.loaded.append(name)
        return 1

    def run(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.asked += requests
        answer = Completion((5, 7), "", (TokenLogprob(5, -0.5), TokenLogprob(7, -0.1)), "stop")
        return [[answer] * request.n for request in requests]


@pytest.fixture
def opened() -> list[Recorded]:
    return []


@pytest.fixture
def sampler(opened: list[Recorded]) -> OnnxSampler:
    def open_engine(context: int | None) -> Any:
        opened.append(Recorded(context))
        return opened[-1]

    return OnnxSampler(open_engine, SITES)


def test_a_rollout_keeps_the_contract():
    check_rollout(OnnxRollout())


@pytest.mark.parametrize("precision", ["int9", "auto", "fp16"])
def test_a_precision_that_no_cpu_graph_has_is_refused(precision):
    with pytest.raises(ConfigError):
        OnnxRollout(precision)


def test_a_group_is_one_request_and_its_ends_are_those_that_are_asked_for(sampler, opened):
    [first, second] = sampler.sample([([1, 2], 3), ([4], 1)], **HOW)
    assert [len(first), len(second)] == [3, 1]
    assert (first[0].ids, first[0].logprobs) == ((5, 7), [-0.5, -0.1])
    request = opened[-1].asked[0]
    assert (request.n, request.adapter, request.stop_ids) == (3, None, frozenset([7]))
    assert request.ignore_eos
    assert not request.follow_settings
    assert request.sampling.scaled_logprobs
    assert len({one.sampling.seed for one in opened[-1].asked}) == 2


def test_rows_have_the_room_that_prompts_take_and_more_when_longer_ones_come(sampler, opened):
    for length in (10, 20, 200, 30):
        sampler.sample([([1] * length, 1)], **HOW)
    assert [engine.context for engine in opened] == [512, 64, 256]
    assert sampler.context == 512


def test_an_engine_that_is_opened_again_has_the_adapter(sampler, opened):
    sampler.follow(FACTORS)
    sampler.sample([([1], 1)], **HOW)
    assert opened[-1].loaded == ["trained"]
    assert opened[-1].asked[0].adapter == "trained"
    sampler.follow({})
    sampler.sample([([1], 1)], **HOW)
    assert opened[-1].asked[-1].adapter is None


def test_factors_that_no_place_takes_are_refused(sampler):
    with pytest.raises(ExportError, match="lm_head"):
        sampler.follow({"lm_head": FACTORS["layers.0.q_proj"]})


def test_a_base_is_known_by_its_weights_whatever_adapter_is_on_it(model_of, tokenizer):
    import torch
    from peft import LoraConfig, get_peft_model

    model = model_of(tokenizer)
    plain = fingerprint(model)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    assert fingerprint(adapted) == plain
    with torch.no_grad():
        adapted.get_base_model().model.layers[1].mlp.down_proj.weight[0, 0] += 1
    assert fingerprint(adapted) != plain
