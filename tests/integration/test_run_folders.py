"""The folder of a run: one run at a time, gone on with as it was begun, untouched if refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from risen_plugin.commands.train import training
from risen_plugin.commands.train.rows import split_off
from risen_plugin.record.lock import held
from risen_plugin.record.run_record import read_events

from .run_commands import done, everything, refused, run_yaml, same, weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("at_home")]

FINE_TUNE = {"max_steps": 4, "per_device_train_batch_size": 4, "save_steps": 2}


def fine_tuning(**changes: Any) -> str:
    return run_yaml(risen=None, **{"fine_tune": FINE_TUNE, **changes})


@pytest.mark.parametrize("resume", [(), ("--resume",)], ids=["anew", "resumed"])
@pytest.mark.parametrize("write", [run_yaml, fine_tuning], ids=["risen", "fine-tuning alone"])
def test_a_second_run_is_refused_while_the_first_one_loads_its_model(
    write: Any, resume: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write()
    load, told = training.load_run, []

    def slow(*args: Any, **kwargs: Any) -> Any:
        before = everything()
        second = subprocess.run(
            ["risen", "train", run, "--output", "out", *resume],
            capture_output=True,
            text=True,
            check=False,
        )
        told.append((second.returncode, second.stderr))
        assert everything() == before
        return load(*args, **kwargs)

    monkeypatch.setattr(training, "load_run", slow)
    done("train", run, "--output", "out", "--quiet")
    [(code, said)] = told
    assert code == 2
    assert "another run writes to out" in said
    assert not Path("out/risen.lock").exists()
    if write is run_yaml:
        assert read_events(Path("out/risen/events.jsonl"))


def test_a_fine_tuning_run_keeps_its_seed_when_it_is_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another one would evaluate on rows that were trained on."""
    run = fine_tuning()
    done("train", run, "--output", "out", "--seed", "3", "--quiet")
    shutil.rmtree("out/checkpoint-4")
    Path("out/finished.json").unlink()
    said = refused("train", run, "--output", "out", "--seed", "4", "--resume")
    assert "seed was 3 and is 4" in said
    asked = []

    def watched(rows: Any, evaluation: Any, seed: int) -> Any:
        asked.append(seed)
        return split_off(rows, evaluation, seed)

    monkeypatch.setattr(training, "split_off", watched)
    done("train", run, "--output", "out", "--resume", "--quiet")
    assert set(asked) == {3}
    assert yaml.safe_load(Path("out/run.yaml").read_text())["seed"] == 3


@pytest.mark.parametrize("lora", [None, {}], ids=["every weight", "an adapter"])
def test_a_run_that_was_killed_after_its_last_checkpoint_takes_no_further_step(lora: Any) -> None:
    run = fine_tuning(lora=lora)
    whole = done("train", run, "--output", "out", "--quiet").stdout
    kept = weights("out")
    for path in ("out/finished.json", *map(str, Path("out").glob("*.safetensors"))):
        Path(path).unlink()
    again = done("train", run, "--output", "out", "--resume", "--quiet").stdout
    assert again.splitlines()[0] == whole.splitlines()[0]
    assert same(weights("out"), kept)
    assert not Path("out/checkpoint-5").exists()


def test_a_run_that_has_ended_is_extended_by_force() -> None:
    run = fine_tuning()
    done("train", run, "--output", "out", "--quiet")
    longer = ("--resume", "--force", "--set", "fine_tune.max_steps=8")
    said = done("train", run, "--output", "out", "--quiet", *longer).stdout
    assert said.startswith("fine-tuned 8 steps")
    assert Path("out/checkpoint-8").is_dir()


def test_the_best_weights_are_those_of_the_run_that_was_not_killed() -> None:
    best = {
        **{"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"},
        **{"greater_is_better": True, "eval_steps": 2, "learning_rate": 0.01},
    }
    run = fine_tuning(fine_tune={**FINE_TUNE, **best})
    done("train", run, "--output", "out", "--quiet")
    kept = weights("out")
    assert not same(kept, weights("out/checkpoint-4")), "the first loss was the greatest"
    for path in ("out/finished.json", "out/model.safetensors"):
        Path(path).unlink()
    done("train", run, "--output", "out", "--resume", "--quiet")
    assert same(weights("out"), kept)


@pytest.mark.parametrize(
    ("rank", "words"), [("0", "another run writes to out"), ("2", "there is no file 'gone.jsonl'")]
)
def test_the_first_process_alone_looks_at_the_folder(rank: str, words: str) -> None:
    """For one on another machine that shares the folder, the lock is that of its own run."""
    run = fine_tuning(data="gone.jsonl")
    with held(Path("out")):
        process = subprocess.run(
            ["risen", "train", run, "--output", "out"],
            env={**os.environ, "RANK": rank, "LOCAL_RANK": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.returncode == 2
    assert words in process.stderr


@pytest.mark.parametrize("make", [True, False], ids=["a folder that is empty", "a new folder"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"risen": None, "fine_tune": {**FINE_TUNE, "max_length": 4}},
            "no row of data keeps a token to learn within fine_tune.max_length 4; raise it",
        ),
        ({"evaluation": {"path": "train.jsonl", "split": "train"}}, "evaluation.split is of data"),
        ({"lora": {"target_modules": ["nope"]}}, "nope"),
    ],
)
def test_a_run_that_does_not_come_to_begin_leaves_the_folder_to_the_next(
    changes: dict[str, Any], words: str, make: bool
) -> None:
    run = run_yaml(**changes)
    if make:
        Path("out").mkdir()
    assert words in refused("train", run, "--output", "out", "--quiet")


def test_an_unquoted_no_is_taken_for_no() -> None:
    settings = {**FINE_TUNE, "max_steps": 1, "save_strategy": False, "eval_strategy": False}
    done("train", fine_tuning(fine_tune=settings), "--output", "out", "--quiet")
    assert not list(Path("out").glob("checkpoint-*"))


def test_the_lock_of_a_run_that_was_killed_early_is_no_hindrance() -> None:
    Path("out").mkdir()
    Path("out/risen.lock").write_text("{}")
    done("train", fine_tuning(), "--output", "out", "--quiet")
