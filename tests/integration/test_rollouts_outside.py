"""A phase whose answers are sampled outside of torch: by the engine on onnxruntime."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from risen_plugin import Drawn, RisenCallback, use
from risen_plugin.errors import ConfigError
from risen_plugin.phases import sampling
from risen_plugin.plugins.offers import Built
from risen_plugin.run.foretelling import Foretelling
from risen_plugin.training.mismatch import MISMATCH, WeighedTrainer

from .conftest import KEEP, at_step

pytest.importorskip("onnxruntime_genai")

CLOSE = 1e-3  # nats: the engine's log-probabilities beside torch's, in fp32


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What engine and trainer say of the same tokens, and how often adapter and prompts came."""
    from risen_export.engine.engine import Engine

    seen: dict[str, Any] = {"gaps": [], "versions": [], "stats": []}
    load, weigh, run = Engine.load_adapter, WeighedTrainer._weigh, Engine.run

    def loaded(engine: Engine, name: str, source: Any) -> int:
        seen["versions"].append({key: value.copy() for key, value in source.items()})
        return load(engine, name, source)

    def weighed(trainer: Any, inputs: Any, trained: Any) -> None:
        gap = (trained.detach() - inputs["sampling_per_token_logps"]) * inputs["completion_mask"]
        seen["gaps"].append(float(gap.abs().max()))
        weigh(trainer, inputs, trained)

    def ran(engine: Engine, requests: Sequence[Any], **more: Any) -> Any:
        before = engine.stats()
        made = run(engine, requests, **more)
        after = engine.stats()
        asked = sum(len(request.ids) for request in requests)
        seen["stats"].append((after.read - before.read, asked, [r.n for r in requests]))
        return made

    monkeypatch.setattr(Engine, "load_adapter", loaded)
    monkeypatch.setattr(WeighedTrainer, "_weigh", weighed)
    monkeypatch.setattr(Engine, "run", ran)
    yield seen


@pytest.fixture
def made(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> Callable[..., Any]:
    """One run with one phase of two steps; the callback."""

    def make(**changes: Any) -> Any:
        # The engine's attention takes heads of a multiple of 16.
        trainer = make_trainer(make_model(hidden_size=64))
        callback = RisenCallback(config(**changes)).attach(trainer)
        trainer.train()
        return callback

    return make


def test_answers_of_the_engine_are_those_of_the_model_in_training(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with watched(monkeypatch) as seen:
        callback = made(rollout="onnx", grpo={"temperature": 0.8})
    [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
    assert phase.steps == 2
    assert phase.metrics["rollout"] == "onnx"
    assert len(seen["gaps"]) >= 2
    assert max(seen["gaps"]) < CLOSE
    assert 0 <= phase.metrics[MISMATCH] < CLOSE
    # Groups of 4 are one request, whose prompt is read once.
    groups = [one for one in seen["stats"] if one[2] == [4, 4]]
    assert groups
    assert all(read <= asked for read, asked, _ in groups)
    # The adapter of the first step does nothing yet, that of the second does.
    last = seen["versions"][-1]
    assert any(abs(value).max() > 0 for name, value in last.items() if name.endswith("lora_B"))
    assert not (tmp_path / "run" / "risen" / "rollout").exists()


def test_a_users_adapter_is_sampled_in_int8_from_a_base_that_is_exported_once(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from peft import LoraConfig, get_peft_model

    from risen_export.rollouts import base

    built = []
    merged = base.merge.from_memory
    monkeypatch.setattr(
        base.merge, "from_memory", lambda *a, **more: built.append(1) or merged(*a, **more)
    )
    monkeypatch.setattr("risen_plugin.run.start.rehearse", lambda *a, **more: None)
    # With B drawn too, so that the adapter does something from the start.
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(make_model(hidden_size=64), lora)
    rollout = {"use": "onnx", "options": {"precision": "int8-fast"}, "max_mismatch": 0.0}
    callback = RisenCallback(config(rollout=rollout, scheduler=at_step(1, 3)))
    trainer = make_trainer(model)
    callback.attach(trainer)
    trainer.train()
    phases = [phase for phase in callback.phases if phase.kind == "risen"]
    assert [phase.metrics["rollout"] for phase in phases] == ["onnx", "onnx"]
    assert len(built) == 1
    # int8 is not fp32: the mismatch is there, small, and rings where none is allowed.
    assert 0 < phases[0].metrics[MISMATCH] < 0.1
    assert phases[0].metrics["mismatch_alarm"][0] == 1


def test_a_phase_that_is_foretold_samples_from_what_was_exported_for_that(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from risen_export.rollouts import base

    built = []
    merged = base.merge.from_memory
    monkeypatch.setattr(
        base.merge, "from_memory", lambda *a, **more: built.append(1) or merged(*a, **more)
    )
    monkeypatch.setattr("risen_plugin.run.start.rehearse", lambda *a, **more: None)
    callback = RisenCallback(config(rollout="onnx", scheduler=use("after", steps=1)))
    callback.run_state.at_start = Foretelling(callback.run_state)
    trainer = make_trainer(make_model(hidden_size=64), max_steps=1, learning_rate=0.0)
    callback.attach(trainer)
    trainer.train()
    [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
    assert phase.metrics["rollout"] == "onnx"
    assert 0.0 < phase.metrics["seconds_said"] < 600.0
    assert phase.metrics["seconds_taken"] > 0.0
    assert len(built) == 1
    left = [place.name for place in (tmp_path / "run").rglob("*rollout*")]
    assert left == []


def test_the_guard_measures_by_the_engine_what_torch_measures(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("risen_plugin.run.start.rehearse", lambda *a, **more: None)
    measured = []
    for guard in (True, False):
        callback = made(
            rollout={"use": "onnx", "guard": guard}, guard=replace(KEEP, kl_samples=0), seed=3
        )
        [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
        measured.append({n: v for n, v in phase.metrics.items() if n.startswith("guard/")})
    # Greedy answers of fp32 graphs are token for token those of torch.
    assert measured[0] == pytest.approx(measured[1], abs=1e-6)


# What samples is a plugin like any other


class Even:
    """Gives every answer the same tokens; the model is not asked."""

    def refuses(self, config: Mapping[str, Any]) -> str | None:
        return None

    def __call__(self, *, rows: int, **context: Any) -> EvenSampler:
        return EvenSampler()


class EvenSampler:
    context = 512

    def __init__(self) -> None:
        self.followed: list[Mapping[str, Any]] = []

    def follow(self, factors: Mapping[str, Any]) -> None:
        self.followed.append(factors)

    def sample(
        self, prompts: Sequence[tuple[Sequence[int], int]], *, max_new_tokens: int, **how: Any
    ) -> list[list[Drawn]]:
        answer = Drawn([65, 66][:max_new_tokens], [-1.0, -1.0][:max_new_tokens])
        return [[answer] * count for _, count in prompts]

    def close(self) -> None:
        """Nothing to let go of."""


class Unwilling(Even):
    def refuses(self, config: Mapping[str, Any]) -> str | None:
        return f"it knows no {config['model_type']}"


def offered(monkeypatch: pytest.MonkeyPatch, kind: type[Even]) -> None:
    """Have this be the only rollout on offer."""
    built = Built(kind(), "even", "rollout 'even' (a test)")
    monkeypatch.setattr("risen_plugin.run.assembly._rollouts", lambda *_: (built,))


@pytest.mark.parametrize(("ours", "chosen"), [(1.0, "even"), (9.0, "transformers")])
def test_auto_takes_the_faster_way_and_says_why(
    made: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    ours: float,
    chosen: str,
) -> None:
    offered(monkeypatch, Even)
    seconds = iter([ours, 4.0])
    monkeypatch.setattr(sampling, "_seconds", lambda work: (work(), next(seconds))[1])
    with caplog.at_level(logging.INFO, "risen_plugin"):
        callback = made(rollout="auto")
    [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
    assert phase.metrics["rollout"] == chosen
    [line] = [line for line in caplog.messages if ": rollout " in line]
    assert line.startswith(f"step 2: RISEN phase 1: rollout {chosen}: ")
    assert f"8 answers of 8 tokens took {ours:.2g} s, transformers 4 s" in line


def test_auto_leaves_the_sampling_to_transformers_where_nothing_else_can(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered(monkeypatch, Unwilling)
    [phase] = [phase for phase in made(rollout="auto").phases if phase.kind == "risen"]
    assert phase.metrics["rollout"] == "transformers"
    assert phase.metrics["rollout_reason"] == "even: it knows no qwen2"


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        (Unwilling, {}, "it knows no qwen2"),
        (Even, {"grpo": {"top_p": 0.9}}, "grpo.top_p = 0.9 is for TRL's own sampling"),
    ],
)
def test_what_is_named_and_cannot_is_refused_at_the_start_in_one_line(
    made: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Even],
    changes: Mapping[str, Any],
    reason: str,
) -> None:
    offered(monkeypatch, kind)
    with pytest.raises(ConfigError, match=re.escape(reason)) as caught:
        made(rollout="even", **changes)
    assert str(caught.value).startswith("rollout: even does not work here: ")
    assert "\n" not in str(caught.value)


def test_the_loss_is_that_which_trl_takes_of_vllms_answers(
    make_model: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    from datasets import Dataset
    from trl import GRPOConfig

    args = GRPOConfig(
        output_dir=str(tmp_path),
        num_generations=2,
        per_device_train_batch_size=2,
        use_cpu=True,
        bf16=False,
        report_to=[],
        vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=1.5,
    )
    trainer = WeighedTrainer(
        model=make_model(),
        args=args,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 2),
        processing_class=tokenizer,
    )
    draw = torch.Generator().manual_seed(0)
    ones = torch.ones(2, 4, dtype=torch.long)
    inputs = {
        "prompt_ids": torch.randint(0, 200, (2, 3), generator=draw),
        "prompt_mask": torch.ones(2, 3, dtype=torch.long),
        "completion_ids": torch.randint(0, 200, (2, 4), generator=draw),
        "completion_mask": torch.cat([ones[:, :3], torch.tensor([[0], [1]])], dim=1),
        "advantages": torch.tensor([1.0, -0.5]),
        "num_items_in_batch": torch.tensor(7),
    }
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    told, *_ = trainer._get_per_token_logps_and_entropies(
        trainer.model, ids, torch.ones_like(ids), 4
    )
    sampled = told.detach() + 0.5 * torch.randn(2, 4, generator=draw)
    ratio = (told.detach() - sampled).exp().clamp(max=1.5) * inputs["completion_mask"]
    theirs = {**inputs, "old_per_token_logps": told.detach(), "importance_sampling_ratio": ratio}
    trainer.current_gradient_accumulation_steps = 1
    trainer.use_vllm = True
    expected = trainer._compute_loss(trainer.model, theirs)
    trainer.use_vllm = False
    plain = trainer._compute_loss(trainer.model, dict(inputs))
    trainer.max_weight = 1.5
    found = trainer._compute_loss(trainer.model, {**inputs, "sampling_per_token_logps": sampled})
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert found.item() != pytest.approx(plain.item(), abs=1e-3)
    assert trainer.use_vllm is False
    [kl] = trainer._metrics["train"][MISMATCH]
    assert kl > 0
