"""Folders that a run cannot have, and disks that fill up while it runs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from risen_plugin import RisenCallback
from risen_plugin.errors import ConfigError, RecordError
from risen_plugin.kit.files import reason_of_the_machine
from risen_plugin.record.rollouts import read_rollouts
from risen_plugin.record.run_record import read_events

from .conftest import at_step
from .refusing import (
    refused_at_the_start,
)
from .test_clean_room import same, weights

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


def test_a_run_on_a_disk_that_cannot_be_written_is_refused_before_the_first_step(
    config: Make, make_model: Make, make_trainer: Make, disk: Callable[[str], Path]
) -> None:
    trainer = make_trainer(make_model())
    trainer.args.output_dir = str(disk("ro") / "run")
    said = refused_at_the_start(trainer, RisenCallback(config()), ConfigError, attached=True)
    assert said.endswith("takes no files; choose another")


@pytest.mark.parametrize("size", ["16k", "32k"])
def test_a_disk_that_fills_up_in_a_phase_is_one_warning_and_the_training_goes_on(
    size: str,
    config: Make,
    make_model: Make,
    make_trainer: Make,
    disk: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The disk is full when the answers are logged, or when the adapter is saved."""
    folders = [str(disk(f"size={size}") / "run"), None]
    models = []
    for folder in folders:
        trainer = make_trainer(make_model())
        trainer.args.output_dir = folder or trainer.args.output_dir
        callback = RisenCallback(config(scheduler=at_step(2))).attach(trainer)
        with caplog.at_level(logging.WARNING, logger="risen_plugin"):
            trainer.train()
        assert [phase.accepted for phase in callback.phases] == [None, True]
        assert trainer.state.global_step == 4
        models.append(trainer.model)
    assert same(weights(models[0]), weights(models[1]))
    [said] = [r.message for r in caplog.records if "has gaps" in r.message]
    assert "No space left on device" in said
    record = Path(str(folders[0])) / "risen"
    assert not [path for path in record.rglob("*") if path.name.startswith(".")]
    lines = (record / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == sorted(
        event["step"] for event in read_events(record / "events.jsonl")
    )
    for log in record.rglob("*.parquet"):
        assert len(list(read_rollouts(log))) == 16


@pytest.mark.parametrize("left", [0, 4096])
def test_a_checkpoint_of_torch_that_a_full_disk_cuts_off_is_one_line(
    left: int, disk: Callable[[str], Path]
) -> None:
    place = disk("size=512k")
    (place / "full").write_bytes(bytes(512 * 1024 - left))
    with pytest.raises(RuntimeError) as caught:
        torch.save({"state": torch.zeros(100_000)}, place / "optimizer.pt")
    said = reason_of_the_machine(caught.value)
    assert said == "cannot write: No space left on device; make room there, or choose another place"


def test_a_second_run_in_the_folder_of_a_live_one_is_refused_before_its_first_step(
    config: Make, make_model: Make, make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(make_model())
    command = [sys.executable, "-c", _HOLDING, trainer.args.output_dir]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holding\n"
        said = refused_at_the_start(trainer, RisenCallback(config()), RecordError, attached=True)
        other.kill()
    assert f"another run writes to {trainer.args.output_dir} (process {other.pid}" in said


_HOLDING = """
import sys
from risen_plugin.record.run_record import Record
Record(sys.argv[1]).begin({})
print("holding", flush=True)
sys.stdin.read()
"""
