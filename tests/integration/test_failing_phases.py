"""What only shows while a phase runs ends it from inside the clean room, in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from peft import LoraConfig, get_peft_model

from risen_plugin import Decision, Progress, RisenCallback, RisenError
from risen_plugin.config import RisenConfig
from risen_plugin.errors import ConfigError, DataError, PluginError
from risen_plugin.guard.controllers import Controllers
from risen_plugin.record.run_record import read_events

from .conftest import at_step
from .refusing import (
    chat,
    everything_in,
    generator,
    refused,
    rewarding,
)
from .test_clean_room import same, surroundings, weights

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


def fails_in_a_phase(
    trainer: Any, make_config: Callable[[Any], RisenConfig], kind: type[RisenError]
) -> str:
    """Train until the phase after step 2 fails, and hold everything to what it was before."""
    seen: list[Any] = []
    model, tokenizer = trainer.model, trainer.processing_class

    def scheduler(progress: Progress) -> Decision:
        if progress.step == 2:
            seen.append((weights(model), surroundings(model, tokenizer)))
        return at_step(2)(progress)

    callback = RisenCallback(make_config(scheduler)).attach(trainer)
    said = refused(kind, trainer.train)
    [(tensors, around)] = seen
    assert same(tensors, weights(model))
    left = surroundings(model, tokenizer)
    assert {name for name in around if left[name] != around[name]} == set()
    assert not any(phase.kind == "risen" for phase in callback.phases)
    phase = Path(trainer.args.output_dir) / "risen" / "phase-001"
    assert not phase.exists() or set(everything_in(phase)) <= {"completions.parquet"}
    return said.partition("; the model as it was before the phase is in ")[0]


def later(bad: Callable[[int], Any]) -> Callable[[int], Any]:
    """Fit for the guard's measurements, wrong from the first rollout on."""
    calls: list[int] = []

    def scores(count: int) -> Any:
        calls.append(count)
        return bad(count) if len(calls) > 2 else [0.5] * count

    return scores


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (lambda n: [1.0], "returned 1 scores for 4 completions; it must return one per completion"),
        (lambda n: [float("nan")] * n, "returned nan for completion 0; a score is finite, and No"),
        (lambda n: ["1"] * n, "returned '1' for completion 0; a score is a number or None"),
        (lambda n: None, "returned NoneType, not a list of scores"),
        (later(lambda n: [float("inf")] * n), "returned inf for completion 0; a score is finite"),
        (later(lambda n: [1.0] * (n + 1)), "returned 9 scores for 8 completions"),
    ],
)
def test_a_reward_that_returns_nonsense_ends_the_phase_and_changes_nothing(
    scores: Callable[[int], Any], said: str, config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    line = fails_in_a_phase(
        trainer,
        lambda scheduler: config(rewards=[rewarding(scores)], scheduler=scheduler),
        PluginError,
    )
    assert line.startswith("reward 'mine' (")
    assert said in line


@pytest.mark.parametrize("sft", [False, True], ids=["Trainer", "SFTTrainer"])
def test_a_users_adapter_is_put_back_when_a_reward_returns_nonsense(
    sft: bool, config: Make, make_model: Make, make_trainer: Make
) -> None:
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = make_trainer(get_peft_model(make_model(), lora, "mine"), sft=sft)
    scores = later(lambda n: [float("nan")] * n)
    line = fails_in_a_phase(
        trainer,
        lambda scheduler: config(rewards=[rewarding(scores)], scheduler=scheduler),
        PluginError,
    )
    assert "returned nan for completion 0" in line


def test_a_phase_that_fails_while_it_is_made_loses_no_fine_tuning(
    config: Make, make_model: Make, make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*arguments: Any) -> Any:
        raise ConfigError("no controller can begin")

    monkeypatch.setattr(Controllers, "begin", begin)
    trainer = make_trainer(make_model(), save_strategy="no")
    RisenCallback(config(scheduler=at_step(2))).attach(trainer)
    line = refused(ConfigError, trainer.train)
    assert "no controller can begin; the model as it was before the phase is in " in line
    assert any(
        event["event"] == "plugin_error"
        for event in read_events(Path(trainer.args.output_dir) / "risen" / "events.jsonl")
    )


@pytest.mark.parametrize("attached", [True, False])
def test_the_fine_tuning_before_a_phase_that_fails_is_saved_and_can_be_gone_on_with(
    attached: bool, config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    failing = RisenCallback(config(rewards=[rewarding(later(lambda n: [1.0]))]))
    _ = failing.attach(trainer) if attached else trainer.add_callback(failing)
    line = refused(PluginError, trainer.train)
    place = Path(line.partition("; the model as it was before the phase is in ")[2])
    saved = transformers.AutoModelForCausalLM.from_pretrained(place)
    assert same(weights(saved), weights(trainer.model))
    if attached:
        assert place.name == "checkpoint-2"
        again = make_trainer(make_model())
        mended = RisenCallback(config(scheduler=at_step(3), force=True)).attach(again)
        again.train(resume_from_checkpoint=str(place))
        assert [phase.at_step for phase in mended.phases if phase.kind == "risen"] == [3]


def running_wrong(rows: Callable[[int], Any]) -> Any:
    """A generator that goes wrong once it makes rows to train on."""

    def mine(*, count: int, seed: int, start: int = 0, **context: Any) -> Any:
        if start > 6:  # six are set apart, the seventh is looked at before the run
            return rows(count)
        return [{"prompt": chat(f"{start + index}")} for index in range(count)]

    return mine


@pytest.mark.parametrize(
    ("rows", "kind", "said"),
    [
        (lambda count: {"here": 1}["gone"], PluginError, "raised KeyError: 'gone'"),
        (lambda count: [None] * count, PluginError, "made None as row 0; a row is a mapping"),
        (lambda count: [{"prompt": chat(600 * "x")}] * count, DataError, "made a prompt of 61"),
    ],
)
def test_a_generator_that_goes_wrong_ends_the_phase_and_changes_nothing(
    rows: Callable[[int], Any],
    kind: type[RisenError],
    said: str,
    config: Make,
    make_model: Make,
    make_trainer: Make,
) -> None:
    line = fails_in_a_phase(
        make_trainer(make_model()),
        lambda scheduler: config(generator=running_wrong(rows), scheduler=scheduler),
        kind,
    )
    assert line.startswith("generator 'mine' (")
    assert said in line


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (None, PluginError, "returned NoneType, not a Decision"),
        (Decision("rissen", 2), PluginError, "chose the phase 'rissen'; there are 'fine_tune',"),  # type: ignore[arg-type]
        (Decision("risen", 0), PluginError, "wants a RISEN phase of 0 steps; it is a whole numbe"),
        (Decision("risen", 2, {"betta": 1}), ConfigError, "has 'betta', which is no field of TRL'"),
        (Decision("risen", 2, {"max_steps": 1}), ConfigError, "may not set 'max_steps': the sched"),
        (
            Decision("risen", 2, {"num_generations": 3}),
            ConfigError,
            "num_generations = 3 does not divide the generation batch of 8",
        ),
        (
            Decision("risen", 2, {"max_completion_length": 64}),
            ConfigError,
            "max_completion_length = 64 fills the model's context of 64",
        ),
    ],
)
def test_a_scheduler_that_answers_nonsense_is_named_before_anything_is_measured(
    answer: Any,
    kind: type[RisenError],
    said: str,
    config: Make,
    make_model: Make,
    make_trainer: Make,
) -> None:
    scored: list[int] = []

    def counting(completions: list[Any], **columns: Any) -> list[float]:
        scored.append(len(completions))
        return [1.0] * len(completions)

    trainer = make_trainer(make_model(max_position_embeddings=64))
    changes = {
        "scheduler": lambda p: answer if p.step == 1 else Decision("fine_tune"),
        "rewards": [counting],
        "generator": generator(lambda i: {"prompt": chat(f"{i}")}),
        "probe": [{"text": "Question: answer"}],
    }
    RisenCallback(config(**changes)).attach(trainer)
    line = refused(kind, trainer.train)
    assert line.startswith("scheduler '<lambda>' (")
    assert said in line
    assert scored == []


def test_groups_that_do_not_divide_a_schedulers_batch_are_refused_with_what_fits(
    config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    RisenCallback(config(scheduler=at_step(2, num_generations=3))).attach(trainer)
    line = refused(ConfigError, trainer.train)
    assert "num_generations = 3 does not divide the generation batch of 8" in line
    assert line.endswith("it can be 2, 4, 8")
