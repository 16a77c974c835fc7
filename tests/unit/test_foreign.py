"""Code of others: its prints, its exits, its texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from risen_plugin.errors import ConfigError, PluginError, one_line, printable, typed_line
from risen_plugin.kit.files import check_ordinary, reason_of_the_machine
from risen_plugin.kit.foreign import contained, interrupts_noted, noise_aside, say


def test_what_is_printed_meanwhile_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with noise_aside():
        print("noise")
        with noise_aside():
            say("answer")
        sys.stdout.close()
        print("more")
    print("after")
    assert capsys.readouterr() == ("answer\nafter\n", "noise\nmore\n")


def test_threads_that_come_and_go_leave_standard_output_as_it_was() -> None:
    before = sys.stdout
    begun, leave = threading.Event(), threading.Event()

    def work() -> None:
        with noise_aside():
            begun.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with noise_aside():
        thread.start()
        begun.wait(10)
    assert sys.stdout is not before
    leave.set()
    thread.join()
    assert sys.stdout is before


def test_a_loud_plugin_spoils_no_json_and_no_completion_script(tmp_path: Path) -> None:
    """It prints past Python, from another process, from a thread, and when all is over."""
    (tmp_path / "loud.py").write_text(
        "import atexit, os, subprocess, threading\n"
        "print('a'); os.write(1, b'b\\n'); subprocess.run(['echo', 'c'])\n"
        "atexit.register(print, 'd'); threading.Timer(0.01, print, ['e']).start()\n"
    )
    info = tmp_path / "loud-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[risen_plugin]\nloud = loud\n")
    program = "from risen_plugin.cli import main; main()"
    for words, more in ((["plugins", "--json"], {}), ([], {"_RISEN_COMPLETE": "bash_source"})):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            env={**os.environ, **more, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert set("abcd") <= set(done.stderr.split())
        if words:
            assert any(one["name"] == "loud" for one in json.loads(done.stdout))
        else:
            assert done.stdout.lstrip().startswith("_risen_completion")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("up\x1b[A", "up\\u001b[A"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("a\ud800", "a\\ud800"),
        ("a\r\nb", "a\\r\\nb"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("Zoë 한국어 👩‍👩‍👧 נִקּוּד", "Zoë 한국어 👩‍👩‍👧 נִקּוּד"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped_as_in_json(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert json.loads(f'"{printable(text)}"') == text


def test_the_text_of_an_error_may_raise_be_long_or_hold_anything() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise SystemExit(0)

    assert one_line(MuteError()) == "MuteError, whose text raises SystemExit"
    assert typed_line(MuteError()) == "MuteError, whose text raises SystemExit"
    assert len(one_line(ValueError("x" * 10**6))) < 3000
    assert typed_line(ValueError("a\n\x1b[2Jb")) == "ValueError: a \\u001b[2Jb"
    assert typed_line(type("A\x1b[2J", (Exception,), {})("x")) == "A\\u001b[2J: x"


def test_only_ctrl_c_that_was_pressed_is_noted() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_noted() as pressed:
        raise KeyboardInterrupt
    assert not pressed


KINDS = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_others_raise_becomes_an_error_that_says_whose_it_is(
    kind: type[BaseException],
) -> None:
    with (
        pytest.raises(PluginError, match=f"^mine: {kind.__name__}$"),
        contained(lambda error: PluginError(f"mine: {typed_line(error)}")),
    ):
        raise kind


def test_an_error_that_says_it_already_passes_through_unless_none_may() -> None:
    with pytest.raises(ConfigError, match=r"^as it is$"), contained(PluginError):
        raise ConfigError("as it is")
    with pytest.raises(PluginError), contained(PluginError, passes=None):
        raise ConfigError("as it is")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "x", "out/a"), "cannot write 'out/a': No space left on device; make room"),
        (OSError(36, "x", "n" * 5000), "cannot read or write 'nnn"),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "cannot write: No space",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
            "cannot write: No space left on device; make room",
        ),
        (OSError("48128 requested and 6112 written"), "cannot write: No space left on device"),
        (ValueError("embedded null byte"), "a path holds the character NUL"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error: Exception, line: str) -> None:
    said = reason_of_the_machine(error) or ""
    assert said.startswith(line)
    assert len(said) < 500


@pytest.mark.parametrize("error", [OSError(2, "x", "a"), RuntimeError("x"), KeyError("a")])
def test_a_bug_is_none_of_the_machine(error: Exception) -> None:
    assert reason_of_the_machine(error) is None


def test_a_disk_that_safetensors_finds_full_is_one_line() -> None:
    from safetensors import SafetensorError

    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    said = reason_of_the_machine(SafetensorError(text))
    assert said == "cannot write: No space left on device; make room there, or choose another place"


def test_a_device_or_a_pipe_is_no_ordinary_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(OSError, match="no file"):
            check_ordinary(path)
    (tmp_path / "file").write_text("x")
    check_ordinary(tmp_path / "file")
