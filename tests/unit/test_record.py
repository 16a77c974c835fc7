"""Files of a run: replaced whole, appended to, moved aside, and written by one run at a time."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from risen_plugin.errors import RecordError
from risen_plugin.kit.files import write_json
from risen_plugin.record import lock
from risen_plugin.record.run_record import Record, read_events, read_state, state_path


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    write_json(path, {"a": 1})
    unwritable: dict[object, object] = {(1, 2): 3}  # JSON has no such key
    with pytest.raises(TypeError):
        write_json(path, unwritable)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_events_are_lines_that_can_be_read_back(tmp_path: Path) -> None:
    seconds = iter((0.5, 2.0))
    record = Record(tmp_path, lambda: next(seconds))
    record.begin({"seed": 1})
    record.event("decision", step=4, kind="risen", steps=2)
    record.event("phase", step=4, reason="two\nlines")
    assert read_events(tmp_path / "risen" / "events.jsonl") == [
        {"event": "decision", "step": 4, "time": 0.5, "kind": "risen", "steps": 2},
        {"event": "phase", "step": 4, "time": 2.0, "reason": "two\nlines"},
    ]


@pytest.mark.parametrize(("step", "folders"), [(3, ["risen"]), (0, ["risen", "risen.1"])])
def test_only_a_new_run_moves_an_old_record_aside(
    step: int, folders: list[str], tmp_path: Path
) -> None:
    Record(tmp_path).begin({"run": 1})
    Record(tmp_path).begin({"run": 2}, step=step)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [*folders, "risen.lock"]
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


# A disk that takes no more, and a process that dies


@pytest.mark.parametrize("written", [0, 1, 20])
def test_a_line_that_finds_no_room_is_taken_back_whole(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(tmp_path)
    record.begin({})
    record.event("log", step=1, loss=1.0)
    before = (record.folder / "events.jsonl").read_bytes()
    write = os.write

    def full(file: int, data: bytes) -> int:
        if written and len(data) > written:
            return write(file, data[:written]) if data.startswith(b'{"event"') else _no_space()
        return _no_space()

    def _no_space() -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            record.event("log", step=2, loss=0.5)
    assert (record.folder / "events.jsonl").read_bytes() == before
    record.event("log", step=3, loss=0.25)
    assert [event["step"] for event in read_events(record.folder / "events.jsonl")] == [1, 3]


def test_what_is_lost_is_said_once_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tolerant = Record(tmp_path).tolerant
    with caplog.at_level(logging.WARNING):
        for error in (OSError(errno.ENOSPC, "No space left on device"), RecordError("again")):
            with tolerant(tmp_path):
                raise error
    assert [r.message for r in caplog.records] == [
        f"the record in {tmp_path} has gaps from here on: No space left on device; the training "
        "goes on. Make room there to have the rest recorded"
    ]
    assert tolerant.lost == 2


def test_a_bug_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Record(tmp_path).tolerant(tmp_path):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "tail", [b'{"event": "log", "st', b'{"event": "log"}\n', b"\xff\xfe\n", b"[1]\n"]
)
def test_a_torn_or_foreign_line_is_no_event(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "log", "step": 1}\n' + tail)
    assert read_events(path) == [{"event": "log", "step": 1}]


# One run at a time

HOLD = """
import sys
from risen_plugin.record.run_record import Record
Record(sys.argv[1]).begin({"run": "other"})
print("holding", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has begun a run in the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def test_a_second_run_in_a_folder_is_refused_and_told_who_is_there(
    other: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(RecordError) as caught:
        Record(tmp_path).begin({"run": "second"})
    assert str(caught.value).startswith(
        f"another run writes to {tmp_path} (process {other.pid}, since 20"
    )
    assert str(caught.value).endswith("; wait until it has ended, or choose another output_dir")
    assert json.loads((tmp_path / "risen" / "run.json").read_text()) == {"run": "other"}
    holder = lock.holder_of(tmp_path)
    assert holder is not None
    assert holder.process == other.pid


@pytest.mark.parametrize("resumed", [False, True])
def test_a_killed_run_leaves_no_lock_behind(
    resumed: bool, other: subprocess.Popen[str], tmp_path: Path
) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert lock.holder_of(tmp_path) is None
    record = Record(tmp_path)
    record.begin({"run": "next"}, step=int(resumed))
    assert json.loads((tmp_path / "risen" / "run.json").read_text()) == {"run": "next"}
    record.close()
    assert lock.holder_of(tmp_path) is None
    assert not (tmp_path / "risen.lock").exists()


def test_a_run_that_failed_leaves_its_folder_to_the_next_one_of_its_process(tmp_path: Path) -> None:
    Record(tmp_path).begin({"run": 1})
    again = Record(tmp_path)
    again.begin({"run": 2})
    holder = lock.holder_of(tmp_path)
    assert holder is not None
    assert holder.process == os.getpid()
    looked = subprocess.run(
        [sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "RecordError: another run writes to" in looked.stderr
    again.close()


def test_looking_at_a_lock_does_not_let_go_of_it(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.begin({})
    for _ in range(2):
        assert lock.holder_of(tmp_path) is not None
    looked = subprocess.run(
        [sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert looked.returncode == 1
    record.close()
