"""A published bundle is changed by one process at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from risen_export.bundles.changing import changing
from risen_plugin.errors import ExportError

HOLD = """
import sys
from pathlib import Path
from risen_export.bundles.changing import changing
with changing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_what_is_changed_is_left_without_a_trace(tmp_path: Path) -> None:
    with changing(tmp_path):
        pass
    with pytest.raises(ZeroDivisionError), changing(tmp_path):
        _ = 1 // 0
    with changing(tmp_path):
        assert list(tmp_path.iterdir()) != []
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_waited_for_and_one_that_was_killed_is_not(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ExportError, match=r"another command has been changing .* try again"),
            changing(tmp_path, patience_s=0),
        ):
            raise AssertionError("both change it")
        holder.kill()
        holder.wait()
        assert len(list(tmp_path.iterdir())) == 1  # what it locked is there still
        with changing(tmp_path, patience_s=0):
            pass
    assert list(tmp_path.iterdir()) == []


def test_another_thread_is_waited_for(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with changing(tmp_path):
            order.append("second")

    with changing(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(timeout=0.05)
        assert thread.is_alive()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
