"""What is new works as it is, a check does all but the training, and no secret is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from risen_plugin.plugins import KINDS

from .run_commands import done, everything, refused, run_yaml


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A new plugin of each kind, installed by pip where an interpreter of its own finds it."""
    home = tmp_path_factory.mktemp("new")
    names = {kind: f"mine-{kind}" for kind in KINDS}
    folders = {kind: home / f"risen-{name}" for kind, name in names.items()}
    for kind, name in names.items():
        done("new", "plugin", name, "--kind", kind, "--output", str(folders[kind]))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    target = home / "site"
    subprocess.run([*pip, "--target", str(target), *map(str, folders.values())], check=True)
    path = os.pathsep.join([str(target), *filter(None, sys.path)])
    return {"names": names, "folders": folders, "env": {**os.environ, "PYTHONPATH": path}}


def python(installed: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=installed["env"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_new_plugin_is_listed_once_it_is_installed(installed: dict[str, Any]) -> None:
    code = "from risen_plugin.cli import main; main(['plugins', '--json'])"
    listed = json.loads(python(installed, "-c", code).stdout)
    listed = [plugin for plugin in listed if plugin["distribution"] != "risen-plugin"]
    offers = {offer["kind"]: offer["name"] for plugin in listed for offer in plugin["offers"]}
    assert offers == installed["names"]
    assert {plugin["distribution"] for plugin in listed} == {
        f"risen-{name}" for name in installed["names"].values()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_a_new_plugin_pass(installed: dict[str, Any], kind: str) -> None:
    folder = str(installed["folders"][kind])
    ran = python(installed, "-m", "pytest", "-q", folder, "-p", "no:cacheprovider")
    assert ran.returncode == 0, ran.stdout
    assert "skipped" not in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("My_Reward",), "cannot be the name of a plugin; did you mean 'my-reward'?"),
        (("length",), "'length' is offered already"),
        (("9",), "cannot be the name of a plugin. It has small letters"),
        (("mine", "--kind", "generatr"), "'generatr' is not one of"),
        (("mine", "--kind", "rollouts"), "did you mean 'rollout'?"),
    ],
)
def test_a_plugin_without_a_good_name_is_not_written(
    arguments: tuple[str, ...], words: str
) -> None:
    assert words in refused("new", "plugin", *arguments)


def test_nothing_that_is_there_is_written_over() -> None:
    Path("run.yaml").write_text("mine")
    assert "run.yaml is there already" in refused("new", "run")
    assert Path("run.yaml").read_text() == "mine"


def test_a_new_run_is_checked_and_nothing_is_trained_or_written() -> None:
    done("new", "run", "desk.yaml")
    before = everything()
    shown = done("train", "desk.yaml", "--check").stdout
    assert "data    train.jsonl: 108 rows, and 12 to evaluate on" in shown
    assert "risen   32 instructions for the guard, and 8 to report on" in shown
    assert "output  out/desk" in shown
    assert everything() == before


def test_a_check_finds_what_only_the_model_shows() -> None:
    done("new", "run")
    lora = ("--set", "lora={target_modules: [nowhere]}")
    assert "the model has no module 'nowhere'" in refused("train", "run.yaml", "--check", *lora)


@pytest.mark.usefixtures("at_home")
def test_an_adaptation_is_checked_likewise() -> None:
    Path(run_yaml()).unlink()
    before = everything()
    given = ("--instructions", "instructions.jsonl", "--rewards", "mine.py:letters")
    grpo = ("--set", "risen.grpo.max_completion_length=8")
    assert "0 of" not in done("adapt", "model", *given, *grpo, "--check").stdout
    assert everything() == before


@pytest.mark.parametrize("arguments", [("env",), ("env", "--json")])
def test_the_environment_names_versions_and_no_secret(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    shown = done(*arguments).stdout
    assert str(torch.__version__) in shown
    assert "secret" not in shown
    assert str(Path.home()) not in shown
    if arguments[1:]:
        assert json.loads(shown)["libraries"]["torch"] == str(torch.__version__)


def test_every_command_shows_its_help_at_h() -> None:
    """In an interpreter of its own, since click remembers the help options of a command."""
    code = """
from click.testing import CliRunner
from risen_plugin.cli import command_line

for words in ([name] for name in command_line().commands):
    shown = CliRunner().invoke(command_line(), [*words, "-h"])
    assert shown.exit_code == 0 and "-h, --help" in shown.output, (words, shown.output)
assert "--kind" in CliRunner().invoke(command_line(), ["new", "plugin", "-h"]).output
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
