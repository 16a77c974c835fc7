"""Launches that followed one another, joined to one record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.cli import command_line
from risen_plugin.errors import DataError
from risen_plugin.record import lock
from risen_plugin.record.joining import Launch, joined, read_launch, write_joined
from risen_plugin.record.reading import read_run
from risen_plugin.record.run_record import Record

Event = dict[str, Any]


def record(folder: Path, *, phases: int, rows: str = "same", step: int = 1) -> Path:
    """A launch of so many RISEN phases, of ten seconds each, with a burst after the first."""
    clock = iter(range(0, 1000, 5))
    made = Record(folder, lambda: float(next(clock)))
    made.begin({"format": 1, "seed": 7, "hashes": {"held_out": rows}, "output_dir": str(folder)})
    (made.folder / "held_out.jsonl").write_text(f'"{rows}"\n')
    for number in range(1, phases + 1):
        begun = {"phase": "risen", "steps": 3, "reason": "asked for"}
        made.event("decision", step=step, number=number, **begun)
        made.event("guard", step=step, number=number, when="before")
        kept = {"kind": "risen", "steps": 3, "at_step": step, "accepted": True, "metrics": {}}
        made.event("phase", step=step, number=number, **kept)
        place = made.phase_folder(number)
        (place / "adapter").mkdir(parents=True)
        (place / "phase.json").write_text(
            json.dumps({"at_step": step, "logs": [{"reward": number}]})
        )
        if number == 1:
            made.event("decision", step=step, number=1, phase="burst", steps=2, reason="b")
            made.event("phase", step=step, number=1, kind="burst", steps=2, reason="b")
    made.close()
    return folder


def trainer(folder: Path) -> Path:
    """A launch without the callback: twenty steps in forty seconds."""
    logs = [
        {"step": 10, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.1},
        {"step": 10, "epoch": 0.5, "eval_loss": 2.5, "eval_runtime": 1.0},
        {"step": 20, "epoch": 1.0, "loss": 1.0},
        {"step": 20, "epoch": 1.0, "train_runtime": 40.0, "train_loss": 1.5},
    ]
    for step, part in ((10, logs[:2]), (20, logs)):
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        state = checkpoint / "trainer_state.json"
        state.write_text(json.dumps({"log_history": part}))
    return folder


def test_steps_time_and_numbers_go_on(tmp_path: Path) -> None:
    parts = [
        trainer(tmp_path / "tuned"),
        record(tmp_path / "one", phases=2),
        trainer(tmp_path / "again"),
        record(tmp_path / "two", phases=1),
    ]
    whole = tmp_path / "whole"
    write_joined([read_launch(part) for part in parts], whole)
    run = read_run(whole)
    assert not run.unread
    assert [(one.kind, one.number, one.step) for one in run.phases] == [
        ("risen", 1, 21),
        ("burst", 1, 21),
        ("risen", 2, 21),
        ("risen", 3, 42),
        ("burst", 2, 42),
    ]
    # 40 s of fine-tuning, 8 events of 5 s each that begin at 0, 40 s again
    assert [(one.begins, one.ends) for one in run.phases if one.kind == "risen"] == [
        (40.0, 50.0),
        (65.0, 75.0),
        (115.0, 125.0),
    ]
    assert [one.logs for one in run.phases if one.kind == "risen"] == [
        [{"reward": 1}],
        [{"reward": 2}],
        [{"reward": 1}],
    ]
    assert [(event["step"], event["loss"]) for event in events(whole) if "loss" in event] == [
        (10, 2.0),
        (20, 1.0),
        (31, 2.0),
        (41, 1.0),
    ]
    [first, second] = [one["metrics"] for one in events(whole) if one["event"] == "evaluation"]
    assert first == second == {"eval_loss": 2.5, "eval_runtime": 1.0}
    assert [part["steps"] for part in run.description["joined"]] == [20, 1, 20, 1]
    assert run.description["output_dir"] == str(whole)
    assert not list(whole.glob("risen/*/adapter"))
    files = sorted(whole.glob("risen/phase-*/phase.json"))
    assert [json.loads(file.read_text())["at_step"] for file in files] == [21, 21, 42]


def events(folder: Path) -> list[Event]:
    lines = (folder / "risen" / "events.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


_EVENTS = st.lists(
    st.fixed_dictionaries(
        {"event": st.just("control"), "step": st.integers(0, 9), "number": st.integers(1, 4)},
        optional={"time": st.floats(0.0, 99.0)},
    ),
    max_size=5,
)


@given(st.lists(_EVENTS, max_size=4))
def test_nothing_is_lost_and_no_launch_begins_before_the_one_before_ended(
    launches: list[list[Event]],
) -> None:
    parts = [Launch(Path(), part) for part in launches]
    whole = list(joined(parts))
    assert len(whole) == sum(map(len, launches))
    for name in ("step", "number"):
        ends, place = 0, 0
        for part in launches:
            moved = [event[name] for event in whole[place : place + len(part)]]
            assert all(value >= ends for value in moved)
            assert [value - ends for value in moved] == [event[name] for event in part]
            ends, place = max([ends, *moved]), place + len(part)


def test_joining_is_the_same_in_one_go_and_one_by_one(tmp_path: Path) -> None:
    parts = [record(tmp_path / name, phases=2) for name in "abc"]
    write_joined([read_launch(part) for part in parts], tmp_path / "whole")
    write_joined([read_launch(part) for part in parts[:2]], tmp_path / "two")
    write_joined([read_launch(tmp_path / "two"), read_launch(parts[2])], tmp_path / "three")
    assert events(tmp_path / "three") == events(tmp_path / "whole")
    three, whole = (
        [file.read_text() for file in sorted((tmp_path / name).glob("risen/*/phase.json"))]
        for name in ("three", "whole")
    )
    assert three == whole


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_damaged_file_of_a_phase_is_told_and_nothing_is_left(
    tmp_path: Path, content: str
) -> None:
    part = record(tmp_path / "one", phases=1)
    (part / "risen" / "phase-001" / "phase.json").write_text(content)
    with pytest.raises(DataError, match=r"cannot read .*phase\.json: "):
        write_joined([read_launch(part)], tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def run_command(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(command_line(), ["join", *map(str, words)])
    return result.exit_code, result.output


def test_the_command_says_where_the_record_is(tmp_path: Path) -> None:
    parts = record(tmp_path / "a", phases=1), record(tmp_path / "b", phases=1)
    assert run_command(*parts, "--output", tmp_path / "whole") == (0, f"{tmp_path / 'whole'}\n")
    assert (tmp_path / "whole" / "risen" / "held_out.jsonl").read_text() == '"same"\n'


def test_what_cannot_be_joined_is_told_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    one, tuned = record(tmp_path / "one", phases=1), trainer(tmp_path / "tuned")
    output = tmp_path / "whole"
    other = record(tmp_path / "other", phases=1, rows="others")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "trainer_state.json").write_text("{}")
    there = ["empty", "one", "other", "tuned"]
    wrong = {
        "no run": (one, tmp_path / "onne"),
        "has a record; one with": (tuned,),
        "cannot read": (one, empty),
        "measured other held-out rows than": (one, tuned, other),
    }
    for message, parts in wrong.items():
        code, said = run_command(*parts, "--output", output)
        assert (code, said.count("\n")) == (2, 1), said
        assert message in said
        assert sorted(path.name for path in tmp_path.iterdir()) == there
    code, said = run_command(one, "--output", tuned)
    assert code == 2
    assert "is there already" in said


def test_a_launch_that_goes_on_is_not_joined(tmp_path: Path) -> None:
    folder = record(tmp_path / "one", phases=1)
    lock.take(folder)
    try:
        with pytest.raises(DataError, match="still goes on"):
            read_launch(folder)
    finally:
        lock.release(folder)
