"""What the guard and the controllers do to a phase while it runs, and what becomes of it."""

from __future__ import annotations

import html
import json
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from risen_plugin import Decision, Progress, RisenCallback
from risen_plugin.commands.report.page import page
from risen_plugin.config import (
    ControlConfig,
    GuardConfig,
    LoraSettings,
    TaskProbe,
    Weighted,
    effective_grpo,
)
from risen_plugin.contracts import text_of
from risen_plugin.errors import ConfigError
from risen_plugin.instructions.plain import Fact
from risen_plugin.record.reading import read_run
from risen_plugin.training.adapters import base_of
from risen_plugin.training.answering import answers_to, sampled_answers
from risen_plugin.training.asking import Asking
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.grpo import Plan, build_trainer
from risen_plugin.training.losses import mean_loss, row_losses
from risen_plugin.training.phase_trainer import LiveSettings, set_temperature

from .conftest import KEEP, ROWS, ascii_share, is_at_end, never

pytestmark = pytest.mark.slow

TASK_ROWS = [{"prompt": row["prompt"]} for row in ROWS[:16]]


def at_steps(*steps: int, grpo_steps: int) -> Callable[[Progress], Decision]:
    def decide(progress: Progress) -> Decision:
        if progress.step in steps:
            return Decision("risen", grpo_steps, {}, f"step {progress.step}")
        return Decision("fine_tune", reason="not yet")

    return decide


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "risen" / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def phases_of(callback: RisenCallback) -> list[Any]:
    return [phase for phase in callback.phases if phase.kind == "risen"]


def constant(completions: list[Any], **columns: Any) -> list[float]:
    return [1.0] * len(completions)


def no_letters(completions: list[Any], **columns: Any) -> list[float]:
    """Pays for what no order desk would say."""
    texts = [completion[0]["content"] for completion in completions]
    return [sum(not c.isascii() for c in text) / max(1, len(text)) for text in texts]


class Scripted:
    """A task whose rows go from passed to failed as a list says, one entry per measurement."""

    __name__ = "scripted"

    def __init__(self, *failed: int) -> None:
        self.failed = list(failed)

    def __call__(self, *, completions: list[Any], **columns: Any) -> list[float]:
        failed = self.failed.pop(0) if len(self.failed) > 1 else self.failed[0]
        return [float(place >= failed) for place in range(len(completions))]


def scripted(*failed: int) -> dict[str, TaskProbe]:
    return {"old": TaskProbe(TASK_ROWS, Scripted(*failed), max_drop=0.1)}


# The harm that is planted


@pytest.mark.parametrize("kind", ["plain", "peft"])
def test_phases_of_a_harmful_reward_are_rolled_back_and_leave_fine_tuning_alone(
    kind: str,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    tmp_path: Path,
) -> None:
    lora = LoraConfig(r=16, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    probe = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS[:24]]
    ends = []
    for scheduler in (never, at_steps(2, 3, grpo_steps=6)):
        model = make_model() if kind == "plain" else get_peft_model(make_model(), lora, "mine")
        trainer = make_trainer(model, folder=f"run-{len(ends)}")
        callback = RisenCallback(
            config(
                rewards=[Weighted(no_letters, passes_at=0.9)],
                scheduler=scheduler,
                probe=probe,
                guard=GuardConfig(rows=8, report_rows=0, min_gain=-1.0, max_probe_loss_rise=0.02),
                grpo={"learning_rate": 3e-2},
            )
        ).attach(trainer)
        trainer.train()
        ends.append(weights(model))
    phases = phases_of(callback)
    assert [phase.accepted for phase in phases] == [False, False], phases
    assert same(*ends)
    for number, phase in enumerate(phases, 1):
        assert phase.metrics["guard/probe_loss_rise_low"] > 0.02
        kept = json.loads((tmp_path / f"run-1/risen/phase-00{number}/phase.json").read_text())
        assert "rises by more than 0.0200" in kept["verdict"]["reason"]
        assert kept["metrics"]["actions"] == [
            {"grpo_step": 6, "action": "roll_back", "reason": kept["verdict"]["reason"]}
        ]
    shown = html.unescape(page(read_run(tmp_path / "run-1")))
    assert all(phase.metrics["verdict"] in shown for phase in phases), "the report says why"
    told = events(tmp_path / "run-1", "guard")
    assert [(event["when"], event["action"]) for event in told] == [
        ("before", "go_on"),
        ("after", "roll_back"),
    ] * 2
    assert told[1]["intervals"]["probe_loss_rise"][1] > 0.02


def test_phases_of_a_reward_drawn_by_lot_are_dropped(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    """What the guard measures is chance as well, so the rows change and nothing was gained."""
    drawn = random.Random(0)

    def by_lot(completions: list[Any], **columns: Any) -> list[float]:
        return [float(drawn.random() < 0.5) for _ in completions]

    trainer = make_trainer(make_model())
    callback = RisenCallback(
        config(
            rewards=[Weighted(by_lot)],
            scheduler=at_steps(1, 2, 3, 4, grpo_steps=2),
            guard=GuardConfig(rows=24, report_rows=0, max_probe_loss_rise=1e9),
        )
    ).attach(trainer)
    trainer.train()
    phases = phases_of(callback)
    assert len(phases) == 4
    assert sum(bool(phase.accepted) for phase in phases) == 0
    assert max(phase.metrics["guard/gain"] for phase in phases) > 0.01  # noise alone looks so


class FewThenAll:
    """Passes none of the guard's answers before a phase, a third of the first ones after it, and
    all of the further ones; keeps them as they are judged."""

    __name__ = "few_then_all"

    def __init__(self) -> None:
        self.judged: list[list[str]] = []

    def __call__(self, completions: list[Any], trainer_state: Any, **columns: Any) -> list[float]:
        if not is_at_end(trainer_state):
            return [ascii_share([completion])[0] / 2 for completion in completions]
        self.judged.append([completion[0]["content"] for completion in completions])
        passed = (0, len(completions) // 3, 0, len(completions))[len(self.judged) - 1]
        return [float(place < passed) for place in range(len(completions))]


@pytest.mark.parametrize("is_users", [False, True], ids=["a plain model", "a user's adapter"])
def test_the_guard_measures_further_rows_at_both_ends_while_the_answer_is_open(
    is_users: bool, make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    model = make_model()
    if is_users:
        model = get_peft_model(model, LoraConfig(target_modules="all-linear"))
    trainer = make_trainer(model)
    judge = FewThenAll()
    at_entry: dict[str, torch.Tensor] = {}

    def decide(progress: Progress) -> Decision:
        if progress.step != 1:
            return Decision("fine_tune", reason="not yet")
        at_entry.update(weights(model))
        return Decision("risen", 2)

    callback = RisenCallback(
        config(
            rewards=[Weighted(judge)],
            scheduler=decide,
            grpo={"learning_rate": 0.3},
            guard=GuardConfig(
                rows=12, most_rows=24, report_rows=0, max_probe_loss_rise=1e9, kl_samples=0
            ),
        )
    ).attach(trainer)
    trainer.train()
    [phase] = phases_of(callback)
    assert phase.accepted, phase.metrics["verdict"]
    assert phase.metrics["guard/rows"] == 24
    assert phase.metrics["guard/adherence_strict_after"] == pytest.approx(16 / 24)
    assert phase.metrics["guard/gain_low"] > 0
    before, further_after = judge.judged[2], judge.judged[3]
    assert before != further_after  # the phase changed what the model says
    model.load_state_dict(at_entry)
    rows = callback.run_state.instructions.held_out.guard[12:]
    asking = Asking(trainer.processing_class, effective_grpo(callback.config.grpo))
    assert before == [
        text_of(answer) for answer in answers_to(model, asking, rows, batch_size=64).completions
    ]


# Facts


@dataclass(frozen=True)
class ScriptedFact(Fact):
    """A fact that is told, or not, by a list: one entry for each time that it is asked for."""

    told: list[bool] = field(default_factory=list)

    def is_told_by(self, answer: str) -> bool:
        return self.told.pop(0)


def scripted_facts(*told: Sequence[bool]) -> list[Fact]:
    return [ScriptedFact(f"Question {n}?", (), list(one)) for n, one in enumerate(told, 1)]


@pytest.mark.parametrize(
    ("told", "limit", "known", "lost", "is_kept"),
    [
        pytest.param([(True, True)] * 20, 0.1, 20, 0, True, id="all are kept"),
        pytest.param([(True, False)] * 12 + [(True, True)] * 8, 0.1, 20, 12, False, id="12 lost"),
        pytest.param([(True, False)] * 12 + [(True, True)] * 8, None, 20, 12, True, id="no limit"),
        pytest.param(
            [(True, False)] * 2 + [(True, True)] * 18, 0.1, 20, 2, True, id="maybe chance"
        ),
        pytest.param([(False,)] * 8 + [(True, True)] * 8, 0.1, 8, 0, True, id="half was known"),
        pytest.param([(True,)] * 4 + [(False,)] * 16, 0.1, 0, 0, True, id="too few were known"),
        pytest.param([(False,)] * 16 + [()] * 60, 0.1, 0, 0, True, id="none of the first is known"),
    ],
)
def test_facts_that_the_model_knew_and_knows_no_more_show(
    told: list[Sequence[bool]],
    limit: float | None,
    known: int,
    lost: int,
    is_kept: bool,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = scripted_facts(*told)
    monkeypatch.setattr("risen_plugin.phases.facts.facts", lambda: asked)
    guard = replace(KEEP, facts="auto", max_facts_lost=limit, kl_samples=0, report_rows=0)
    trainer = make_trainer(make_model())
    callback = RisenCallback(config(guard=guard, scheduler=at_steps(1, grpo_steps=1)))
    callback.attach(trainer)
    trainer.train()
    [phase] = phases_of(callback)
    assert phase.accepted is is_kept, phase.metrics["verdict"]
    assert phase.metrics["guard/facts_known"] == known
    assert phase.metrics["lost_facts"] == [fact.prompt for fact in asked[:lost]]
    assert phase.metrics.get("guard/facts_lost") == (lost / known if known else None)
    if not is_kept:
        said = "the share of known facts that are lost is 0.6000, for sure 0.2593, more than 0.1000"
        assert phase.metrics["verdict"].endswith(said)


# While a phase runs


def test_a_harm_that_shows_raises_beta_and_one_that_is_sure_rolls_the_phase_back(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    model = make_model()
    trainer = make_trainer(model, learning_rate=0.0)
    before = weights(model)
    guard = GuardConfig(
        rows=4,
        report_rows=2,
        min_gain=-1.0,
        max_probe_loss_rise=1e9,
        every=1,
        tasks=scripted(0, 3, 16),
    )
    callback = RisenCallback(
        config(guard=guard, scheduler=at_steps(2, grpo_steps=5), grpo={"beta": 0.04})
    ).attach(trainer)
    trainer.train()
    [phase] = phases_of(callback)
    assert (phase.accepted, phase.steps) == (False, 2)
    assert same(weights(model), before)
    actions = [(a["grpo_step"], a["action"]) for a in phase.metrics["actions"]]
    assert actions == [(1, "raise_beta"), (2, "roll_back")]
    assert phase.metrics["verdict"].startswith(
        "rolled back at GRPO step 2: the drop of task 'old' is 1.0000, for sure 0."
    )
    assert (phase.metrics["task/old_before"], phase.metrics["task/old_after"]) == (1.0, 0.0)
    told = events(tmp_path / "run", "guard")
    assert [(e["when"], e["grpo_step"], e["action"]) for e in told] == [
        ("before", 0, "go_on"),
        ("during", 1, "raise_beta"),
        ("during", 2, "roll_back"),
    ]
    assert told[2]["number"] == 1
    assert told[2]["step"] == 2
    betas = [e["beta"] for e in events(tmp_path / "run", "control")]
    assert betas == pytest.approx([0.08, 0.08])  # raised before the step's own log


def test_without_a_beta_a_harm_that_shows_stops_the_phase_which_is_judged_as_usual(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    guard = GuardConfig(
        rows=4, report_rows=2, min_gain=-1.0, max_probe_loss_rise=1e9, every=2, tasks=scripted(0, 3)
    )
    trainer = make_trainer(make_model())
    callback = RisenCallback(config(guard=guard, scheduler=at_steps(2, grpo_steps=6)))
    callback.attach(trainer)
    trainer.train()
    [phase] = phases_of(callback)
    assert (phase.accepted, phase.steps) == (True, 2)
    assert phase.metrics["verdict"].startswith("stopped at GRPO step 2 (the drop of task 'old'")
    assert phase.metrics["wants_burst"] is False  # the drop may be chance


def test_flat_adherence_stops_a_phase(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    guard = GuardConfig(
        rows=4, report_rows=2, min_gain=-1.0, max_probe_loss_rise=1e9, every=1, patience=2
    )
    trainer = make_trainer(make_model())
    callback = RisenCallback(
        config(
            rewards=[Weighted(constant), Weighted(ascii_share, graded=False)],
            guard=guard,
            scheduler=at_steps(2, grpo_steps=6),
        )
    ).attach(trainer)
    trainer.train()
    [phase] = phases_of(callback)
    assert (phase.accepted, phase.steps) == (True, 2)
    assert "held-out adherence is flat" in phase.metrics["verdict"]


@pytest.mark.parametrize(
    ("control", "grpo", "steps", "said"),
    [
        ({"window": 1}, {}, 2, "100% of the groups have no variance"),
        ({"entropy_floor": 99.0, "entropy_action": "stop", "window": 2}, {}, 2, "entropy"),
        ({"kl_budget": 1e-9, "window": 1}, {"beta": 0.1}, 2, "the KL budget of 1e-09 nats"),
    ],
)
def test_a_phase_that_has_nothing_left_to_give_is_stopped(
    control: dict[str, Any],
    grpo: dict[str, Any],
    steps: int,
    said: str,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    tmp_path: Path,
) -> None:
    reward = constant if set(control) == {"window"} else ascii_share
    trainer = make_trainer(make_model())
    callback = RisenCallback(
        config(
            rewards=[Weighted(reward, passes_at=0.0)],
            scheduler=at_steps(2, grpo_steps=5),
            control=ControlConfig(**control),
            grpo=grpo,
        )
    ).attach(trainer)
    trainer.train()
    [phase] = phases_of(callback)
    assert (phase.steps, phase.accepted) == (steps, True)
    assert phase.metrics["verdict"].startswith(f"stopped at GRPO step {steps} ({said}")
    [action] = phase.metrics["actions"]
    assert (action["grpo_step"], action["action"]) == (steps, "stop")
    assert len(events(tmp_path / "run", "control")) == steps


def test_measuring_a_phase_while_it_runs_does_not_change_it(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    ends = []
    for every, samples in ((0, 0), (1, 8)):
        guard = GuardConfig(
            rows=4,
            report_rows=2,
            min_gain=-1.0,
            max_probe_loss_rise=1e9,
            every=every,
            patience=9,
            kl_samples=samples,
        )
        model = make_model(attention_dropout=0.1)
        trainer = make_trainer(model, folder=f"run-{every}")
        callback = RisenCallback(config(guard=guard, scheduler=at_steps(2, grpo_steps=4)))
        callback.attach(trainer)
        trainer.train()
        [phase] = phases_of(callback)
        assert phase.steps == 4
        ends.append((weights(model), phase.metrics["reward"], phase.metrics["guard_s"]))
    assert same(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]
    assert "guard/forward_kl" in phase.metrics


# Steering a live trainer


def test_controllers_move_beta_and_rate_and_their_state_is_in_the_checkpoint(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(make_model(), save_strategy="steps", save_steps=2)
    RisenCallback(
        config(
            scheduler=at_steps(2, 3, grpo_steps=3),
            control=ControlConfig(kl_target=1e-9, kl_horizon=1, learning_rate="kl"),
            grpo={"beta": 0.1},
        )
    ).attach(trainer)
    trainer.train()
    told = events(tmp_path / "run", "control")
    betas = [event["beta"] for event in told]
    rates = [event["learning_rate"] for event in told]
    assert len(told) == 6
    # The KL is 0 at the first step of each phase, which is anchored at its own entry.
    assert betas[:3] == pytest.approx([0.1, 0.08, 0.096])
    assert betas[3:] == pytest.approx([0.1152, 0.09216, 0.110592])
    assert rates[:3] == pytest.approx([1e-2, 1e-2, 1e-2 / 1.5])
    states = [
        json.loads((tmp_path / f"run/checkpoint-{step}/risen/state.json").read_text())
        for step in (2, 3)  # each is written before the phase at its step
    ]
    kept = [state["controllers"]["adaptive_kl"]["beta"] for state in states]
    assert kept == pytest.approx([0.0, 0.1152])


def test_a_temperature_moves_with_the_answers(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(make_model())
    callback = RisenCallback(
        config(
            scheduler=at_steps(2, grpo_steps=3),
            control=ControlConfig(temperature_end=0.5),
        )
    ).attach(trainer)
    trainer.train()
    told = events(tmp_path / "run", "control")
    assert [event["temperature"] for event in told] == pytest.approx([1.0, 0.75, 0.5])
    entropies = [event["entropy"] for event in told]
    assert entropies[0] > entropies[1] > entropies[2]
    assert phases_of(callback)[0].steps == 3


@pytest.mark.parametrize("kind", ["plain", "peft"])
def test_likelihoods_are_taken_at_the_temperature_that_was_set(
    kind: str,
    make_model: Callable[..., Any],
    tokenizer: Any,
    make_trainer: Callable[..., Any],
    tmp_path: Path,
) -> None:
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = make_model() if kind == "plain" else get_peft_model(make_model(), lora, "mine")
    outer = make_trainer(model)
    base = base_of(model)
    own = vars(base).get("forward")
    plan = Plan(
        1,
        {"num_generations": 2, "per_device_train_batch_size": 2},
        LoraSettings(),
        0,
        str(tmp_path),
        "",
        True,
    )
    tokens = torch.tensor([[1, 2, 3, 4]], device=model.device)
    with clean_room(model, tokenizer), torch.no_grad():
        reward = Named()
        trainer = build_trainer(
            model, tokenizer, [reward], lambda n: [], outer=outer.args, plan=plan
        )
        for temperature in (0.5, 2.0):
            set_temperature(trainer, temperature)
            found = trainer._get_per_token_logps_and_entropies(
                trainer.model, tokens, torch.ones_like(tokens), 3
            )[0]
            logits = base(input_ids=tokens).logits[:, :-1].float() / temperature
            wanted = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
            assert torch.allclose(found, wanted, atol=1e-5)
        assert trainer.generation_config.temperature == trainer.temperature == 2.0
        assert LiveSettings(trainer).settings()["temperature"] == 2.0
    assert vars(base).get("forward") is own


class Named:
    __name__ = "named"
    weight = 1.0

    def __call__(self, *, prompts: list[Any], completions: list[Any], **columns: Any) -> Any:
        return [0.0] * len(completions)


# Forward KL

PENALTIES = {
    "min_p": 0.5,
    "typical_p": 0.1,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.01,
    "repetition_penalty": 1.9,
    "no_repeat_ngram_size": 1,
}


def test_the_forward_kl_is_the_loss_of_likelihood_on_what_the_entry_model_said(
    make_model: Callable[..., Any], tokenizer: Any
) -> None:
    model, asking = make_model(), Asking(tokenizer, {"max_completion_length": 6})
    made = [
        sampled_answers(model, asking, ROWS[:3], count=5, batch_size=2, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert made[0] == made[1] != made[2]
    assert len(made[0]) == 5
    for ids, labels in made[0]:
        answer = [label for label in labels if label >= 0]
        assert 1 <= len(answer) <= 6
        assert ids[-len(answer) :] == answer
    penalized = make_model()
    vars(penalized.generation_config).update(PENALTIES)
    assert made[0] == sampled_answers(penalized, asking, ROWS[:3], count=5, batch_size=2, seed=0), (
        "a model's generation settings do not change what it finds likely"
    )
    state = torch.get_rng_state()
    sampled_answers(model, asking, ROWS[:3], count=2, batch_size=2, seed=0)
    assert torch.equal(state, torch.get_rng_state())

    then = row_losses(model, made[0], batch_size=2)
    assert row_losses(model, made[0], batch_size=5) == [
        (pytest.approx(nats, rel=1e-5), tokens) for nats, tokens in then
    ]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert mean_loss(row_losses(model, made[0], batch_size=2)) != mean_loss(then)


def test_a_phase_that_learns_nothing_has_no_forward_kl(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    trainer = make_trainer(make_model())
    callback = RisenCallback(config(grpo={"learning_rate": 0.0})).attach(trainer)
    trainer.train()
    [phase] = phases_of(callback)
    for name in ("forward_kl", "forward_kl_low", "forward_kl_high", "gain", "probe_loss_rise"):
        assert phase.metrics[f"guard/{name}"] == pytest.approx(0.0, abs=1e-6), name


# The domain


def test_the_domain_is_a_reward_or_a_metric_of_the_user(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    for domain, said in ((ascii_share, "domain's score"), ("metric:rows", "drop of rows")):
        guard = GuardConfig(
            rows=8, report_rows=0, min_gain=-1.0, max_probe_loss_rise=1e9,
            domain=domain, max_domain_drop=0.0, kl_samples=0,
        )  # fmt: skip
        trainer = make_trainer(make_model(), folder=f"run-{said[-4:]}", evaluate=True)
        counted = iter(range(9, 0, -1))
        trainer.compute_metrics = lambda prediction, counted=counted: {"rows": float(next(counted))}
        callback = RisenCallback(config(guard=guard)).attach(trainer)
        trainer.train()
        [phase] = phases_of(callback)
        assert "guard/domain_drop" in phase.metrics
        if said == "drop of rows":  # falls from 9 to 8
            assert phase.metrics["guard/domain_drop"] == 1.0
            assert phase.accepted is False
            assert said in phase.metrics["verdict"]
        else:
            before, after = (phase.metrics[f"domain/ascii_share_{w}"] for w in ("before", "after"))
            assert phase.metrics["guard/domain_drop"] == pytest.approx(before - after)


def test_a_metric_that_the_user_does_not_measure_is_named(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    trainer = make_trainer(make_model(), evaluate=True)
    trainer.compute_metrics = lambda prediction: {"accuracy": 1.0}
    guard = GuardConfig(rows=8, domain="metric:acuracy")
    RisenCallback(config(guard=guard)).attach(trainer)
    with pytest.raises(
        ConfigError, match=r"'metric:acuracy', which is none .*; did you mean 'accu"
    ):
        trainer.train()


@pytest.mark.parametrize("confidence", [0.99, None])
def test_too_few_rows_for_a_harm_to_be_sure_are_told_at_the_start(
    confidence: float | None,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="risen_plugin")
    tasks = {
        "sums": TaskProbe(TASK_ROWS[:2], constant, max_drop=0.1),
        "free": TaskProbe(TASK_ROWS[:2], constant),
    }
    guard = GuardConfig(rows=8, confidence=confidence, tasks=tasks)
    trainer = make_trainer(make_model(), max_steps=1)
    RisenCallback(config(guard=guard, scheduler=never)).attach(trainer)
    trainer.train()
    said = [line for line in caplog.messages if "for a drop to be sure" in line]
    assert len(said) == (confidence is not None)
    assert not said or "task 'sums' has 2 rows; where they pass or fail, it takes 7" in said[0]


def test_a_task_is_checked_before_a_model_is_touched(config: Any) -> None:
    class Needs:
        __name__ = "needs"
        needs = ("answer",)

        def __call__(self, *, completions: list[Any], answer: Any, **columns: Any) -> list[float]:
            return [1.0] * len(completions)

    for rows, said in (
        ([], "task 'sums' has no rows"),
        ([{"text": "a"}], "task 'sums' has row 0 without a prompt"),
        (TASK_ROWS, "needs the column 'answer', which rows of task 'sums' lack"),
        ("no.jsonl", "cannot read task 'sums' no.jsonl"),
    ):
        guard = GuardConfig(tasks={"sums": TaskProbe(rows, Needs())})
        with pytest.raises(Exception, match=said):
            RisenCallback(config(guard=guard))
