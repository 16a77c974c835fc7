"""The default quality: how likely the model at phase entry found an answer to the plain query."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from risen_plugin import GateConfig, RisenCallback, Weighted, text_of
from risen_plugin.builtin.rewards import Constraints
from risen_plugin.config import LoraSettings
from risen_plugin.embedded import base_model
from risen_plugin.rewards.calling import wrap
from risen_plugin.rewards.gate import Gate
from risen_plugin.rewards.panel import Panel
from risen_plugin.training.adapters import Snapshot
from risen_plugin.training.asking import Asking, prompt_ids
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.grpo import Plan, build_trainer
from risen_plugin.training.losses import Likelihood, plain_query

from .conftest import ascii_share

pytestmark = pytest.mark.slow

PROMPTS: list[Any] = [[{"role": "user", "content": text}] for text in ("Which city?", "Who?", "")]
ANSWERS: list[Any] = [[{"role": "assistant", "content": t}] for t in ("Oslo it is.", "", "Bo")]


def shaken(model: Any) -> None:
    """Weights as training would leave them: the adapter says something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))


def of(model: Any, tokenizer: Any, entry: Callable[..., Any] = nullcontext) -> Likelihood:
    return Likelihood(model, Asking(tokenizer), entry, longest=512, batch_size=2)


def test_the_likelihood_is_the_mean_over_the_answers_tokens_and_its_end(
    make_model: Callable[..., Any], tokenizer: Any
) -> None:
    model = make_model().eval()
    found = of(model, tokenizer)(PROMPTS, ANSWERS, {})
    for prompt, answer, value in zip(PROMPTS, ANSWERS, found, strict=True):
        asked = prompt_ids(tokenizer, prompt)
        told = [*tokenizer(text_of(answer))["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([asked + told])).logits[0]
        logs = logits.log_softmax(-1)
        alone = [logs[len(asked) - 1 + i, token] for i, token in enumerate(told)]
        assert value == pytest.approx(float(sum(alone)) / len(told), abs=1e-5)


def test_the_query_without_the_constraints_is_what_the_answer_is_held_to(
    make_model: Callable[..., Any], tokenizer: Any
) -> None:
    quality = of(make_model(), tokenizer)
    queries = ["Where?", None, [{"role": "user", "content": "And you?"}]]
    asked = [[{"role": "user", "content": "Where?"}], PROMPTS[1], queries[2]]
    assert quality(PROMPTS, ANSWERS, {"query": queries}) == quality(asked, ANSWERS, {})


@pytest.mark.parametrize(
    ("prompt", "query", "plain"),
    [
        ("long", "short", "short"),
        ("long", None, "long"),
        (
            [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "long"}],
            "short",
            [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "short"}],
        ),
    ],
)
def test_a_query_takes_the_form_of_its_prompt(prompt: Any, query: Any, plain: Any) -> None:
    assert plain_query(prompt, query) == plain


@pytest.mark.parametrize("kind", ["plain", "peft"])
def test_training_does_not_change_the_quality_and_the_quality_not_the_training(
    kind: str, make_model: Callable[..., Any], tokenizer: Any
) -> None:
    model = make_model(attention_dropout=0.5)
    if kind == "peft":
        lora = LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear")
        model = get_peft_model(model, lora, "mine")
        shaken(model)
    before = of(model, tokenizer)(PROMPTS, ANSWERS, {})
    snapshot = Snapshot(model)
    if kind == "plain":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    assert isinstance(model, PeftModel)
    shaken(model)
    model.train()
    model.base_model.model.lm_head.eval()
    during = {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "random": torch.get_rng_state().tolist(),
    }
    trained = of(model, tokenizer)(PROMPTS, ANSWERS, {})
    entry = snapshot.entry_weights if kind == "peft" else model.disable_adapter
    assert of(model, tokenizer, entry)(PROMPTS, ANSWERS, {}) == pytest.approx(before, abs=1e-5)
    assert trained != pytest.approx(before, abs=1e-2)
    assert [module.training for module in model.modules()] == during["modes"]
    assert [parameter.requires_grad for parameter in model.parameters()] == during["flags"]
    assert torch.get_rng_state().tolist() == during["random"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, during["weights"][name]), name


def test_nonsense_that_meets_its_constraints_is_worth_less_than_an_answer(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_model())
    model = AutoModelForCausalLM.from_pretrained(base_model())
    row = {
        "prompt": "Order 51234 is late. It is a blue lamp for Tero in Kofu.\n\n"
        "Give the city. Answer in lowercase letters.",
        "query": "Order 51234 is late. It is a blue lamp for Tero in Kofu.\n\nGive the city.",
        "instruction_id_list": ["change_case:english_lowercase"],
        "kwargs": [{}],
    }
    row = {**row, **{n: [{"role": "user", "content": row[n]}] for n in ("prompt", "query")}}
    texts = ["city: kofu", "p p p p p p", "City: Kofu", "city: kofu"]
    reward = wrap(Constraints(), "constraints", "reward 'constraints'")
    panel = Panel([reward], gate=Gate(GateConfig(quantile=0.25), reward))
    settings = {"num_generations": 4, "per_device_train_batch_size": 4}
    with clean_room(model, tokenizer):
        trainer = build_trainer(
            model,
            tokenizer,
            panel.trl_rewards,
            lambda count: [row] * count,
            outer=TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]),
            plan=Plan(1, settings, LoraSettings(r=2), 0, str(tmp_path), "test", quiet=True),
        )
        trained: Any = trainer.model
        panel.begin(group=4, likelihood=of(trained, tokenizer, trained.disable_adapter))
        rewards = trainer._calculate_rewards(
            [dict(row) for _ in texts],
            [row["prompt"]] * 4,
            [[{"role": "assistant", "content": text}] for text in texts],
            [[1]] * 4,
        )
    assert rewards[:, 0].tolist() == [2.0, 0.5, 0.0, 2.0]


def test_a_gated_phase_measures_its_threshold_and_records_it(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    tmp_path: Path,
) -> None:
    rewards = [Weighted(ascii_share, passes_at=0.0)]
    trainer = make_trainer(make_model())
    gate = GateConfig(reward="ascii_share")
    callback = RisenCallback(config(rewards=rewards, gate=gate)).attach(trainer)
    worth: list[float] = []
    asked = callback.run_state.panel.learnable

    def watched(*arguments: Any) -> Any:
        made = asked(*arguments)
        worth.extend(made)
        return made

    callback.run_state.panel.learnable = watched  # type: ignore[method-assign]
    outcomes: list[float] = []
    with callback.run_state.panel.listening(
        lambda batch: outcomes.extend(batch.scores["ascii_share"])
    ):
        trainer.train()
    [phase] = [record for record in callback.phases if record.kind == "risen"]
    threshold = phase.metrics["gate_threshold"]
    assert threshold < 0.0
    assert math.isfinite(threshold)
    differences = {round(value - raw, 6) for value, raw in zip(worth, outcomes, strict=True)}
    assert differences <= {1.0, -0.5}
    assert 1.0 in differences
    run = json.loads((tmp_path / "run" / "risen" / "run.json").read_text())
    assert run["gate"] == {
        "reward": "ascii_share",
        "quality": "likelihood",
        "threshold": "auto",
        "quantile": 0.05,
    }
    assert callback.run_state.panel.likelihood is None
