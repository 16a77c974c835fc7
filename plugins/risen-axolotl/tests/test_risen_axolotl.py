"""Axolotl's own command line on the embedded base model; skipped without axolotl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("axolotl", reason="axolotl is not installed; tox -e axolotl installs it")

import yaml
from risen_axolotl import config_from

from risen_plugin.embedded import base_model, orders
from risen_plugin.errors import ConfigError

PLUGIN = Path(__file__).parents[1]
RISEN: dict[str, Any] = {
    "rewards": ["constraints"],
    "generator": {"use": "jsonl", "options": {"path": "instructions.jsonl"}},
    "scheduler": {"use": "after", "options": {"steps": 2}},
    "guard": {"rows": 8, "report_rows": 4, "min_gain": -1.0, "max_probe_loss_rise": 1e9},
    "grpo": {"per_device_train_batch_size": 8, "max_completion_length": 16},
}


def axolotls(**fields: Any) -> dict[str, Any]:
    """A file of axolotl's: four steps in fp32 on a CPU."""
    return {
        "base_model": str(base_model()),
        "datasets": [{"path": "train.jsonl", "type": "chat_template"}],
        "dataset_prepared_path": "prepared",
        "val_set_size": 0.1,
        "sequence_len": 256,
        "micro_batch_size": 4,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "optimizer": "adamw_torch",
        **{"bf16": False, "fp16": False, "tf32": False},
        "output_dir": "out",
        "plugins": ["risen_axolotl.Risen"],
        **fields,
    }


def axolotl_train(folder: Path, **fields: Any) -> subprocess.CompletedProcess[str]:
    messages = [
        {"messages": [*row["prompt"], *row["completion"]]} for row in orders.draw(80, seed=1)
    ]
    instructions = orders.draw(80, seed=3, wish_counts=(1, 2))
    for name, rows in (("train", messages), ("instructions", instructions)):
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "axolotl.yaml").write_text(yaml.safe_dump(axolotls(**fields)), encoding="utf-8")
    command = (sys.executable, "-m", "axolotl.cli.main", "train", "axolotl.yaml")
    environment = {"PYTHONPATH": str(PLUGIN), "AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*command, "--launcher", "python"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_axolotl_train_goes_through_a_phase(tmp_path: Path) -> None:
    done = axolotl_train(tmp_path, risen=RISEN)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "step 4: RISEN phase 1 kept" in done.stdout + done.stderr
    phase = json.loads((tmp_path / "out" / "risen" / "phase-001" / "phase.json").read_text())
    assert phase["accepted"] is True
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_mistake_under_risen_stops_axolotl_before_it_trains(tmp_path: Path) -> None:
    done = axolotl_train(tmp_path, risen={**RISEN, "reward": "constraints"})
    assert done.returncode != 0
    assert "ConfigError: risen has no key 'reward'; did you mean 'rewards'?" in done.stderr
    assert not (tmp_path / "out" / "checkpoint-4").exists()


def test_a_file_without_the_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="its file has no key 'risen'"):
        config_from(None)


def test_the_key_may_be_the_path_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "risen.yaml"
    path.write_text(yaml.safe_dump(RISEN), encoding="utf-8")
    assert config_from(str(path)) == config_from(RISEN)
