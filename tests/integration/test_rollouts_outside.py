"""A phase whose answers are sampled outside of torch: by the engine on onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from risen_plugin import RisenCallback
from risen_plugin.training.mismatch import MISMATCH, WeighedTrainer

pytest.importorskip("onnxruntime_genai")
if not metadata.entry_points(group="risen_plugin.rollouts"):
    pytest.skip("installed before rollouts were offered: pip install -e .", allow_module_level=True)

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
