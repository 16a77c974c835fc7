"""What measurements speak for: a table of situations, and the arithmetic of time and memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from risen_plugin.commands.advise.advice import (
    DataMeasured,
    Measurements,
    MemoryMeasured,
    RewardsMeasured,
    recommend,
)
from risen_plugin.commands.advise.advised_run import drafted, fitted, run_of
from risen_plugin.commands.advise.fitting import fit_to_memory
from risen_plugin.commands.advise.machine import loaded_memory
from risen_plugin.commands.advise.sizes import Fit, Shape, fit, least
from risen_plugin.commands.options import bytes_of, seconds_of
from risen_plugin.commands.train.closing import advice_lines, measured_lines
from risen_plugin.commands.train.run_config import RunConfig
from risen_plugin.embedded import orders
from risen_plugin.errors import ConfigError

ROOMY = MemoryMeasured(available=8 * 10**9, needed=2 * 10**9)
RICH = DataMeasured(
    rows=1000, loss=2.0, loss_after=1.0, steps=20, batch=8, step_s=0.5, evaluation_s=2.0
)
LEARNABLE = RewardsMeasured(
    held_out=128,
    adherence=0.4,
    groups=16,
    k=8,
    pass_at_1=0.3,
    pass_at_k=0.8,
    zero_variance=0.2,
    tokens_s=500.0,
    step_s=2.0,
    measure_s=0.1,
    phase_s=1.0,
)
ADHERENT = replace(LEARNABLE, adherence=0.97, pass_at_1=0.96, pass_at_k=0.99)
WEAK = replace(LEARNABLE, adherence=0.0, pass_at_1=0.0, pass_at_k=0.0, zero_variance=1.0)
SPENT = replace(RICH, loss_after=1.99)
FEW = replace(RICH, rows=20, loss=0.0, loss_after=0.0, steps=0, step_s=0.0)
FOLLOWING = replace(RICH, followed=0.95)
HALF_FOLLOWING = replace(RICH, followed=0.5)
CHANGING = replace(LEARNABLE, novel=0.8)


def measured(**changes: Any) -> Measurements:
    return Measurements(**{"parameters": 10**6, "memory": ROOMY, "start_s": 10.0, **changes})


@pytest.mark.parametrize(
    ("situation", "course", "reason"),
    [
        pytest.param({"data": RICH}, "fine_tune", "fine-tuning pays", id="rich domain data"),
        pytest.param(
            {"data": FOLLOWING, "rewards": LEARNABLE},
            "fine_tune",
            "95% of the recorded answers follow their instructions",
            id="data that shows how to follow",
        ),
        pytest.param({"rewards": LEARNABLE}, "risen", "RISEN pays", id="no data but rewards"),
        pytest.param(
            {"data": SPENT, "rewards": CHANGING},
            "risen",
            "80% of the instructions ask for what the data never asks for",
            id="changing instructions, data that teaches no more",
        ),
        pytest.param(
            {"data": FEW, "rewards": CHANGING},
            "risen",
            "20 rows are too few to fine-tune on",
            id="changing instructions, few rows",
        ),
        pytest.param(
            {"data": FOLLOWING, "rewards": CHANGING},
            "both",
            "80% of the instructions",
            id="changing instructions in a domain that must be right",
        ),
        pytest.param(
            {"data": HALF_FOLLOWING, "rewards": LEARNABLE},
            "both",
            "only 50% of the recorded answers follow",
            id="data that teaches the domain and not the manners",
        ),
        pytest.param(
            {"rewards": ADHERENT}, "nothing", "RISEN has little to gain", id="adherent, no data"
        ),
        pytest.param(
            {"data": RICH, "rewards": ADHERENT}, "fine_tune", "97% of 128", id="adherent, data"
        ),
        pytest.param(
            {"data": RICH, "rewards": LEARNABLE, "tuned": ADHERENT},
            "fine_tune",
            "after these steps 97% of 128 instructions are followed already",
            id="fine-tuning alone makes it adherent",
        ),
        pytest.param(
            {"rewards": WEAK}, "nothing", "give easier instructions", id="far too weak, no data"
        ),
        pytest.param(
            {"data": RICH, "rewards": WEAK},
            "fine_tune",
            "fine-tune first and ask again",
            id="far too weak, data",
        ),
        pytest.param(
            {"data": RICH, "rewards": WEAK, "tuned": LEARNABLE},
            "both",
            "RISEN pays",
            id="too weak before fine-tuning only",
        ),
        pytest.param(
            {"rewards": replace(LEARNABLE, pass_at_1=0.79)},
            "nothing",
            "nothing more to reinforce",
            id="sampling reaches no more than one answer",
        ),
        pytest.param(
            {"data": RICH, "memory": replace(ROOMY, only_adapter=True)},
            "fine_tune",
            "training every weight does not fit into 8.00 GB; an adapter does, in 2.00 GB",
            id="tight memory",
        ),
        pytest.param(
            {"data": RICH, "memory": replace(ROOMY, available=10**9, fits=False)},
            "nothing",
            "1.00 GB of memory are available, and even an adapter",
            id="no memory",
        ),
        pytest.param({"data": SPENT}, "nothing", "has little left to teach", id="nothing to gain"),
        pytest.param(
            {"data": replace(RICH, loss_after=2.2)},
            "nothing",
            "from 2.0000 to 2.2000 (+10.0%): it rises",
            id="a loss that rises",
        ),
    ],
)
def test_each_situation_gets_its_course_with_the_number_that_decided(
    situation: dict[str, Any], course: str, reason: str
):
    advice = recommend(measured(**situation))
    assert advice.course == course
    assert any(reason in said for said in advice.reasons), advice.reasons
    assert (advice.fine_tune_steps > 0) == (course in ("fine_tune", "both"))
    assert (advice.risen_steps > 0) == (course in ("risen", "both"))
    assert bool(advice.schedule) == (course in ("risen", "both"))
    assert (advice.seconds > 0.0) == (course != "nothing")


def test_a_threshold_that_is_just_reached_decides():
    at = replace(RICH, loss=1.0, loss_after=0.98)
    assert recommend(measured(data=at)).course == "fine_tune"
    assert recommend(measured(data=replace(at, loss_after=0.981))).course == "nothing"
    nearly = replace(LEARNABLE, adherence=0.949)
    assert recommend(measured(rewards=nearly)).course == "risen"
    assert recommend(measured(rewards=replace(nearly, adherence=0.95))).course == "nothing"


def test_time_is_the_sum_of_what_was_measured():
    tuned = replace(LEARNABLE, step_s=1.0)
    advice = recommend(measured(data=RICH, rewards=LEARNABLE, tuned=tuned, risen_steps=30))
    assert (advice.fine_tune_steps, advice.risen_steps) == (3 * 1000 // 8, 30)
    tuning = 375 * 0.5 + 11 * 2.0
    phase = 1.0 + 2 * 128 * 0.1 + 30 * 1.0
    assert advice.seconds == pytest.approx(10.0 + tuning + phase)


@pytest.mark.parametrize(("steps", "evaluations"), [(1, 3), (10, 12), (15, 9), (375, 11)])
def test_evaluations_are_counted_as_the_trainer_makes_them(steps: int, evaluations: int):
    advice = recommend(measured(data=RICH, fine_tune_steps=steps))
    assert advice.seconds == pytest.approx(10.0 + steps * 0.5 + evaluations * 2.0)


def test_what_is_written_takes_time_too():
    writing = {"checkpoint_s": 6.0, "save_s": 2.0}
    tuned = {"data": RICH, "fine_tune_steps": 375}
    alone = {"rewards": LEARNABLE, "risen_steps": 1}
    for situation, written in ((tuned, 4), (alone, 1), ({**tuned, "save_every": 0.0}, 0)):
        more = recommend(measured(**situation, **writing)).seconds
        assert more - recommend(measured(**situation)).seconds == pytest.approx(written * 6.0 + 2.0)


def test_a_model_that_makes_its_own_probe_answers_once_more():
    apart = {"rewards": LEARNABLE, "risen_steps": 1}
    with_probe = recommend(measured(**apart)).seconds
    assert recommend(measured(**apart, has_probe=False)).seconds == pytest.approx(
        with_probe + 128 * 0.1
    )


@pytest.mark.parametrize("within", [100.0, 200.0, 1000.0])
def test_steps_fit_the_time_that_is_given(within: float):
    advice = recommend(measured(data=RICH, rewards=LEARNABLE, within_s=within))
    assert advice.course == "both"
    assert advice.seconds <= within
    assert advice.fine_tune_steps <= 375
    assert advice.risen_steps <= 40


def test_a_time_that_is_too_short_is_told():
    advice = recommend(measured(data=RICH, rewards=LEARNABLE, within_s=20.0))
    assert "20 s are hardly enough" in advice.reasons[-1]
    assert (advice.fine_tune_steps, advice.risen_steps) == (1, 1)


def test_much_data_is_gone_through_once_and_a_wish_for_steps_is_heard():
    assert recommend(measured(data=replace(RICH, rows=4000))).fine_tune_steps == 500
    assert recommend(measured(data=RICH, fine_tune_steps=7)).fine_tune_steps == 7


def test_what_is_told_holds_the_numbers():
    m = measured(data=RICH, rewards=LEARNABLE, tuned=ADHERENT, spent_s=33.0)
    told = "\n".join(measured_lines(m))
    for words in ("1,000,000 parameters", "2.0000 -> 1.0000", "pass@8 0.800", "adherence 0.970"):
        assert words in told
    assert advice_lines(recommend(m))[0] == "advice: fine-tune 375 steps, without RISEN"
    assert "writing" not in told
    assert "writing      6.0 s a checkpoint" in measured_lines(replace(m, checkpoint_s=6.0))


# Memory


SHAPE = Shape(
    parameters=10**8, adapter=10**6, hidden=512, layers=8, vocabulary=32_000, base=5 * 10**8
)


def test_half_precision_keeps_half_of_the_values():
    kept = SHAPE.training(16, 256, only_adapter=False) - SHAPE.training(0, 0, only_adapter=False)
    half = replace(SHAPE, value=2)
    assert half.training(16, 256, only_adapter=False) == (
        SHAPE.training(16, 256, only_adapter=False) - kept // 2
    )


def test_weights_that_stay_as_they_are_stored_spare_what_an_adapter_needs():
    spared = replace(SHAPE, spared=2 * SHAPE.parameters)
    assert spared.training(4, 64, only_adapter=False) == SHAPE.training(4, 64, only_adapter=False)
    assert spared.training(4, 64, only_adapter=True) == (
        SHAPE.training(4, 64, only_adapter=True) - 2 * SHAPE.parameters
    )


def test_the_whole_batch_is_taken_where_it_fits():
    found = fit(SHAPE, 16, 256, 10**11)
    assert (found.only_adapter, found.rows, found.accumulation) == (False, 16, 1)
    assert found.memory == SHAPE.training(16, 256, only_adapter=False)


def test_a_batch_is_cut_before_an_adapter_is_taken_and_keeps_its_size():
    one = SHAPE.training(1, 256, only_adapter=False)
    found = fit(SHAPE, 16, 256, round(one / 0.9) + 1)
    assert (found.only_adapter, found.rows, found.accumulation) == (False, 1, 16)
    found = fit(SHAPE, 16, 256, round(one / 0.9) - 10**6)
    assert found.only_adapter
    assert found.rows * found.accumulation == 16
    assert found.memory <= one


def test_nothing_fits_below_the_least():
    assert fit(SHAPE, 16, 256, least(SHAPE, 256) - 10) is None
    assert fit(SHAPE, 16, 256, least(SHAPE, 256) + 10) == Fit(
        True, 1, 16, SHAPE.training(1, 256, only_adapter=True)
    )
    assert fit(SHAPE, 16, 256, 10**11, only_adapter=True).only_adapter


# The run that is written


RISEN = {
    "rewards": [{"use": "constraints"}],
    "generator": {"use": "jsonl", "options": {"path": "rows.jsonl"}},
    "scheduler": {"use": "after", "options": {"steps": 99}},
}
DRAFT = {
    **drafted("org/model", data="train.jsonl", risen=RISEN, seed=3),
    "evaluation": 100,
}


@pytest.mark.parametrize(
    "situation",
    [
        {"data": RICH},
        {"rewards": LEARNABLE},
        {"data": SPENT, "rewards": LEARNABLE},
        {"data": HALF_FOLLOWING, "rewards": LEARNABLE},
        {"data": HALF_FOLLOWING, "rewards": LEARNABLE, "within_s": 100.0},
    ],
)
def test_every_advice_but_none_becomes_a_run_that_can_be_read(situation: dict[str, Any]):
    advice = recommend(measured(**situation))
    run = RunConfig.from_dict(run_of(advice, DRAFT))
    assert run.seed == 3
    if advice.course == "risen":
        assert run.data is None
        assert run.evaluation.path == "train.jsonl", "the data serves to measure retention"
    else:
        assert run.fine_tune["max_steps"] == advice.fine_tune_steps
        assert run.evaluation == 100
    if advice.course in ("risen", "both"):
        assert run.risen.scheduler.options["steps"] == advice.risen_steps
    else:
        assert run.risen is None


def test_no_run_is_made_of_the_advice_to_train_nothing():
    assert run_of(recommend(measured(rewards=ADHERENT)), DRAFT) is None


def test_an_evaluation_file_stays_the_probe_of_risen_alone():
    draft = {**DRAFT, "evaluation": "eval.jsonl"}
    run = run_of(recommend(measured(data=SPENT, rewards=LEARNABLE)), draft)
    assert run["evaluation"] == "eval.jsonl"


def test_risen_alone_trains_the_adapter_that_memory_asked_for():
    tight = {"data": SPENT, "rewards": LEARNABLE, "memory": replace(ROOMY, only_adapter=True)}
    advice = recommend(measured(**tight))
    assert (advice.course, advice.only_adapter) == ("risen", True)
    draft = fitted(DRAFT, Fit(True, 2, 4, 0), Fit(True, 8, 4, 0))
    assert RunConfig.from_dict(run_of(advice, draft)).lora is not None
    assert run_of(recommend(measured(data=SPENT, rewards=LEARNABLE)), DRAFT).get("lora") is None


def test_what_fits_the_memory_is_written_into_the_run():
    run = fitted(DRAFT, Fit(True, 2, 4, 0), Fit(True, 8, 4, 0))
    assert run["fine_tune"] == {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
    }
    assert run["lora"] == {}
    assert run["risen"]["grpo"] == {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 4,
    }
    assert RunConfig.from_dict(run).lora is not None
    assert fitted(DRAFT, Fit(False, 8, 1, 0), Fit(True, 32, 1, 0)).get("lora") is None


# Times and sizes in words


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2 h", 7200), ("3min", 180)]
)
def test_a_time_is_read(text: str, seconds: float):
    assert seconds_of("--budget", text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3s", "3d", "0s", "s"])
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(ConfigError, match="it is a time such as 90s"):
        seconds_of("--budget", text)


def test_a_size_is_read_and_what_is_none_is_refused():
    assert (bytes_of("--memory", "8GB"), bytes_of("--memory", "1MiB")) == (8 * 10**9, 2**20)
    for text in ("", "much", "0GB", "3TB"):
        with pytest.raises(ConfigError, match="it is a size such as 512MB"):
            bytes_of("--memory", text)


# Where phases and adapters find their weights


def test_a_gpu_will_hold_the_weights_that_wait_in_main_memory(
    monkeypatch: pytest.MonkeyPatch, make_model: Any
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda: 0)
    model = make_model()
    assert loaded_memory(model) == 4 * sum(p.numel() for p in model.parameters())


def test_an_adapter_that_was_asked_for_is_not_called_a_matter_of_memory(
    make_model: Any, tokenizer: Any, tmp_path: Path
):
    make_model().save_pretrained(tmp_path / "model")
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in orders.draw(4, 1)))
    draft = {"model": str(tmp_path / "model"), "data": str(data), "lora": {"r": 4}, "seed": 3}
    found = fit_to_memory(draft, make_model(), tokenizer, instructions=(), available=10**12)
    assert not found.memory.only_adapter
    assert found.draft["lora"] == {"r": 4}


def test_a_phase_finds_the_weights_as_the_run_loads_them(
    monkeypatch: pytest.MonkeyPatch, make_model: Any, tokenizer: Any, tmp_path: Path
):
    """In float32, whatever they are stored in, unless the run trains an adapter."""
    monkeypatch.setattr(
        "risen_plugin.commands.train.models._dtype",  # as on a GPU
        lambda wanted, *, only_adapter: "auto" if only_adapter else torch.float32,
    )
    monkeypatch.setattr("risen_plugin.commands.advise.fitting.loaded_memory", lambda model: 10**9)
    model = make_model()
    needed = []
    for stored in (torch.float32, torch.bfloat16):
        make_model().to(stored).save_pretrained(tmp_path / "model")
        draft = {**DRAFT, "model": str(tmp_path / "model")}
        alone = {name: value for name, value in draft.items() if name in ("model", "risen", "seed")}
        rows = [{"prompt": [{"role": "user", "content": "Where is it?"}]}]
        found = fit_to_memory(alone, model, tokenizer, instructions=rows, available=10**12)
        needed.append(found.memory.needed)
    assert needed[0] == needed[1]
