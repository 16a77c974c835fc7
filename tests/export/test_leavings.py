"""An export that is killed leaves nothing for ever, and loses no bundle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from risen_export.bundles import leavings
from risen_export.bundles.manifest import FORMAT
from risen_export.bundles.opening import open_folder
from risen_export.bundles.publish import published
from risen_plugin.errors import ExportError

KILLED = """
import json, os, signal, sys
from pathlib import Path
from risen_export.bundles.publish import published

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

out, where = Path(sys.argv[1]), sys.argv[2]
rename = os.rename
if where == "between":
    os.rename = lambda old, new: (rename(old, new), Path(new).name == "old" and die())
with published(out, force=True) as scratch:
    content = {"format": sys.argv[3], "text": "two"}
    (scratch / "bundle" / "manifest.json").write_text(json.dumps(content))
    if where == "writing":
        die()
    if where == "waiting":
        print("ready", flush=True)
        sys.stdin.read()
"""


def run(out: Path, where: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out), where, FORMAT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(out: Path, where: str) -> None:
    with run(out, where) as process:
        assert process.wait() == -signal.SIGKILL


def publish(out: Path, text: str, *, force: bool = False) -> None:
    with published(out, force=force) as scratch:
        content = {"format": FORMAT, "text": text}
        (scratch / "bundle" / "manifest.json").write_text(json.dumps(content))


def text_of(out: Path) -> str:
    return str(json.loads((out / "manifest.json").read_text())["text"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_scratch_folder_of_a_killed_export_goes_with_the_next_one(tmp_path: Path) -> None:
    kill(tmp_path / "out", "writing")
    assert len(names(tmp_path)) == 1
    publish(tmp_path / "out", "three")
    assert names(tmp_path) == ["out"]
    assert text_of(tmp_path / "out") == "three"


def test_a_bundle_that_was_moved_aside_is_put_back_with_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path / "out", "one")
    kill(tmp_path / "out", "between")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ExportError, match=r"was killed while it replaced it; .*puts it back"):
        open_folder(tmp_path / "out")
    with pytest.raises(ExportError, match="exists and is left as it is"):
        publish(tmp_path / "out", "three")
    assert "the bundle is put back as it was" in caplog.text
    assert text_of(tmp_path / "out") == "one"
    assert names(tmp_path) == ["out"]
    publish(tmp_path / "out", "three", force=True)
    assert text_of(tmp_path / "out") == "three"


def test_an_export_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    with run(tmp_path / "out", "waiting") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        publish(tmp_path / "out", "three")
        assert len(names(tmp_path)) == 2
        process.kill()


def test_two_exports_of_one_process_leave_each_other_alone(tmp_path: Path) -> None:
    with published(tmp_path / "out", force=True) as scratch:
        publish(tmp_path / "out", "inner")
        assert scratch.is_dir()
        (scratch / "bundle" / "manifest.json").write_text(
            json.dumps({"format": FORMAT, "text": "o"})
        )
    assert text_of(tmp_path / "out") == "o"


def test_hidden_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".out.mine").mkdir()
    (tmp_path / ".out.mine" / "precious").write_text("precious")
    publish(tmp_path / "out", "one")
    assert (tmp_path / ".out.mine" / "precious").exists()


def test_a_folder_of_another_machine_is_left_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(tmp_path / "out", "writing")
    (scratch,) = tmp_path.iterdir()
    mark = scratch / "export.lock"
    mark.write_text(json.dumps({"host": "elsewhere", "pid": 1, "begun": None}))
    leavings.tidy(tmp_path / "out")
    assert scratch.is_dir()
    os.utime(mark, (0, 0))
    leavings.tidy(tmp_path / "out")
    assert not scratch.exists()
