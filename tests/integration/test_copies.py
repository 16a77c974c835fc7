"""Copies of a callback, and searches that train one Trainer again and again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers.trainer_utils import HPSearchBackend

from risen_plugin import RisenCallback, use
from risen_plugin.record.checkpoints import damage_of

from .conftest import at_step


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"]
)
def test_a_copy_made_after_attaching_reaches_the_trainer_that_it_is_given_to(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Callable[..., Any],
    copied: Callable[[Any], Any],
) -> None:
    callback = RisenCallback(config(scheduler=use("after", steps=2)))
    callback.attach(make_trainer(make_model(), folder="first"))
    other = copied(callback)
    trainer = make_trainer(make_model(), folder="second", max_steps=2)
    trainer.add_callback(other)
    trainer.train()
    assert [phase.kind for phase in other.phases][-1] == "risen"
    assert any("risen/accepted" in log for log in trainer.state.log_history), "its loggers"
    assert callback.phases == ()


class Trial:
    """What a search gives a Trainer for one try, as optuna has it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.params = {"learning_rate": 1e-3 * (1 + number)}


def test_a_search_records_each_trial_in_the_folder_of_its_checkpoints(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformers.integrations.hp_params", lambda trial: trial.params)
    trainer = make_trainer(make_model(), max_steps=2, save_strategy="steps", save_steps=2)
    trainer.model_init = lambda: make_model()
    callback = RisenCallback(config(scheduler=at_step(1))).attach(trainer)
    trainer.hp_search_backend = HPSearchBackend.OPTUNA
    trainer.hp_space = lambda trial: trial.params
    trainer.hp_name = None
    for number in range(2):
        trainer.train(trial=Trial(number))
        assert [phase.kind for phase in callback.phases].count("risen") == 1
        folder = tmp_path / "run" / f"run-{number}"
        assert damage_of(folder / "checkpoint-2") is None
        assert (folder / "risen" / "phase-001" / "phase.json").is_file()
    assert not (tmp_path / "run" / "risen").exists()
