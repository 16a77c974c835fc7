"""Who samples the answers of a phase, as a configuration says it, and how far off it may be."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from risen_plugin import RisenConfig, RolloutConfig
from risen_plugin.config.grpo import refused_setting
from risen_plugin.errors import ConfigError
from risen_plugin.phases.sampling import Alarm
from risen_plugin.training.mismatch import mismatch
from risen_plugin.training.outside import grouped

FIELDS = {"rewards": ["exact"], "generator": "jsonl"}


@pytest.mark.parametrize("given", ["onnx", {"use": "onnx"}, RolloutConfig("onnx")])
def test_a_name_is_short_for_the_section(given):
    assert RisenConfig(**FIELDS, rollout=given).rollout == RolloutConfig("onnx")
    if not isinstance(given, RolloutConfig):
        assert RisenConfig.from_dict({**FIELDS, "rollout": given}).rollout.use == "onnx"


def test_vllm_is_trls_own_setting():
    assert RisenConfig(**FIELDS, rollout="vllm").grpo["use_vllm"] is True
    assert RisenConfig(**FIELDS, grpo={"use_vllm": True}).rollout.use == "transformers"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rollout": "vllm", "grpo": {"use_vllm": False}}, "rollout is vllm, and grpo.use_vllm"),
        ({"rollout": "onnx", "grpo": {"use_vllm": True}}, "rollout is onnx, and grpo.use_vllm"),
        ({"rollout": {"use": "onnx", "option": {}}}, "did you mean 'options'?"),
        (
            {"rollout": {"options": {"precision": "int8"}}},
            "has 'precision', and transformers takes",
        ),
        ({"rollout": {"use": "onnx", "max_weight": 0.5}}, "max_weight is 0.5; it is a number from"),
        ({"rollout": {"use": "onnx", "max_mismatch": -1}}, "max_mismatch is -1"),
        ({"rollout": {"use": 3}}, "rollout.use is 3"),
    ],
)
def test_what_no_run_can_use_is_refused_in_one_line(fields, message):
    with pytest.raises(ConfigError) as caught:
        RisenConfig(**FIELDS, **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("grpo", "refused"),
    [
        ({}, None),
        ({"top_p": 1.0, "top_k": 0, "temperature": 0.7}, None),
        ({"top_p": 0.9}, "grpo.top_p = 0.9"),
        ({"repetition_penalty": 1.1}, "grpo.repetition_penalty = 1.1"),
        ({"generation_kwargs": {"num_beams": 2}}, "grpo.generation_kwargs = {'num_beams': 2}"),
    ],
)
def test_settings_that_cut_the_distribution_are_for_trls_own_sampling(grpo, refused):
    assert refused_setting(grpo) == refused


def test_equal_neighbours_are_one_group():
    assert grouped([[1, 2], [1, 2], [3], [1, 2]]) == [([1, 2], 2), ([3], 1), ([1, 2], 1)]


def test_a_token_is_weighted_by_how_much_likelier_it_is_in_training():
    trained = torch.log(torch.tensor([[0.4, 0.1, 0.9, 0.5]]))
    sampled = torch.log(torch.tensor([[0.2, 0.2, 0.1, 0.5]]))
    found = mismatch(trained, sampled, torch.tensor([[1, 1, 1, 0]]), max_weight=3.0)
    assert found.weights.tolist()[0] == pytest.approx([2.0, 0.5, 3.0, 1.0])
    terms = [r - 1 - math.log(r) for r in (2.0, 0.5, 9.0)]
    assert found.kl == pytest.approx(sum(terms) / 3, rel=1e-5)


def test_likelihoods_that_are_the_same_weigh_nothing_and_are_no_distance_apart():
    told = torch.log(torch.rand(2, 3, generator=torch.Generator().manual_seed(0)))
    found = mismatch(told, told, torch.ones(2, 3), max_weight=2.0)
    assert found.weights.tolist() == torch.ones(2, 3).tolist()
    assert found.kl == 0.0


def test_the_alarm_rings_once_in_a_phase(caplog):
    alarm = Alarm(0.05, "RISEN phase 1")
    with caplog.at_level(logging.WARNING, "risen_plugin"):
        for step, kl in ((1, 0.01), (2, None), (3, 0.2), (4, 0.3)):
            alarm.hear(step, kl)
    assert alarm.rung == (3, 0.2)
    [line] = caplog.messages
    assert "RISEN phase 1, GRPO step 3" in line
    assert "rollout.max_mismatch (0.05)" in line


def test_no_bound_is_no_alarm(caplog):
    alarm = Alarm(None, "RISEN phase 1")
    alarm.hear(1, 9.0)
    assert alarm.rung is None
