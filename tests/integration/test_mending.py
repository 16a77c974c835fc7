"""A phase that begins with the model's own answers, mended until they meet what was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from risen_plugin import Decision, Progress, RisenCallback
from risen_plugin.contracts import text_of
from risen_plugin.embedded import base_model, orders

from . import test_resume_inside
from .test_resume_inside import same

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
run = test_resume_inside.run  # the fixture
MENDING: dict[str, Any] = {"rows": 48, "tokens": 40, "batch_size": 4, "learning_rate": 2e-3}


@pytest.fixture
def tokenizer() -> Any:
    """Of the embedded model, which ends its answers."""
    return AutoTokenizer.from_pretrained(base_model())


@pytest.fixture
def make_model() -> Make:
    return lambda **_: AutoModelForCausalLM.from_pretrained(base_model())


def one_phase(progress: Progress) -> Decision:
    return Decision("risen" if progress.step == 2 else "fine_tune", 1, {}, "the second step")


def of_constraints(**changes: Any) -> dict[str, Any]:
    """Instructions to answer in capital letters, which the model never does by itself."""
    prompts = [text_of(row["prompt"]) for row in orders.draw(40, 0)]
    ids = ["change_case:english_capital"]
    return {
        "scheduler": one_phase,
        "generator": {
            "use": "constraints",
            "options": {"prompts": prompts, "ids": ids, "maximum": 1},
        },
        "rewards": ["constraints"],
        "mending": MENDING,
        **changes,
    }


def phase_of(callback: RisenCallback) -> Any:
    [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
    return phase


def test_a_phase_learns_from_what_was_mended_before_it_samples(
    make_trainer: Make, make_model: Make, config: Make
) -> None:
    told: dict[str, Any] = {}
    weightless = {"mending": {**MENDING, "weight": 0.0}}
    kinds = {"with": {}, "weightless": weightless, "without": {"mending": None}}
    for name, changes in kinds.items():
        trainer = make_trainer(make_model(), folder=name)
        callback = RisenCallback(config(**of_constraints(**changes))).attach(trainer)
        trainer.train()
        told[name] = phase_of(callback).metrics
    metrics = told["with"]
    assert metrics["mending/asked"] <= 40 + 48 / 4
    assert metrics["mending/met"] >= metrics["mending/learned"] > 0
    assert metrics["mending/steps"] == -(-metrics["mending/learned"] // 4)
    # Of the first answers that are sampled, which GRPO has not learned from yet.
    assert metrics["reward_first"] > told["without"]["reward_first"]
    assert told["weightless"]["reward_first"] == told["without"]["reward_first"]


@pytest.mark.parametrize("dies_at", [0, 2])
def test_a_phase_that_was_cut_off_ends_as_one_that_was_not(
    run: Make, make_model: Make, dies_at: int
) -> None:
    """It learns from mended answers again only where no GRPO step was saved after them."""
    changes = {"mending": MENDING}
    whole, first = run(make_model(), folder="whole", config=changes)
    run(make_model(), folder="cut", dies_at=dies_at, config=changes)
    again, second = run(make_model(), folder="cut", resume=True, config=changes)
    assert same(again.model, whole.model)
    told = [callback.phases[1].metrics for callback in (first, second)]
    assert told[0]["mending/learned"] == told[1]["mending/learned"] > 0
    assert told[0]["mending/loss"] == told[1]["mending/loss"]
