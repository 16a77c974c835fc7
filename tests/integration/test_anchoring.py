"""A phase that is held to the model's own answers to plain prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from risen_plugin import AnchorConfig, Decision, Progress, RisenCallback
from risen_plugin.errors import DataError
from risen_plugin.training.anchoring import anchored

from . import test_resume_inside
from .test_resume_inside import same

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
run = test_resume_inside.run  # the fixture
ANCHOR: dict[str, Any] = {
    "prompts": ["Which city?", "Who is it?", "What time is it?"],
    "rows": 4,
    "tokens": 6,
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Token ids of each prompt and answer that an anchor is made of."""
    pairs: list[Any] = []
    monkeypatch.setattr(
        "risen_plugin.phases.anchoring.anchored",
        lambda model, answered, **options: (
            pairs.extend(answered) or anchored(model, answered, **options)
        ),
    )
    return pairs


def eight_steps(progress: Progress) -> Decision:
    return Decision("risen" if progress.step == 2 else "fine_tune", 8, {}, "the second step")


def test_the_weight_holds_the_model_to_what_it_answered(
    make_trainer: Make, make_model: Make, config: Make
) -> None:
    found = {}
    for weight in (0.0, 20.0):
        trainer = make_trainer(make_model(), folder=f"run-{weight}")
        anchor = AnchorConfig(**ANCHOR, weight=weight)
        callback = RisenCallback(config(scheduler=eight_steps, anchor=anchor)).attach(trainer)
        trainer.train()
        [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
        found[weight] = phase.metrics["anchor_kl"]
    assert found[0.0] > 0.002
    assert found[20.0] < found[0.0] / 4


@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapter"])
def test_a_phase_goes_on_with_the_same_anchors(run: Make, make_model: Make, adapted: bool) -> None:
    """Also a user's adapter, which has been trained since the anchors were made."""

    def model(seed: int) -> Any:
        torch.manual_seed(5)
        lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(make_model(seed=seed), lora) if adapted else make_model(seed=seed)

    changes = {"anchor": ANCHOR}
    whole, first = run(model(0), folder="whole", config=changes)
    run(model(0), folder="cut", dies_at=3, config=changes)
    again, second = run(model(0), folder="cut", resume=True, config=changes)
    assert same(again.model, whole.model)
    told = [callback.phases[1].metrics["anchor_kl"] for callback in (first, second)]
    assert told[0] == told[1] > 0.0


@pytest.mark.parametrize("probed", [2, 3])
def test_prompts_of_the_probe_are_no_anchors(
    make_trainer: Make, make_model: Make, config: Make, probed: int
) -> None:
    """The loss of the probe would be held down, and show no harm."""
    probe = [
        {
            "prompt": [{"role": "user", "content": asked}],
            "completion": [{"role": "assistant", "content": "Oslo"}],
        }
        for asked in ANCHOR["prompts"][:probed]
    ]
    trainer = make_trainer(make_model())
    callback = RisenCallback(config(anchor=ANCHOR, probe=probe)).attach(trainer)
    trainer.train()
    [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
    assert ("anchor_kl" in phase.metrics) == (probed < 3)


def test_a_file_that_is_not_there_is_told_when_the_callback_is_made(
    config: Make, tmp_path: Path
) -> None:
    missing = tmp_path / "none.jsonl"
    with pytest.raises(DataError, match="there is no file"):
        RisenCallback(config(anchor={"prompts": missing}))


@pytest.mark.parametrize("tokens", [3, 50])
def test_a_text_that_a_row_brings_is_read_in_place_of_the_models_answer(
    make_trainer: Make,
    make_model: Make,
    config: Make,
    seen: list[Any],
    tokens: int,
) -> None:
    prompts = ["Which city?", {"prompt": "Who is it?", "answer": "the king of oslo"}]
    trainer = make_trainer(make_model())
    anchor = {**ANCHOR, "prompts": prompts, "tokens": tokens}
    RisenCallback(config(anchor=anchor)).attach(trainer)
    trainer.train()
    tokenizer = trainer.processing_class
    text = tokenizer("the king of oslo", add_special_tokens=False)["input_ids"]
    given = [*text, tokenizer.eos_token_id][:tokens]
    asked = [tokenizer.decode(ids) for ids, answer in seen if list(answer) == given]
    assert len(asked) == 1
    assert "Who is it?" in asked[0]


@pytest.mark.parametrize("tokens", [6, 12, 10_000])
def test_answers_are_as_long_as_they_may_and_the_context_allows(
    make_trainer: Make,
    make_model: Make,
    config: Make,
    seen: list[Any],
    tokens: int,
) -> None:
    """Also longer than GRPO's, which are of eight tokens here at the most."""
    trainer = make_trainer(make_model())
    RisenCallback(config(anchor={**ANCHOR, "tokens": tokens})).attach(trainer)
    trainer.train()
    context = trainer.model.config.max_position_embeddings
    assert seen
    assert all(len(asked) + len(answer) <= context for asked, answer in seen)
    assert max(len(answer) for _, answer in seen) <= tokens
    if tokens == 12:
        assert max(len(answer) for _, answer in seen) > 8


@pytest.mark.parametrize("marks", [False, True])
def test_the_same_answers_are_read_once_more_with_marks_put_in(
    make_trainer: Make,
    make_model: Make,
    config: Make,
    seen: list[Any],
    marks: bool,
) -> None:
    prompts = [{"prompt": asked, "answer": "the king of oslo"} for asked in ANCHOR["prompts"]]
    anchor = {**ANCHOR, "prompts": prompts, "tokens": 40, "marks": marks}
    trainer = make_trainer(make_model())
    RisenCallback(config(anchor=anchor)).attach(trainer)
    trainer.train()
    assert len(seen) == (6 if marks else 3)
    tokenizer = trainer.processing_class
    plain, strewn = seen[:3], seen[3:]
    assert {tuple(asked) for asked, _ in strewn} <= {tuple(asked) for asked, _ in plain}
    for _, answer in strewn:
        assert answer[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(answer, skip_special_tokens=True)
        assert any(mark in text for mark in '<>*[]"')
        assert list(answer) not in [list(whole) for _, whole in plain]
