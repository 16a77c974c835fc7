"""``risen demo --model``: the whole story on a model that knows nothing, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from risen_plugin.cli import command_line
from risen_plugin.commands.train.recipe import recipe

GRPO = {
    "learning_rate": 1e-3,
    "temperature": 1.0,
    "max_completion_length": 8,
    "num_generations": 2,
    "per_device_train_batch_size": 4,
}


@pytest.fixture
def model(make_model: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    make_model(hidden_size=64, head_dim=16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A phase of one step of four short answers, with few rows."""

    def small_recipe(*args: Any, **named: Any) -> Mapping[str, Any]:
        assert recipe(*args, **named) == {}  # of so small a model
        return {"risen": {"grpo": GRPO, "buffers": {"largest": 0}, "mending": {"rows": 4}}}

    monkeypatch.setattr("risen_export.demo.real.recipe", small_recipe)
    monkeypatch.setattr("risen_export.demo.real.MOST_STEPS", 1)
    monkeypatch.setattr("risen_export.demo.real._REPORTED", 3)


def demo(*arguments: object) -> Result:
    return CliRunner().invoke(command_line(), ["demo", *map(str, arguments)])


@pytest.mark.slow
def test_the_story_is_told_and_leaves_a_bundle_to_talk_to(
    model: Path, small: None, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = demo("--model", model, "--output", out, "--minutes", 60, "--chat")
    assert done.exit_code == 0, done.output
    story = [
        "about",
        "in all, with the export; the phase:",
        "1 step of 4 answers (",
        "what it does not follow now",
        "it follows ",
        "✗ ",
        "reinforcing the answers that follow",
        "what it follows now, beside what it followed",
        "Nothing was gained: the guard dropped the only phase",
        "It cost ",
        "the bundle holds the model as it was",
        "of tokens agree",
        f"next: risen chat {out / 'bundle'}",
    ]
    places = [done.output.find(part) for part in story]
    assert all(place >= 0 for place in places), list(zip(story, places, strict=True))
    assert places == sorted(places)
    assert "mending" not in yaml.safe_load((out / "run" / "run.yaml").read_text())["risen"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["phase"]["kept"] is False
    assert summary["phase"]["steps"] == 1
    assert summary["phase"]["seconds_said"] > 0
    assert summary["phase"]["seconds_taken"] > 0
    assert summary["expected"]["work"]["steps"] == 1
    assert summary["not_followed_before"]
    assert len(summary["decision"]) == 3
    assert (Path(summary["bundle"]) / summary["precisions"][0] / "model.onnx").is_file()


@pytest.mark.slow
def test_too_few_minutes_are_refused_with_those_that_are_enough_and_nothing_is_left(
    model: Path, small: None, tmp_path: Path
) -> None:
    done = demo("--model", model, "--output", tmp_path / "out", "--minutes", 0.01)
    assert done.exit_code == 2
    line = done.output.splitlines()[-1]
    assert "the least phase, 1 step, takes about " in line
    assert "give --minutes " in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--quick",), "--quick is for the demo on the embedded model; leave it or --model out"),
        (("--baselines",), "--baselines is for the demo on the embedded model"),
        (("--minutes", "0"), "--minutes"),
    ],
)
def test_options_of_the_other_demo_are_refused(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = demo("--model", "org/model", "--output", tmp_path / "out", *arguments)
    assert (done.exit_code, said in done.output) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--chat",), ("--minutes", "5")])
def test_options_for_a_model_need_one(option: tuple[str, ...], tmp_path: Path) -> None:
    done = demo("--output", tmp_path / "out", *option)
    assert done.exit_code == 2
    assert f"{option[0]} is for a demo on a model of yours; name it with --model" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["empty folder", "adapter", "file"])
def test_what_is_no_model_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "thing"
    if kind == "file":
        place.write_text("text")
    else:
        place.mkdir()
    if kind == "adapter":
        (place / "adapter_config.json").write_text("{}")
    done = demo("--model", place, "--output", tmp_path / "out")
    assert done.exit_code == 2
    said = {"empty folder": "without config.json", "adapter": "is an adapter", "file": "is a file"}
    assert said[kind] in done.output
    assert len(done.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()
