"""What RISEN phases leave, and bursts of fine-tuning on it, in whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from risen_plugin import Decision, Progress, RisenCallback
from risen_plugin.commands.simulate.replay import replay
from risen_plugin.commands.simulate.trace import read_trace
from risen_plugin.config import BuffersConfig, GuardConfig, Weighted
from risen_plugin.contracts import PhaseKind
from risen_plugin.embedded import orders

from .conftest import DROP, KEEP, at_step

pytestmark = pytest.mark.slow

ANY = BuffersConfig(
    band=(0.0, 1.0), min_gain=-1.0, max_probe_loss_rise=1e9, batch_size=4, unsolved_after=1
)
DEMONSTRATIONS = [
    {"prompt": row["prompt"], "completion": "a demonstration"} for row in orders.draw(3, 99)
]


def plan(**decisions: tuple[PhaseKind, int]) -> Callable[[Progress], Decision]:
    """``plan(at_2=("risen", 2), at_3=("burst", 1))``."""
    steps = {int(name.removeprefix("at_")): told for name, told in decisions.items()}

    def decide(progress: Progress) -> Decision:
        kind, count = steps.get(progress.step, ("fine_tune", 0))
        return Decision(kind, count, reason=f"step {progress.step}")

    return decide


def even_length(completions: list[Any], **columns: Any) -> list[float]:
    """Passes about half of all answers."""
    return [float(len(completion[0]["content"]) % 2 == 0) for completion in completions]


def nobody(completions: list[Any], **columns: Any) -> list[float]:
    return [0.0] * len(completions)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def journal(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "risen" / "buffers.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("adapter", [False, True], ids=["plain", "peft"])
def test_a_burst_on_own_answers_and_demonstrations_is_trained_judged_and_kept(
    adapter: bool,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    tmp_path: Path,
) -> None:
    model = make_model()
    if adapter:
        model = get_peft_model(
            model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"), "mine"
        )
    trainer = make_trainer(model, learning_rate=0.0, report_to=[])
    callback = RisenCallback(
        config(
            rewards=[Weighted(even_length)],
            scheduler=plan(at_2=("risen", 2), at_3=("burst", 2)),
            guard=DROP,
            buffers=BuffersConfig(**{**vars(ANY), "demonstrations": DEMONSTRATIONS}),
        )
    ).attach(trainer)
    before = weights(model)
    trainer.train()

    kinds = [(p.kind, p.accepted) for p in callback.phases]
    assert kinds == [("fine_tune", None), ("risen", False), ("fine_tune", None), ("burst", True)]
    burst = callback.phases[-1]
    assert (burst.metrics["rows_own"], burst.metrics["rows_demonstrations"]) == (4, 4)
    assert not same(weights(model), before)
    folder = tmp_path / "run" / "risen" / "burst-001"
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((folder / "phase.json").read_text())["kind"] == "burst"
    logged = {key for entry in trainer.state.log_history for key in entry}
    assert {"risen/burst", "risen/buffers/answers"} <= logged


def test_a_dropped_burst_leaves_the_run_as_it_was(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    found = []
    for scheduler in (plan(), plan(at_2=("burst", 2))):
        model = make_model()
        trainer = make_trainer(model, folder=f"run-{len(found)}")
        buffers = BuffersConfig(min_gain=2.0, batch_size=4, demonstrations=DEMONSTRATIONS)
        callback = RisenCallback(config(scheduler=scheduler, buffers=buffers)).attach(trainer)
        trainer.train()
        losses = [e["loss"] for e in trainer.state.log_history if "loss" in e]
        found.append((weights(model), losses))
    assert callback.phases[-1].accepted is False
    assert "at the most, less than 2.000" in callback.phases[-1].metrics["verdict"]
    assert same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_an_empty_buffer_skips_the_burst_and_says_so_once(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="risen_plugin")
    trainer = make_trainer(make_model())
    scheduler = plan(at_2=("burst", 2), at_3=("burst", 2))
    callback = RisenCallback(config(scheduler=scheduler)).attach(trainer)
    trainer.train()
    assert callback.phases == ()
    said = [record.message for record in caplog.records if "no burst" in record.message]
    assert said == [
        "step 2: no burst (step 2): the buffers are empty: no verified answer is held, and no "
        "demonstration is given"
    ]


def test_a_replay_of_the_run_has_the_bursts_that_the_run_had(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    scheduler = plan(at_2=("burst", 1), at_3=("risen", 1))

    def trained(folder: str, rows: list[Any]) -> RisenCallback:
        trainer = make_trainer(make_model(), folder=folder, max_steps=4)
        buffers = BuffersConfig(**{**vars(ANY), "demonstrations": rows or None})
        callback = RisenCallback(config(scheduler=scheduler, buffers=buffers)).attach(trainer)
        trainer.train()
        phases = [(p.kind, p.at_step) for p in callback.phases if p.kind != "fine_tune"]
        assert phases == [*([("burst", 2)] if folder == "given" else []), ("risen", 3)]
        again = replay(read_trace(tmp_path / folder), scheduler, "plan")
        assert [(p.kind, p.at_step) for p in again.phases] == phases
        return callback

    held_out = trained("nothing", []).run_state.instructions.held_out.guard
    trained("given", DEMONSTRATIONS)
    trained("held out", [{"prompt": row["prompt"], "completion": "x"} for row in held_out])


def test_a_scheduler_sees_what_the_buffers_hold_and_instructions_nobody_solved_are_told(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level("INFO", logger="risen_plugin")
    seen: list[tuple[int, int, int]] = []

    def scheduler(progress: Progress) -> Decision:
        seen.append((progress.unsolved, progress.buffered, progress.demonstrations))
        return at_step(2)(progress)

    trainer = make_trainer(make_model(), max_steps=3)
    callback = RisenCallback(
        config(rewards=[Weighted(nobody)], scheduler=scheduler, buffers=ANY)
    ).attach(trainer)
    trainer.train()
    assert seen == [(0, 0, 0), (0, 0, 0), (4, 0, 0)]
    assert callback.phases[-1].metrics["buffers/unsolved"] == 4
    assert any("nobody has solved 4 instructions" in record.message for record in caplog.records)
    assert [line["kind"] for line in journal(tmp_path / "run")] == ["failed"] * 4 + ["judged"]


def test_a_resumed_run_neither_loses_nor_doubles_what_was_left(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6}
    parts: dict[str, Any] = {
        "rewards": [Weighted(even_length)],
        "scheduler": plan(at_2=("risen", 2), at_4=("risen", 2), at_5=("burst", 1)),
        "buffers": ANY,
        "guard": KEEP,
    }
    whole = make_trainer(make_model(), folder="whole", **saving)
    RisenCallback(config(**parts)).attach(whole)
    whole.train()
    assert {line["kind"] for line in journal(tmp_path / "whole")} >= {"answer", "judged"}

    for checkpoint, folder in (("checkpoint-3", "whole"), ("checkpoint-4", "elsewhere")):
        place = str(tmp_path / "whole" / checkpoint)
        resumed = make_trainer(
            make_model(seed=9), folder=folder, resume_from_checkpoint=place, **saving
        )
        callback = RisenCallback(config(**parts)).attach(resumed)
        before = journal(tmp_path / "whole")
        resumed.train(resume_from_checkpoint=place)
        assert journal(tmp_path / folder) == before
        assert callback.phases[-1].kind == "burst"
        assert same(weights(resumed.model), weights(whole.model))


def test_a_burst_that_was_cut_off_begins_anew_as_it_had_begun(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}
    parts: dict[str, Any] = {
        "scheduler": plan(at_2=("burst", 2)),
        "buffers": BuffersConfig(**{**vars(ANY), "demonstrations": DEMONSTRATIONS}),
    }

    def train(folder: str, **given: Any) -> tuple[Any, RisenCallback]:
        trainer = make_trainer(make_model(), folder=folder, **saving)
        callback = RisenCallback(config(**parts)).attach(trainer)
        trainer.train(**given)
        return trainer, callback

    whole, first = train("whole")
    with monkeypatch.context() as patched:
        patched.setattr("risen_plugin.phases.burst.fine_tune", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train("cut")
    again, second = train("cut", resume_from_checkpoint=True)
    for name in ("loss", "guard/probe_loss_after"):
        assert second.phases[1].metrics[name] == first.phases[1].metrics[name]
    assert same(weights(again.model), weights(whole.model))


def interrupted(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


def test_an_unfit_gain_of_few_rows_ends_no_burst(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    """Four rows are too few for a sure gain, which a burst need not have."""
    buffers = BuffersConfig(
        max_probe_loss_rise=1e9, batch_size=4, learning_rate=0.0, demonstrations=DEMONSTRATIONS
    )
    trainer = make_trainer(make_model())
    parts = {"scheduler": plan(at_2=("burst", 1)), "buffers": buffers, "guard": KEEP}
    callback = RisenCallback(config(**parts)).attach(trainer)
    trainer.train()
    assert callback.phases[1].accepted


def test_answers_of_a_phase_that_lost_what_should_stay_are_not_fine_tuned_on(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    for rise, held in ((-1e9, False), (1e9, True)):
        trainer = make_trainer(make_model(), folder=f"run-{held}")
        guard = GuardConfig(rows=4, report_rows=2, min_gain=2.0, max_probe_loss_rise=rise)
        callback = RisenCallback(
            config(rewards=[Weighted(even_length)], guard=guard, buffers=ANY)
        ).attach(trainer)
        trainer.train()
        assert callback.phases[1].accepted is False
        assert bool(len(callback.run_state.buffers.answers)) is held
        last = journal(tmp_path / f"run-{held}")[-1]
        assert (last["kind"], last["fed"]) == ("judged", held)
