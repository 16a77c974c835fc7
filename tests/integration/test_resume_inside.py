"""Going on inside a phase, and what is refused: damage, changes, code in a checkpoint."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from risen_plugin import Decision, Progress, RisenCallback
from risen_plugin.config import ControlConfig, GuardConfig, Weighted
from risen_plugin.errors import ConfigError, RecordError
from risen_plugin.kit.files import MANIFEST, manifest_of
from risen_plugin.phases.checkpoints import PhaseCheckpoints
from risen_plugin.record.run_record import read_events
from risen_plugin.run.resuming import Resuming

from .conftest import KEEP, Messages, phase_events

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
SAVING = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}


class Dying(Messages):
    """Ends the run as Ctrl-C does, at its n-th draw to train on."""

    def __init__(self, at: int = -1) -> None:
        self.left = at

    def __call__(self, *, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
        if "held_out_adherence" in context:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
        return super().__call__(count=count, seed=seed, **context)


def four_steps(progress: Progress) -> Decision:
    return Decision("risen" if progress.step == 2 else "fine_tune", 4, {}, "the second step")


@pytest.fixture
def run(make_trainer: Make, config: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Trains ``model`` with a phase of four steps after the second; gives trainer and callback."""
    monkeypatch.setattr(
        "risen_plugin.phases.checkpoints.MOST_SHARE", math.inf
    )  # however slow the machine

    def make(model: Any, *, resume: Any = None, dies_at: int = -1, **given: Any) -> Any:
        changes = given.pop("config", {})
        trainer = make_trainer(model, **{**SAVING, **given})
        settings = {"scheduler": four_steps, "checkpoint_every": 1, **changes}
        callback = RisenCallback(config(generator=Dying(dies_at), **settings)).attach(trainer)
        if dies_at >= 0:
            with pytest.raises(KeyboardInterrupt):
                trainer.train(resume_from_checkpoint=resume)
        else:
            trainer.train(resume_from_checkpoint=resume)
        return trainer, callback

    return make


def same(first: Any, second: Any) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[n], theirs[n]) for n in ours)


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def events(folder: Path) -> list[str]:
    return phase_events(read_events(folder / "risen" / "events.jsonl"))


def test_a_users_adapter_goes_on_inside_a_phase(run: Make, make_model: Make) -> None:
    def adapted(seed: int) -> Any:
        torch.manual_seed(5)
        lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(make_model(seed=seed), lora, "mine")

    settings = {"grpo": {"beta": 0.1}}
    whole, _ = run(adapted(0), folder="whole", config=settings)
    run(adapted(0), folder="cut", dies_at=3, config=settings)
    again, _ = run(adapted(0), folder="cut", resume=True, config=settings)
    assert same(again.model, whole.model)


def test_trls_adaptive_entropy_goes_on_inside_a_phase(run: Make, make_model: Make) -> None:
    """Its controller has raised the coefficient by then, and holds the entropy of the last step."""
    grpo = {"use_adaptive_entropy": True, "entropy_target": 10.0, "entropy_coef_delta": 0.05}
    whole, first = run(make_model(), folder="whole", config={"grpo": grpo})
    run(make_model(), folder="cut", dies_at=3, config={"grpo": grpo})
    again, second = run(make_model(), folder="cut", resume=True, config={"grpo": grpo})
    coefficients = [_entropy_coefficients(trainer) for trainer in (whole, again)]
    assert coefficients[0] == coefficients[1] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert first.phases[1].metrics["entropy"] == second.phases[1].metrics["entropy"]
    assert same(again.model, whole.model)


def _entropy_coefficients(trainer: Any) -> list[float]:
    record = Path(trainer.args.output_dir) / "risen" / "phase-001" / "phase.json"
    return [
        log["entropy_coef"]
        for log in json.loads(record.read_text())["logs"]
        if "entropy_coef" in log
    ]


def test_what_a_killed_run_did_not_come_to_delete_is_deleted_by_the_next(
    run: Make, make_model: Make, tmp_path: Path
) -> None:
    """The phase has ended and the checkpoint holds it, but its own checkpoints are still there."""
    run(make_model())
    left = tmp_path / "run" / "risen" / "phase-001" / "checkpoints"
    assert not left.exists()
    (left / "step-000002").mkdir(parents=True)
    run(make_model(seed=9), resume=True)
    assert not left.exists()


def test_a_phase_that_was_told_to_stop_does_not_go_on(
    run: Make, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is killed after the step that ended the phase, before that is written."""
    stops = {"control": ControlConfig(max_zero_variance=0.0, window=1)}
    stops["rewards"] = [Weighted(all_alike)]
    whole, first = run(make_model(), folder="whole", config=stops)
    write = PhaseCheckpoints.write

    def killed(self: Any, *arguments: Any, finished: bool = False) -> None:
        if finished:
            raise KeyboardInterrupt
        write(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(PhaseCheckpoints, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            run(make_model(), folder="cut", config=stops)
    again, second = run(make_model(), folder="cut", resume=True, config=stops)
    assert first.phases[1].steps == second.phases[1].steps == 2
    assert first.phases[1].metrics["actions"] == second.phases[1].metrics["actions"]
    assert same(again.model, whole.model)


def all_alike(completions: list[Any], **columns: Any) -> list[float]:
    return [1.0] * len(completions)


def test_a_phase_goes_on_in_another_folder_by_the_path_given_to_train(
    run: Make, make_model: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="risen_plugin")
    whole, first = run(make_model(), folder="whole")
    run(make_model(), folder="cut", dies_at=3)
    place = str(tmp_path / "cut" / "checkpoint-2")
    again, second = run(make_model(seed=9), folder="elsewhere", resume=place)
    assert "RISEN phase 1 goes on after 3 of 4 steps" in caplog.text
    assert same(again.model, whole.model)
    assert second.run_state.pass_rates.rollouts == first.run_state.pass_rates.rollouts
    phases = [tmp_path / name / "risen" / "phase-001" for name in ("whole", "elsewhere")]
    steps = [len(json.loads((phase / "phase.json").read_text())["logs"]) for phase in phases]
    assert steps[0] == steps[1]


def test_a_finished_checkpoint_is_found_by_the_path_given_to_train(
    run: Make, make_model: Make, tmp_path: Path
) -> None:
    whole, first = run(make_model(), folder="whole")
    place = str(tmp_path / "whole" / "checkpoint-3")
    again, second = run(make_model(seed=9), folder="elsewhere", resume=place)
    assert [p.kind for p in second.phases] == [p.kind for p in first.phases]
    assert same(again.model, whole.model)


class Code:
    """What no checkpoint may hold."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("code of a checkpoint was run",))


@pytest.mark.parametrize("kind", ["damaged", "code"])
def test_a_bad_checkpoint_of_a_phase_is_named_and_the_one_before_it_used(
    kind: str, run: Make, make_model: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="risen_plugin")
    whole, _ = run(make_model(), folder="whole")
    run(make_model(), folder="cut", dies_at=3)
    newest = tmp_path / "cut" / "risen" / "phase-001" / "checkpoints" / "step-000003"
    if kind == "damaged":
        spoil(newest / "trained.safetensors")
    else:
        torch.save({"optimizer": Code()}, newest / "training.pt")
        files = {path.name: path for path in newest.iterdir() if path.name != MANIFEST}
        (newest / MANIFEST).write_text(json.dumps(manifest_of(files)))
    again, _ = run(make_model(seed=9), folder="cut", resume=True)
    said = {
        "damaged": "trained.safetensors is not what was written",
        "code": "training.pt holds more than weights, and is not loaded",
    }[kind]
    assert f"{newest} is damaged ({said}); step-000002 is used" in caplog.text
    assert "RISEN phase 1 goes on after 2 of 4 steps" in caplog.text
    assert same(again.model, whole.model)
    assert events(tmp_path / "cut") == events(tmp_path / "whole") == ["decision", "phase"]


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_it_used(
    run: Make, make_model: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = run(make_model(), folder="whole")
    spoil(tmp_path / "whole" / "checkpoint-4" / "optimizer.pt")
    again, _ = run(make_model(seed=9), folder="whole", resume=True)
    place = tmp_path / "whole" / "checkpoint-4"
    assert f"{place} is damaged (optimizer.pt is not what was written)" in caplog.text
    assert "is damaged-checkpoint-4 now; checkpoint-3 is the newest before it" in caplog.text
    assert again.state.global_step == 4
    assert same(again.model, whole.model)


def test_a_damaged_checkpoint_that_train_is_given_is_refused_by_name(
    run: Make, make_model: Make, tmp_path: Path
) -> None:
    run(make_model(), folder="whole")
    place = tmp_path / "whole" / "checkpoint-4"
    spoil(place / "optimizer.pt")
    with pytest.raises(RecordError) as refused:
        run(make_model(), folder="elsewhere", resume=str(place))
    better = tmp_path / "whole" / "checkpoint-3"
    assert str(refused.value) == (
        f"the checkpoint {place} is damaged: optimizer.pt is not what was written; "
        f"resume from {better}"
    )


def test_a_changed_configuration_is_refused_by_name_and_can_be_forced(
    run: Make, make_model: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="risen_plugin")
    run(make_model(), folder="cut", dies_at=3)
    guard = GuardConfig(rows=4, report_rows=2, min_gain=-0.5, max_probe_loss_rise=1e9)
    changed = {"guard": guard, "seed": 0}
    with pytest.raises(ConfigError) as refused:
        run(make_model(), folder="cut", resume=True, config=changed)
    assert f"guard.min_gain was {KEEP.min_gain} and is -0.5; go back" in str(refused.value)
    _, callback = run(make_model(), folder="cut", resume=True, config={**changed, "force": True})
    assert "goes on with a change: guard.min_gain was -1.0 and is -0.5" in caplog.text
    assert [p.steps for p in callback.phases if p.kind == "risen"] == [4]


def test_another_number_of_processes_is_a_change_too(
    run: Make, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = Resuming.resume

    def in_two(self: Resuming, *arguments: Any) -> Any:
        found = resume(self, *arguments)
        self.made_of["processes"] = 2
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Resuming, "resume", in_two)
        run(make_model(), folder="cut", dies_at=3)
    with pytest.raises(ConfigError, match="processes was 2 and is 1; go back"):
        run(make_model(), folder="cut", resume=True)


def test_a_clock_that_jumps_changes_nothing(
    run: Make, make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(make_model(), folder="whole")
    began = time.monotonic()
    real, jumps = time.time, iter([*range(0, 10**9, 10**6)])
    monkeypatch.setattr(time, "time", lambda: real() - next(jumps) * 3600)
    run(make_model(), folder="cut", dies_at=2)
    again, callback = run(make_model(seed=9), folder="cut", resume=True)
    assert same(again.model, whole.model)
    assert 0 < callback.run_state.history.elapsed_s < time.monotonic() - began
    assert events(tmp_path / "cut") == ["decision", "phase"]


def test_without_the_checkpoint_before_it_a_phase_begins_at_once(
    run: Make, make_model: Make, tmp_path: Path
) -> None:
    settings = {"checkpoint_before_phase": False}
    trainer, _ = run(make_model(), save_steps=4, config=settings)
    assert [place.name for place in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-4"]
    state = json.loads((tmp_path / "run" / "checkpoint-4" / "risen" / "state.json").read_text())
    assert [phase["kind"] for phase in state["history"]["phases"]] == ["fine_tune", "risen"]
    assert trainer.state.global_step == 4


def test_a_phase_begins_although_the_checkpoint_that_it_asked_for_did_not_come(
    run: Make, make_model: Make, tmp_path: Path
) -> None:
    """``save_strategy="best"`` overrules the request at a step that is evaluated."""
    _, callback = run(
        make_model(),
        evaluate=True,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    assert [p.at_step for p in callback.phases if p.kind == "risen"] == [2]
    assert not (tmp_path / "run" / "risen" / "saving.json").exists()


def test_a_phase_that_is_sampled_outside_of_torch_goes_on_as_if_it_was_never_cut_off(
    make_model: Make, run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime_genai")
    monkeypatch.setattr("risen_plugin.run.start.rehearse", lambda *a, **more: None)
    # The engine is found faster, and is kept to without being measured again.
    seconds = iter([1.0, 2.0] * 2)
    monkeypatch.setattr("risen_plugin.phases.sampling._seconds", lambda work: next(seconds))
    changes = {"config": {"rollout": "auto"}}
    whole, first = run(make_model(hidden_size=64), folder="whole", **changes)
    run(make_model(hidden_size=64), folder="cut", dies_at=2, **changes)
    gone_on, second = run(make_model(hidden_size=64), folder="cut", resume=True, **changes)
    assert same(whole.model, gone_on.model)
    assert [phase.metrics["rollout"] for phase in (first.phases[1], second.phases[1])] == [
        "onnx",
        "onnx",
    ]
    assert first.phases[1].metrics["mismatch_kl"] == second.phases[1].metrics["mismatch_kl"]
