"""Files of a run: replaced whole, appended to, moved aside, never overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from risen_plugin.record import Record, read_state, state_path, write_json


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    write_json(path, {"a": 1})
    unwritable: dict[object, object] = {(1, 2): 3}  # JSON has no such key
    with pytest.raises(TypeError):
        write_json(path, unwritable)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_events_are_lines_that_can_be_read_back(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.begin({"seed": 1})
    record.event("decision", step=4, kind="risen", steps=2)
    record.event("phase", step=4, reason="two\nlines")
    lines = (tmp_path / "risen" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"event": "decision", "step": 4, "kind": "risen", "steps": 2},
        {"event": "phase", "step": 4, "reason": "two\nlines"},
    ]


@pytest.mark.parametrize(("step", "folders"), [(3, ["risen"]), (0, ["risen", "risen.1"])])
def test_only_a_new_run_moves_an_old_record_aside(
    step: int, folders: list[str], tmp_path: Path
) -> None:
    Record(tmp_path).begin({"run": 1})
    Record(tmp_path).begin({"run": 2}, step=step)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == folders
    assert json.loads((tmp_path / "risen" / "run.json").read_text()) == {"run": 2}


def test_a_resumed_run_forgets_the_events_that_will_happen_again(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.begin({})
    for step in (2, 4, 6):
        record.event("phase", step=step)
    Record(tmp_path).begin({}, step=4)
    lines = (tmp_path / "risen" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]


def test_a_checkpoint_of_a_run_without_the_callback_has_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    write_json(state_path(tmp_path), {"version": "0.1.0"})
    assert read_state(tmp_path) == {"version": "0.1.0"}
