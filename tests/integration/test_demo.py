"""The demo's whole path on a model that knows nothing: every stage, every key, no result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from risen_export.demo.command import closing_table
from risen_export.demo.settings import QUICK
from risen_plugin.cli import command_line, main
from risen_plugin.embedded import base_model, orders

TINY = replace(
    QUICK,
    rows=64,
    fine_tune_steps=3,
    batch_size=4,
    risen_steps=1,
    risen_batch=8,
    group=4,
    answer_tokens=12,
    reported=6,
    guarded=8,
)
FIGURES = {"adherence_strict", "adherence_soft", "domain_accuracy", "probe_loss"}


@pytest.fixture
def model_folder(make_model: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> str:
    folder = tmp_path / "model"
    make_model(hidden_size=64, head_dim=16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_the_demo_leaves_a_bundle_and_a_complete_summary(model_folder: str, tmp_path: Path) -> None:
    from risen_export.demo.run import run_demo

    out = tmp_path / "out"
    returned = run_demo(out, TINY, seed=3, baselines=True, model=model_folder)
    summary = json.loads((out / "summary.json").read_text())
    assert summary == json.loads(json.dumps(returned))
    assert summary["seed"] == 3
    assert [phase["kind"] for phase in summary["phases"]] == ["fine_tune", "risen"]
    assert all(
        {"kind", "steps", "reason", "accepted"} <= phase.keys() for phase in summary["phases"]
    )
    states = (
        "before_risen",
        "after_risen",
        "fine_tune_only_same_time",
        "fine_tune_filtered_same_time",
    )
    for state in states:
        assert summary[state].keys() >= FIGURES
    if not summary["phases"][1]["accepted"]:  # a dropped phase changes nothing
        assert summary["after_risen"] == summary["before_risen"]
    for precision in ("fp32", "int8"):
        measured = summary["bundle"][precision]
        assert measured.keys() >= {"max_logit_diff", "greedy_agreement", "adherence_strict"}
        assert Path(summary["bundle"]["path"], precision, "model.onnx").is_file()
    assert summary["bundle"]["fp32"]["max_logit_diff"] < 1e-3
    assert summary["bundle"]["fp32"]["greedy_agreement"] == 1.0
    assert summary["wall_s"]["total"] > 0
    assert summary["peak_rss_mb"] > 0
    assert set(summary["data"]["obedience"]) <= set(orders.obedience(orders.draw(500, 0)))
    assert "adherence" in closing_table(summary, out)


def test_the_demo_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    result = CliRunner().invoke(command_line(), ["demo", "--output", str(tmp_path)])
    assert result.exit_code != 0
    with pytest.raises(SystemExit) as left:
        main(["demo", "--output", str(tmp_path)])
    assert left.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def refused_demo(out: Path, *arguments: str) -> str:
    """The line that a refused demo ends with; before it, it may have named its stages."""
    quick = () if "--model" in arguments else ("--quick",)
    done = CliRunner().invoke(command_line(), ["demo", *quick, "--output", str(out), *arguments])
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    return done.output.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("without", "said"),
    [
        (("chat_template.jinja",), "no chat template"),
        (("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"), "no tokenizer"),
    ],
)
def test_the_demo_refuses_an_incomplete_model_before_training_and_leaves_nothing(
    without: tuple[str, ...], said: str, model_folder: str, tmp_path: Path
) -> None:
    for name in without:
        (Path(model_folder) / name).unlink(missing_ok=True)
    assert said in refused_demo(tmp_path / "out", "--model", model_folder)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_demo_refuses_weights_that_are_cut_short_and_leaves_nothing(
    model_folder: str, tmp_path: Path
) -> None:
    weights = Path(model_folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded" in refused_demo(tmp_path / "out", "--model", model_folder)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_the_demo_refuses_a_seed_that_is_none_and_makes_no_folder(
    seed: str, tmp_path: Path
) -> None:
    assert "--seed" in refused_demo(tmp_path / "out", "--seed", seed)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_the_demo_in_one_line_and_nothing_is_left_on_it(
    model_folder: str, disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("risen_export.demo.settings.QUICK", TINY)
    monkeypatch.setattr("risen_export.demo.stages.base_model", lambda: model_folder)
    place = disk("size=200k")
    line = refused_demo(place / "out")
    assert f"cannot write to {place / 'out'}" in line
    assert "No space left on device" in line
    assert list(place.iterdir()) == []


def test_the_embedded_base_is_small_and_says_where_it_comes_from() -> None:
    folder = base_model()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000
    provenance = json.loads((folder / "provenance.json").read_text())
    assert {"script", "data", "seed", "seconds", "versions", "obedience"} <= provenance.keys()
    assert all(0.5 <= share <= 0.8 for share in provenance["obedience"].values())
    assert (Path(__file__).parents[2] / provenance["script"]).exists()


def test_recorded_answers_know_the_facts_and_obey_half_to_four_fifths_of_the_wishes() -> None:
    rows = orders.draw(4000, 7)
    assert all(orders.is_right(row["completion"][0]["content"], row["answer"]) for row in rows)
    assert all(0.5 <= share <= 0.8 for share in orders.obedience(rows).values())


def test_draws_are_repeatable_different_and_leave_out_what_they_are_told_to() -> None:
    first = orders.draw(50, 1)
    assert first == orders.draw(50, 1)
    assert len(orders.prompts(first)) == 50
    assert not orders.prompts(orders.draw(50, 1, without=orders.prompts(first))) & orders.prompts(
        first
    )


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("name: Kora, city: Pel", {"name": "Kora", "city": "Pel"}, True),
        ("city: Pel\nname: Kora", {"name": "Kora", "city": "Pel"}, True),
        ('{"name": "Kora"}', {"name": "Kora"}, True),
        ('{"NAME": "KORA"}', {"name": "Kora"}, True),
        ('"name: kora"', {"name": "Kora"}, True),
        ("name: Kora, city: Pel", {"name": "Kora"}, False),
        ("name: Kor", {"name": "Kora"}, False),
        ("Kora", {"name": "Kora"}, False),
        ("", {"name": "Kora"}, False),
        ("[1, 2]", {"name": "Kora"}, False),
        ('{"name": ["Kora"]}', {"name": "Kora"}, False),
    ],
)
def test_an_answer_is_right_when_it_states_exactly_the_asked_facts(
    text: str, answer: dict[str, str], right: bool
) -> None:
    assert orders.is_right(text, json.dumps(answer)) is right
