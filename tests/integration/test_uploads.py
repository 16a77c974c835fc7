"""Prompts and sampled answers stay on the machine when a Trainer uploads its output folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers.trainer
from huggingface_hub.utils import filter_repo_objects

from risen_plugin import RisenCallback
from risen_plugin.errors import ConfigError
from risen_plugin.training.uploads import uploader

Make = Callable[..., Any]


def repository(*args: Any, **kwargs: Any) -> Any:
    return SimpleNamespace(repo_id="me/model")


@pytest.fixture
def uploaded(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the files that would be sent to the hub, by the hub's own filter."""
    names: set[str] = set()

    def upload_folder(
        *, folder_path: str, ignore_patterns: Any = None, path_in_repo: str = ".", **kwargs: Any
    ) -> Any:
        files = [path for path in Path(folder_path).rglob("*") if path.is_file()]
        relative = [path.relative_to(folder_path).as_posix() for path in files]
        sent = filter_repo_objects(relative, ignore_patterns=ignore_patterns)
        names.update((Path(path_in_repo) / name).as_posix() for name in sent)
        return SimpleNamespace(done=lambda: True)

    if hasattr(transformers.trainer, "hf_api"):
        hub = SimpleNamespace(upload_folder=upload_folder, create_repo=repository)
        monkeypatch.setattr(transformers.trainer, "hf_api", lambda: hub)
    else:  # an older release
        monkeypatch.setattr(transformers.trainer, "upload_folder", upload_folder)
        monkeypatch.setattr(transformers.trainer, "create_repo", repository)
    return names


def run(make_trainer: Make, make_model: Make, config: Make, **changes: Any) -> Any:
    trainer = make_trainer(
        make_model(),
        save_strategy="steps",
        save_steps=2,
        push_to_hub=True,
        hub_strategy="all_checkpoints",
        hub_always_push=True,
    )
    RisenCallback(config(**changes)).attach(trainer)
    trainer.train()
    trainer.push_to_hub()
    return trainer


def test_the_record_and_the_state_in_checkpoints_are_not_uploaded(
    make_trainer: Make, make_model: Make, config: Make, uploaded: set[str]
):
    run(make_trainer, make_model, config)

    assert {"model.safetensors", "checkpoint-2/model.safetensors"} <= uploaded
    assert [name for name in uploaded if "risen" in name.split("/") or ".risen" in name] == []


def test_a_setting_lets_them_go_along(
    make_trainer: Make, make_model: Make, config: Make, uploaded: set[str]
):
    run(make_trainer, make_model, config, upload_record=True)

    assert {"risen/run.json", "risen/events.jsonl"} <= uploaded


def test_each_run_of_a_process_goes_by_its_own_setting(
    make_trainer: Make, make_model: Make, config: Make, uploaded: set[str]
):
    run(make_trainer, make_model, config)
    assert "risen/run.json" not in uploaded
    run(make_trainer, make_model, config, upload_record=True)
    assert "risen/run.json" in uploaded


def test_a_logger_that_would_upload_checkpoints_is_refused_before_the_training(
    make_trainer: Make, make_model: Make, config: Make, monkeypatch: pytest.MonkeyPatch
):
    trainer = make_trainer(make_model())
    RisenCallback(config()).attach(trainer)
    trainer.args.report_to = ["wandb"]
    monkeypatch.setenv("WANDB_LOG_MODEL", "checkpoint")

    with pytest.raises(ConfigError, match="WANDB_LOG_MODEL=checkpoint uploads checkpoints"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize(
    ("logger", "environment", "asked"),
    [
        ("wandb", {"WANDB_LOG_MODEL": "end"}, None),
        ("wandb", {}, None),
        ("mlflow", {"HF_MLFLOW_LOG_ARTIFACTS": "1"}, "HF_MLFLOW_LOG_ARTIFACTS=1"),
        ("comet_ml", {"COMET_LOG_ASSETS": "true"}, "COMET_LOG_ASSETS=true"),
        ("clearml", {}, "CLEARML_LOG_MODEL=TRUE"),
        ("clearml", {"CLEARML_LOG_MODEL": "false"}, None),
        ("dvclive", {"HF_DVCLIVE_LOG_MODEL": "all"}, "HF_DVCLIVE_LOG_MODEL=all"),
        ("tensorboard", {"WANDB_LOG_MODEL": "checkpoint"}, None),
    ],
)
def test_loggers_that_upload_the_output_folder(
    logger: str, environment: dict[str, str], asked: str | None
):
    assert uploader([logger], environment) == asked
