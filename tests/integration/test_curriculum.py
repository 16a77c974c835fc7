"""A curriculum in real runs: each draw knows the batch before, and a resumed run asks the same."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from risen_plugin import RisenCallback
from risen_plugin.config import CurriculumConfig, GuardConfig, LoraSettings, Weighted
from risen_plugin.embedded import orders

from .conftest import KEEP, Messages, at_step, is_at_end

pytestmark = pytest.mark.slow
POOL = CurriculumConfig(initial=24, refill=4, refill_every=2)


@pytest.mark.parametrize(
    ("settings", "batches"),
    [
        pytest.param({}, 4, id="one batch per step"),
        pytest.param({"gradient_accumulation_steps": 2}, 4, id="accumulated"),
        pytest.param({"steps_per_generation": 2}, 2, id="two steps per batch"),
        pytest.param({"num_iterations": 2}, 2, id="two iterations"),
        pytest.param(
            {"gradient_accumulation_steps": 2, "steps_per_generation": 1},
            8,
            id="two batches per step",
        ),
    ],
)
def test_each_draw_comes_after_every_reward_of_the_batch_before(
    settings: dict[str, int],
    batches: int,
    make_model: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    from transformers import TrainingArguments

    from risen_plugin.config import effective_grpo
    from risen_plugin.rewards.calling import wrap
    from risen_plugin.training.grpo import Plan, build_trainer, train

    happened: list[tuple[str, list[Any]]] = []

    def supply(count: int) -> list[Any]:
        rows = orders.draw(count, len(happened))
        happened.append(("drawn", [row["prompt"] for row in rows]))
        return rows

    def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        happened.append(("scored", [prompt for prompt, _ in itertools.groupby(prompts)]))
        return [float(place % 2) for place, _ in enumerate(completions)]

    plan = Plan(
        steps=4,
        grpo=effective_grpo(
            {"num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 4},
            settings,
        ),
        lora=LoraSettings(r=2),
        seed=0,
        output_dir=str(tmp_path),
        label="",
        quiet=True,
    )
    outer = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    rewards = [wrap(reward, "reward", "reward 'reward' (me)")]
    train(build_trainer(make_model(), tokenizer, rewards, supply, outer=outer, plan=plan), plan)

    assert [what for what, _ in happened] == ["drawn", "scored"] * batches
    for (_, drawn), (_, scored) in zip(happened[::2], happened[1::2], strict=True):
        assert drawn == scored


class Watching(RisenCallback):
    """Remembers what was drawn, and what the pool knew of it then."""

    def __init__(self, *given: Any, stop_at: int | None = None, **fields: Any) -> None:
        super().__init__(*given, **fields)
        self.drawn: list[tuple[list[Any], int]] = []
        self.stop_at = stop_at
        original = self.run_state.instructions.next

        def watched(count: int, pass_rates: Any, *, peek: bool = False, **more: Any) -> list[Any]:
            rows = original(count, pass_rates, peek=peek, **more)
            if not peek:
                answered = int(self.run_state.instructions.pool.figures()["answered"])
                self.drawn.append(([row["prompt"] for row in rows], answered))
            return rows

        self.run_state.instructions.next = watched  # type: ignore[method-assign]

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_save(args, state, control, **kwargs)
        if state.global_step == self.stop_at:
            control.should_training_stop = True


def test_the_pool_knows_every_batch_before_a_draw_and_the_phase_tells_what_it_did(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(make_model())
    callback = Watching(config(curriculum=POOL, scheduler=at_step(1, 3))).attach(trainer)
    trainer.train()
    seen: set[str] = set()
    for prompts, answered in callback.drawn:
        assert answered == len(seen)
        seen |= {json.dumps(prompt) for prompt in prompts}
    assert len(callback.drawn) == 4
    metrics = json.loads((tmp_path / "run/risen/phase-002/phase.json").read_text())["metrics"]
    assert metrics["curriculum/size"] > 24
    assert metrics["curriculum/answered"] == len(seen)
    assert 0.0 <= metrics["curriculum/zero_variance_share"] <= 1.0
    assert {"curriculum/mean_rate", "curriculum/skipped", "curriculum/explored_share"} <= set(
        metrics
    )
    logged = {key for entry in trainer.state.log_history for key in entry}
    assert {"risen/curriculum/size", "risen/trip_wire_rate"} <= logged
    base = sqlite3.connect(tmp_path / "run/risen/pool.sqlite")
    [(passed, failed)] = base.execute(
        "SELECT sum(passed), sum(failed) FROM answers WHERE id >= 0"
    ).fetchall()
    assert passed + failed == 2 * 2 * 8


def test_a_resumed_run_draws_from_the_pool_of_its_checkpoint(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 5}
    settings = {"curriculum": POOL, "scheduler": at_step(2, 4)}
    whole = make_trainer(make_model(), folder="whole", **saving)
    first = Watching(config(**settings)).attach(whole)
    whole.train()

    cut = make_trainer(make_model(), folder="cut", **saving)
    Watching(config(**settings), stop_at=4).attach(cut)
    cut.train()  # its pool now holds what came after the checkpoint that is resumed

    model = make_model(seed=9)
    again = make_trainer(model, folder="cut", **saving)
    second = Watching(config(**settings)).attach(again)
    again.train(resume_from_checkpoint=str(Path(again.args.output_dir) / "checkpoint-3"))
    assert second.drawn == first.drawn[2:]
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    )

    place = str(Path(whole.args.output_dir) / "checkpoint-3")
    moved = {"folder": "elsewhere", "resume_from_checkpoint": place}
    elsewhere = make_trainer(make_model(seed=9), **moved, **saving)
    third = Watching(config(**settings)).attach(elsewhere)
    elsewhere.train(resume_from_checkpoint=place)
    assert third.drawn == first.drawn[2:]


class OwnFamilies(Messages):
    columns = ("family",)


@pytest.mark.parametrize("most", [None, -1.0])
def test_reserved_families_give_a_gap_that_can_drop_a_phase(
    most: float | None,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    tmp_path: Path,
) -> None:
    guard = GuardConfig(rows=4, report_rows=3, min_gain=-1.0, max_probe_loss_rise=1e9, max_gap=most)
    trainer = make_trainer(make_model())
    seen: list[str] = []

    def letters(completions: list[Any], family: list[str], **columns: Any) -> list[float]:
        if not is_at_end(columns["trainer_state"]):
            seen.extend(family)
        return [float(place % 2) for place, _ in enumerate(completions)]

    callback = RisenCallback(
        config(
            rewards=[Weighted(letters)], generator=OwnFamilies(), reserve=["billing"], guard=guard
        )
    ).attach(trainer)
    trainer.train()
    [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
    gap = (phase.metrics["adherence_strict_after"] - phase.metrics["adherence_strict_before"]) - (
        phase.metrics["unseen/adherence_strict_after"]
        - phase.metrics["unseen/adherence_strict_before"]
    )
    assert phase.metrics["gap"] == pytest.approx(gap)
    assert phase.accepted is (most is None)
    assert ("the gap to reserved families" in phase.metrics["verdict"]) is (most is not None)
    assert seen
    assert "billing" not in seen
    assert json.loads((tmp_path / "run/risen/run.json").read_text())["reserved"] == ["billing"]
    assert "risen/gap" in {key for entry in trainer.state.log_history for key in entry}


def test_without_a_curriculum_there_is_no_pool(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(make_model())
    RisenCallback(config(guard=KEEP)).attach(trainer)
    trainer.train()
    assert not (tmp_path / "run/risen/pool.sqlite").exists()
