"""A run that is killed the hard way at any point ends as the uninterrupted one does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .kill_run import differences, runner

pytestmark = pytest.mark.slow

Run = Callable[..., dict[str, Any]]
KILLS = [
    pytest.param(("fine-tune", 4), id="in fine-tuning, after a phase that no checkpoint holds yet"),
    pytest.param(("forward", 24), id="while sampling"),
    pytest.param(("merge", 7), id="while merging"),
    pytest.param(("write", 14), id="while writing a checkpoint of the Trainer"),
    pytest.param(("write", 10), id="while writing a checkpoint of the phase"),
    pytest.param(("update", 10), id="in a burst"),
    pytest.param(("rename", 12), id="while a burst is written down"),
    pytest.param(("rename", 22), id="while the last checkpoint is exchanged"),
]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with runner() as ask:
        yield ask


@pytest.fixture(scope="module")
def whole(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run: a phase, a burst, and a phase at its end."""
    folder = tmp_path_factory.mktemp("kills") / "whole"
    assert run(folder)["code"] == 0, folder.with_name("whole.log").read_text()[-2000:]
    events = [json.loads(line) for line in (folder / "risen/events.jsonl").read_text().splitlines()]
    assert [(e["step"], e["kind"]) for e in events if e["event"] == "phase"] == [
        (2, "risen"),
        (4, "burst"),
        (6, "risen"),
    ]
    assert all(e["accepted"] for e in events if e["event"] == "phase")
    return folder


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_run_ends_as_the_uninterrupted_one(
    kill: tuple[str, int], run: Run, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert run(folder, kill=kill)["code"] == -9
    assert run(folder)["code"] == 0, (tmp_path / "run.log").read_text()[-2000:]
    assert differences(whole, folder) == []


def test_a_run_that_is_killed_again_and_again_ends_as_the_uninterrupted_one(
    run: Run, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for kill in (("score", 5), ("merge", 3), ("write", 4), ("score", 3), ("update", 1)):
        assert run(folder, kill=kill)["code"] == -9
    assert run(folder)["code"] == 0, (tmp_path / "run.log").read_text()[-2000:]
    assert differences(whole, folder) == []
