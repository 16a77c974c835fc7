"""A phase whose whole change gains and does harm is kept at the largest strength that does none."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from risen_plugin import RisenCallback
from risen_plugin.commands.report.decision import decision_of
from risen_plugin.commands.report.page import page
from risen_plugin.config import TaskProbe, Weighted
from risen_plugin.record.reading import read_run
from risen_plugin.training.adapters import Snapshot
from risen_plugin.training.outside import factors_of

from .conftest import KEEP, ROWS, ascii_share, is_at_end

pytestmark = pytest.mark.slow

TASK_ROWS = [{"prompt": row["prompt"]} for row in ROWS[:16]]
LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


class Scripted:
    """A task whose rows fail as a list says: one entry for each time that they are answered."""

    __name__ = "scripted"

    def __init__(self, *failed: int) -> None:
        self.failed = list(failed)

    def __call__(self, *, completions: list[Any], **columns: Any) -> list[float]:
        failed = self.failed.pop(0)
        return [float(place >= failed) for place in range(len(completions))]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Gets all that a phase trained, by the names that PEFT saves it under."""
    seen: dict[str, torch.Tensor] = {}
    settle_at = Snapshot.settle_at

    def watched(self: Snapshot, trained: Any, strength: float) -> bool:
        if not seen:
            name = trained.active_adapter
            seen.update(
                (key.replace(f".{name}.", "."), parameter.detach().clone())
                for key, parameter in trained.named_parameters()
                if f".{name}." in key
            )
        return settle_at(self, trained, strength)

    monkeypatch.setattr(Snapshot, "settle_at", watched)
    return seen


@pytest.fixture
def run(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> Callable[..., Any]:
    """One phase whose task fails as scripted at each measurement; outer steps change nothing."""

    def run(kind: str, *failed: int, resume: bool = False, **changes: Any) -> Any:
        model = make_model() if kind == "plain" else get_peft_model(make_model(), LORA, "mine")
        entry = weights(model)
        outer = {"learning_rate": 0.0, "max_steps": 3, **changes.pop("outer", {})}
        trainer = make_trainer(model, **outer)
        task = TaskProbe(TASK_ROWS, Scripted(*failed), max_drop=0.1)
        guard = {"tasks": {"old": task}, "strengths": (0.5, 0.25), **changes.pop("guard", {})}
        settings = {"guard": replace(KEEP, **guard), "keep_dropped": True, **changes}
        callback = RisenCallback(config(**settings)).attach(trainer)
        trainer.train(resume_from_checkpoint=resume or None)
        [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
        return phase, model, entry

    return run


def saved(folder: Path, called: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "risen" / "phase-001" / called / "adapter_model.safetensors")


@pytest.mark.parametrize("kind", ["plain", "peft"])
def test_a_phase_that_does_harm_at_full_strength_is_kept_at_half(
    kind: str, run: Callable[..., Any], whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    phase, model, entry = run(kind, 0, 10, 0, keep_entry=True)
    assert phase.accepted
    assert phase.metrics["strength"] == 0.5
    said = phase.metrics["verdict"]
    assert (
        ": kept at half strength, since at full strength the drop of task 'old' is 0.6250" in said
    )
    assert phase.metrics["task/old_after"] == 1.0
    assert [(one["strength"], one["against"] is None) for one in phase.metrics["strengths"]] == [
        (1.0, False),
        (0.5, True),
    ]
    half = saved(tmp_path / "run", "adapter")
    assert set(half) == set(whole)
    for name, tensor in whole.items():
        share = 0.5 if "lora_B" in name else 1.0
        assert torch.equal(half[name], share * tensor), name
    assert any(bool(tensor.any()) for name, tensor in half.items() if "lora_B" in name)
    folder = tmp_path / "run" / "risen" / "phase-001"
    kept = weights(model)
    if kind == "plain":
        base = AutoModelForCausalLM.from_pretrained(folder / "entry")
        loaded = PeftModel.from_pretrained(base, folder / "adapter")
        assert same(weights(loaded.merge_and_unload()), kept)
    else:
        changed = [name for name in entry if not torch.equal(entry[name], kept[name])]
        assert changed
        assert all("lora_" in name for name in changed)

    lines = (tmp_path / "run/risen/events.jsonl").read_text().splitlines()
    told = [event for event in map(json.loads, lines) if event["event"] == "guard"]
    assert [(event["when"], event.get("strength", 1.0), event["action"]) for event in told] == [
        ("before", 1.0, "go_on"),
        ("after", 1.0, "shrink"),
        ("after", 0.5, "go_on"),
    ]
    record = read_run(tmp_path / "run")
    decision = decision_of(record)
    assert decision is not None
    assert "; what was trained is kept at half strength, since the whole does harm" in (
        decision.gained
    )
    assert "after, at half strength" in html.unescape(page(record))


@pytest.mark.parametrize(
    ("kind", "failed", "guard", "against", "measured"),
    [
        ("plain", (10, 10, 10), {}, "the drop of task 'old' is 0.6250", 6),
        ("peft", (0,), {"max_probe_loss_rise": -9.0}, "the rise of the probe loss is", 1),
    ],
    ids=["a plain model, for what its answers say", "a user's adapter, for its losses"],
)
def test_a_phase_that_does_harm_at_every_strength_leaves_the_weights_as_they_were(
    kind: str,
    failed: tuple[int, ...],
    guard: dict[str, Any],
    against: str,
    measured: int,
    run: Callable[..., Any],
    whole: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    """Where the losses are against a strength, the held-out rows are not answered."""
    phase, model, entry = run(kind, 0, *failed, guard=guard)
    assert not phase.accepted
    assert same(weights(model), entry)
    assert phase.metrics["task/old_after"] == pytest.approx(1 - failed[0] / 16)
    assert f"; at half strength, {against}" in phase.metrics["verdict"]
    assert f"; at a quarter of its strength, {against}" in phase.metrics["verdict"]
    tried = [one["measured"] for one in phase.metrics["strengths"][1:]]
    assert all(("adherence_strict" in one) == (measured > 1) for one in tried)
    assert all("probe_loss" in one for one in tried)
    dropped = saved(tmp_path / "run", "dropped")
    assert set(dropped) == set(whole)
    assert all(torch.equal(dropped[name], tensor) for name, tensor in whole.items())


def test_a_phase_that_a_look_rolls_back_is_kept_at_half_where_that_does_no_harm(
    run: Callable[..., Any],
) -> None:
    phase, _, _ = run("plain", 0, 16, 16, 0, guard={"every": 1})
    assert (phase.accepted, phase.steps) == (True, 1)
    assert ": kept at half strength, since at full strength" in phase.metrics["verdict"]


def test_a_phase_without_a_gain_is_not_tried_again(run: Callable[..., Any]) -> None:
    phase, _, _ = run("plain", 0, 10, guard={"min_gain": 2.0})
    assert not phase.accepted
    assert "strengths" not in phase.metrics


class FewThenAll:
    """Passes none of the guard's answers before a phase; after it a third of the first rows, at
    whatever strength, and all of the further ones."""

    __name__ = "few_then_all"

    def __init__(self) -> None:
        self.shares = [0.0, 1 / 3, 0.0, 1.0, 1 / 3, 1.0]

    def __call__(self, completions: list[Any], trainer_state: Any, **columns: Any) -> list[float]:
        if not is_at_end(trainer_state):
            return [ascii_share([completion])[0] / 2 for completion in completions]
        passed = round(self.shares.pop(0) * len(completions))
        return [float(place < passed) for place in range(len(completions))]


def test_a_strength_is_measured_on_as_many_rows_as_the_whole_took(
    run: Callable[..., Any],
) -> None:
    """The gain of the whole is more than chance on the further rows alone, and the entry is not
    measured on these again."""
    rewards = [Weighted(FewThenAll())]
    rows = {"rows": 12, "most_rows": 24, "report_rows": 0, "min_gain": 0.01, "kl_samples": 0}
    phase, _, _ = run("plain", 0, 10, 0, rewards=rewards, guard=rows)
    assert phase.accepted, phase.metrics["verdict"]
    assert phase.metrics["strength"] == 0.5
    assert phase.metrics["guard/rows"] == 24
    assert phase.metrics["guard/adherence_strict_before"] == 0.0
    assert phase.metrics["guard/adherence_strict_after"] == pytest.approx(16 / 24)


def test_a_run_that_ends_while_a_strength_is_tried_goes_on_there(
    run: Callable[..., Any],
    whole: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    settle_at = Snapshot.settle_at

    def dies(self: Snapshot, trained: Any, strength: float) -> bool:
        settle_at(self, trained, strength)
        raise KeyboardInterrupt

    settings = {"outer": {"save_strategy": "steps", "save_steps": 1}, "checkpoint_every": 1}
    monkeypatch.setattr("risen_plugin.phases.checkpoints.MOST_SHARE", math.inf)
    with monkeypatch.context() as patch:
        patch.setattr(Snapshot, "settle_at", dies)
        with pytest.raises(KeyboardInterrupt):
            run("plain", 0, 10, **settings)
    phase, _, _ = run("plain", 10, 0, resume=True, **settings)
    assert phase.metrics["strength"] == 0.5
    half = saved(tmp_path / "run", "adapter")
    seconds = [name for name in whole if "lora_B" in name]
    assert all(torch.equal(half[name], 0.5 * whole[name]) for name in seconds)


def lora(**more: Any) -> LoraConfig:
    return LoraConfig(
        **{
            "r": 4,
            "target_modules": "all-linear",
            "task_type": "CAUSAL_LM",
            "lora_alpha": 8,
            **more,
        }
    )


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(lora(), id="LoRA"),
        pytest.param(lora(use_rslora=True), id="rsLoRA"),
        pytest.param(lora(target_modules=["q_proj", "embed_tokens"]), id="on embeddings"),
        pytest.param(lora(use_dora=True), id="DoRA"),
        pytest.param(lora(bias="lora_only", lora_bias=True), id="with biases"),
        pytest.param(
            lora(modules_to_save=["norm"], target_modules=["q_proj"]), id="with a module of its own"
        ),
        pytest.param(lora(init_lora_weights="pissa"), id="PiSSA"),
        pytest.param(
            AdaLoraConfig(init_r=4, total_step=9, target_modules=["q_proj"], task_type="CAUSAL_LM"),
            id="AdaLoRA",
        ),
        pytest.param(IA3Config(task_type="CAUSAL_LM"), id="IA3"),
    ],
)
@pytest.mark.parametrize("strength", [0.5, 0.3])
def test_each_kind_of_adapter_goes_a_part_of_its_way_and_comes_back(
    strength: float, config: Any, make_model: Callable[..., Any]
) -> None:
    """The first factors of a new LoRA stay as they were trained; all else goes its part."""
    torch.manual_seed(0)
    model = get_peft_model(make_model(attention_bias=True), config)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    entry = [parameter.data.clone() for _, parameter in trained]
    base = [p.data.clone() for p in model.parameters() if not p.requires_grad]
    is_new = isinstance(config, LoraConfig) and not isinstance(config, AdaLoraConfig)
    is_new &= config.peft_type == "LORA" and config.init_lora_weights != "pissa"
    with Snapshot(model) as snapshot:
        for _, parameter in trained:
            parameter.data += 0.1 * torch.randn_like(parameter)
        whole = [parameter.data.clone() for _, parameter in trained]
        assert snapshot.settle(model)
        assert snapshot.settle_at(model, strength)
        for (name, parameter), was, end in zip(trained, entry, whole, strict=True):
            stays = is_new and ("lora_A" in name or "lora_embedding_B" in name)
            expected = end if stays else was + strength * (end - was)
            torch.testing.assert_close(parameter.data, expected, rtol=1e-6, atol=1e-6)
        assert snapshot.settle_at(model, 1.0)
        assert all(torch.equal(p.data, w) for (_, p), w in zip(trained, whole, strict=True))
        snapshot.restore()
    assert all(torch.equal(p.data, was) for (_, p), was in zip(trained, entry, strict=True))
    assert all(
        torch.equal(p.data, was)
        for p, was in zip((p for p in model.parameters() if not p.requires_grad), base, strict=True)
    )


def based(model: Any) -> dict[str, torch.Tensor]:
    """The weights of a model without those of the adapter on it."""
    return {name: tensor for name, tensor in weights(model).items() if "lora_" not in name}


def test_a_new_adapter_at_half_is_what_half_its_alpha_makes_of_it(
    make_model: Callable[..., Any],
) -> None:
    """In bf16, where merging rounds, and outside of torch, where the factors are read."""
    model = make_model().to(torch.bfloat16)
    with Snapshot(model) as snapshot:
        trained = get_peft_model(model, lora(init_lora_weights=False))
        name = "model.layers.0.mlp.up_proj"
        full = factors_of(trained)[name]
        assert snapshot.settle(trained)
        at_full = based(model)
        assert snapshot.settle_at(trained, 0.5)
        at_half = based(model)
        assert (factors_of(trained)[name][1] == 0.5 * full[1]).all()
        assert (factors_of(trained)[name][0] == full[0]).all()
        assert snapshot.settle_at(trained, 1.0)
        assert same(based(model), at_full)
        snapshot.restore()
        for module in trained.modules():
            if isinstance(module, LoraLayer):
                module.merged_adapters.clear()
                module.set_scale("default", 0.5)
        trained.merge_adapter(safe_merge=True)
        assert same(based(model), at_half)
