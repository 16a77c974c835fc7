"""The callback in an unmodified Trainer and in SFTTrainer, on both kinds of model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import TrainerCallback

from risen_plugin import Progress, RisenCallback, hookimpl, text_of
from risen_plugin.config import RisenConfig, Weighted
from risen_plugin.embedded import orders
from risen_plugin.instructions.rows import no_answers
from risen_plugin.record.answered import pairs_in
from risen_plugin.record.rollouts import read_rollouts
from risen_plugin.record.run_record import read_events
from risen_plugin.rewards.tripwires import WIRES

from .conftest import (
    DROP,
    KEEP,
    Messages,
    ascii_share,
    at_step,
    is_at_end,
    never,
    phase_events,
)

pytestmark = pytest.mark.slow

LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("sft", [False, True], ids=["Trainer", "SFTTrainer"])
@pytest.mark.parametrize("adapter", [None, "default", "mine"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bf16": True, "gradient_accumulation_steps": 2, "gradient_checkpointing": True},
    ],
    ids=["fp32", "bf16-accumulation-checkpointing"],
)
def test_a_phase_runs_is_kept_and_fine_tuning_ends(
    sft: bool,
    adapter: str | None,
    arguments: dict[str, Any],
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    tmp_path: Path,
) -> None:
    model = make_model()
    if adapter is not None:
        model = get_peft_model(model, LORA, adapter)
    trainer = make_trainer(
        model,
        sft=sft,
        evaluate=True,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        **arguments,
    )
    callback = RisenCallback(config(grpo={"beta": 0.1})).attach(trainer)
    trainer.train()

    assert [(p.kind, p.accepted) for p in callback.phases] == [("fine_tune", None), ("risen", True)]
    assert trainer.state.global_step == 4
    assert "phase" in {
        key.split("/")[1]
        for e in trainer.state.log_history
        for key in e
        if key.startswith("risen/")
    }
    folder = tmp_path / "run" / "risen" / "phase-001"
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    record = json.loads((folder / "phase.json").read_text())
    assert record["metrics"]["rollouts"] == 16
    pairs = pairs_in(record["answers"])
    passed = [bool(pair.after.passed) for pair in pairs if pair.set == "guard"]
    after = record["metrics"]["guard/adherence_strict_after"]
    assert sum(passed) / len(passed) == pytest.approx(after)
    assert all(pair.prompt and pair.has_text for pair in pairs)
    assert any(entry.get("grad_norm", 0) > 0 for entry in record["logs"])
    if adapter is not None:
        assert isinstance(model, PeftModel)
        assert list(model.peft_config) == [adapter]
        assert not any(".ref." in name for name, _ in model.named_parameters())


def test_the_reference_of_a_users_adapter_is_its_value_at_phase_entry(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    """The KL at the first step is zero only if the frozen copy equals the adapter."""
    model = get_peft_model(make_model(), LORA, "mine")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    trainer = make_trainer(model)
    RisenCallback(config(grpo={"beta": 0.1})).attach(trainer)
    trainer.train()
    phase = Path(trainer.args.output_dir, "risen", "phase-001", "phase.json")
    kl = [entry["kl"] for entry in json.loads(phase.read_text())["logs"] if "kl" in entry]
    assert kl[0] == pytest.approx(0.0, abs=1e-6)
    assert kl[-1] > 1e-6


def test_a_dropped_phase_of_a_users_adapter_puts_it_back(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    model = get_peft_model(make_model(), LORA, "mine")
    before = weights(model)
    trainer = make_trainer(model, learning_rate=0.0)
    RisenCallback(config(guard=DROP)).attach(trainer)
    trainer.train()
    assert same(weights(model), before)


def test_callbacks_list_alone_trains_guards_and_records(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = make_trainer(make_model())
    callback = RisenCallback(config())
    trainer.add_callback(callback)
    trainer.train()
    assert callback.phases[-1].accepted
    said = [record.message for record in caplog.records if "not attached" in record.message]
    assert len(said) == 1
    assert not any(k.startswith("risen/") for e in trainer.state.log_history for k in e)
    events = read_events(tmp_path / "run" / "risen" / "events.jsonl")
    assert phase_events(events) == ["decision", "phase"]
    assert [event["step"] for event in events if event["event"] == "log"] == [1, 2, 3, 4]
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    run = json.loads((tmp_path / "run" / "risen" / "run.json").read_text())
    assert run["rewards"][0]["name"] == "ascii_share"


def test_loggers_get_each_grpo_step_counted_over_the_phases(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    class Logger(TrainerCallback):
        """As the integrations of transformers are: it puts values at ``state.global_step``."""

        def __init__(self) -> None:
            self.series: dict[str, list[tuple[int, float]]] = {}

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any
        ) -> None:
            for name, value in logs.items():
                if name.startswith("risen/grpo/"):
                    control.should_training_stop = True  # does not reach the run
                    self.series.setdefault(name, []).append((state.global_step, value))

    logger = Logger()
    trainer = make_trainer(make_model())
    trainer.add_callback(logger)
    callback = RisenCallback(config(scheduler=at_step(2, 3), grpo={"beta": 0.1})).attach(trainer)
    trainer.train()
    assert trainer.state.global_step == 4
    for name in ("reward", "kl", "entropy"):
        assert [step for step, _ in logger.series[f"risen/grpo/{name}"]] == [1, 2, 3, 4], name
    last = [phase.metrics["reward"] for phase in callback.phases if phase.kind == "risen"]
    shown = dict(logger.series["risen/grpo/reward"])
    assert [shown[2], shown[4]] == last
    assert not any("risen/grpo/reward" in entry for entry in trainer.state.log_history)


def test_attached_measures_the_users_own_metrics_and_the_outer_logs_stay(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    logs = []
    for scheduler in (never, at_step(2)):
        trainer = make_trainer(make_model(), folder=f"run-{len(logs)}", evaluate=True)
        trainer.compute_metrics = lambda prediction: {"rows": float(len(prediction.label_ids))}
        callback = RisenCallback(config(scheduler=scheduler, guard=DROP)).attach(trainer)
        trainer.train()
        logs.append([e["loss"] for e in trainer.state.log_history if "loss" in e])
    assert logs[0] == logs[1]
    metrics = callback.phases[-1].metrics
    assert metrics["domain/rows_before"] == metrics["domain/rows_after"] == 8.0


def test_the_probe_is_the_evaluation_set_where_none_is_configured(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    for sft in (False, True):
        trainer = make_trainer(make_model(), sft=sft, folder=f"run-{sft}", evaluate=True)
        callback = RisenCallback(config(probe=None)).attach(trainer)
        trainer.train()
        assert callback.phases[-1].metrics["guard/probe_loss_before"] > 1.0


def test_rewards_in_every_form_that_trl_takes(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    seen: list[set[str]] = []

    async def waits(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        return [float(len(completion[0]["content"]) % 2) for completion in completions]

    def abstains(completions: list[Any], family: list[str], **columns: Any) -> list[float | None]:
        seen.append(set(columns))
        columns["log_metric"]("abstained", 1.0)
        return [None] * len(completions)

    trainer = make_trainer(make_model())
    callback = RisenCallback(config(rewards=[waits, Weighted(abstains, weight=2.0)]))
    callback.attach(trainer)
    trainer.train()
    assert callback.phases[-1].accepted
    extras = {"prompts", "completion_ids", "trainer_state", "log_extra", "log_metric", "answer"}
    assert all(extras - {"prompts"} <= columns for columns in seen)
    assert 0.0 <= callback.phases[-1].metrics["guard/adherence_strict_before"] <= 1.0


def test_observers_see_every_phase_in_order(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    seen: list[tuple[str, str, int]] = []

    class Onlooker:
        @hookimpl
        def risen_phase_started(self, phase: Any, progress: Progress) -> None:
            seen.append(("started", phase.kind, progress.step))

        @hookimpl
        def risen_phase_ended(self, phase: Any, metrics: Any) -> None:
            seen.append(("ended", phase.kind, phase.steps))

    trainer = make_trainer(make_model())
    callback = RisenCallback(config()).attach(trainer)
    callback.run_state.parts.plugins.register(Onlooker(), "onlooker")
    trainer.train()
    assert seen == [
        ("started", "fine_tune", 0),
        ("ended", "fine_tune", 2),
        ("started", "risen", 2),
        ("ended", "risen", 2),
        ("started", "fine_tune", 2),
        ("ended", "fine_tune", 2),
    ]


def test_the_scheduler_is_asked_once_per_step_with_what_happened(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    asked: list[Progress] = []
    decide = at_step(2)

    def watching(progress: Progress) -> Any:
        asked.append(progress)
        return decide(progress)

    trainer = make_trainer(make_model(), evaluate=True, eval_strategy="steps", eval_steps=2)
    RisenCallback(config(scheduler=watching)).attach(trainer)
    trainer.train()
    assert [progress.step for progress in asked] == [1, 2, 3, 4]
    last = asked[-1]
    assert [phase.kind for phase in last.phases] == ["fine_tune", "risen", "fine_tune"]
    assert last.rollouts == 16
    assert last.tokens > 0
    assert [step for step, _ in last.train_losses] == [1, 2, 3]
    assert [step for step, _ in last.eval_metrics] == [2]
    assert last.elapsed_s > asked[0].elapsed_s > 0


def test_decision_parameters_hold_for_that_phase_alone(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    trainer = make_trainer(make_model())
    scheduler = at_step(2, max_completion_length=3)
    callback = RisenCallback(config(scheduler=scheduler)).attach(trainer)
    trainer.train()
    assert callback.phases[-1].metrics["tokens"] <= 16 * 3


def test_trained_reported_and_guarding_prompts_are_disjoint(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    trained: set[str] = set()

    def remembers(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        if not is_at_end(columns["trainer_state"]):
            trained.update(prompt[0]["content"] for prompt in prompts)
        return [1.0] * len(completions)

    trainer = make_trainer(make_model())
    callback = RisenCallback(config(rewards=[remembers])).attach(trainer)
    trainer.train()
    guard = {row["prompt"][0]["content"] for row in callback.run_state.instructions.held_out.guard}
    report = {
        row["prompt"][0]["content"] for row in callback.run_state.instructions.held_out.report
    }
    assert len(guard) == 4
    assert len(report) == 2
    assert len(trained) == 4  # two steps of two prompts
    assert not guard & report
    assert not (guard | report) & trained


def test_every_sampled_answer_is_logged_with_what_each_reward_made_of_it(
    config: Callable[..., RisenConfig],
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
) -> None:
    trainer = make_trainer(make_model())
    RisenCallback(config()).attach(trainer)
    trainer.train()
    logged = list(read_rollouts(trainer.args.output_dir))
    assert len(logged) == 2 * 8  # two GRPO steps of 8 answers
    assert [(row.phase, row.step) for row in logged] == [(1, 0)] * 8 + [(1, 1)] * 8
    assert [row.group for row in logged] == [index // 4 for index in range(16)]
    for row in logged:
        assert row.outcomes["ascii_share"] == ascii_share([row.completion])[0]
        assert row.columns["family"]


def test_a_generator_can_ask_the_model_in_training_and_leaves_it_as_it_was(
    config: Callable[..., RisenConfig],
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
) -> None:
    told: list[list[float]] = []

    class Asking:
        def __call__(self, *, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
            rows = orders.draw(count, seed)
            texts = context["generate"]([row["prompt"] for row in rows])
            assert len(texts) == len(rows)
            if context["generate"] is not no_answers:
                told.append(context["held_out_adherence"])
            return rows

    def weights_after(generator: Any) -> dict[str, torch.Tensor]:
        trainer = make_trainer(make_model())
        RisenCallback(config(generator=generator, scheduler=at_step(1, 3))).attach(trainer)
        trainer.train()
        return weights(trainer.model)

    asked = weights_after(Asking())
    # a draw per GRPO step of two phases
    assert [len(past) for past in told] == [0, 0, 1, 1]
    assert same(asked, weights_after(Messages()))


def test_each_wire_looks_once_at_each_measured_answer(
    config: Callable[..., Any],
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[Any] = []
    monkeypatch.setitem(WIRES, "counted", looks.append)  # type: ignore[arg-type]
    trainer = make_trainer(make_model())
    callback = RisenCallback(config()).attach(trainer)
    trainer.train()
    held_out = callback.run_state.instructions.held_out
    prompts = {text_of(row["prompt"]) for row in [*held_out.guard, *held_out.report]}
    measured = 2 * (KEEP.rows + KEEP.report_rows)  # before the phase and after it
    assert sum(look.prompt in prompts for look in looks) == measured
