"""OUT is written whole or not at all, and never half-overwritten."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risen_export import export
from risen_export.backends import genai as build
from risen_export.bundles.manifest import FORMAT
from risen_export.bundles.publish import published
from risen_plugin.errors import ExportError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def publish(out: Path, text: str, *, force: bool = False) -> None:
    with published(out, force=force) as scratch:
        (scratch / "bundle" / "manifest.json").write_text(
            json.dumps({"format": FORMAT, "text": text})
        )


def text_of(out: Path) -> str:
    return str(json.loads((out / "manifest.json").read_text())["text"])


def test_a_bundle_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    publish(tmp_path / "deep" / "out", "one")
    assert text_of(tmp_path / "deep" / "out") == "one"
    assert names(tmp_path / "deep") == ["out"]


def test_whoever_may_read_a_bundle_may_read_all_of_it(tied_bundle: Path) -> None:
    """Another user measures it again, or serves it."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (tied_bundle, *tied_bundle.rglob("*")):
        expected = 0o777 if path.is_dir() else 0o666
        assert path.stat().st_mode & 0o777 == expected & ~mask, path


def test_out_that_exists_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    publish(tmp_path / "out", "one")
    with pytest.raises(ExportError, match=r"exists and is left as it is.*--replace"):
        publish(tmp_path / "out", "two")
    assert text_of(tmp_path / "out") == "one"


def test_force_replaces_a_bundle(tmp_path: Path) -> None:
    publish(tmp_path / "out", "one")
    publish(tmp_path / "out", "two", force=True)
    assert text_of(tmp_path / "out") == "two"
    assert names(tmp_path) == ["out"]


def test_force_keeps_the_old_bundle_when_the_new_one_fails(tmp_path: Path) -> None:
    publish(tmp_path / "out", "one")
    with pytest.raises(ZeroDivisionError), published(tmp_path / "out", force=True):
        raise ZeroDivisionError
    assert text_of(tmp_path / "out") == "one"
    assert names(tmp_path) == ["out"]


def test_force_puts_the_old_bundle_back_when_the_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "out", "one")
    rename = os.rename

    def failing(old: Path, new: Path) -> None:
        if Path(old).name == "bundle":
            raise OSError(errno.EACCES, "Permission denied", str(new))
        rename(old, new)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(ExportError, match="Permission denied"):
        publish(tmp_path / "out", "two", force=True)
    assert text_of(tmp_path / "out") == "one"


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_force_replaces_nothing_but_a_bundle(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("precious")
    elif kind == "link":
        publish(tmp_path / "real", "one")
        out.symlink_to(tmp_path / "real")
    else:
        out.mkdir()
        (out / "precious").write_text("precious")
    with pytest.raises(ExportError, match="is not a bundle, so it is not replaced"):
        publish(out, "two", force=True)
    assert out.exists()


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    publish(tmp_path / "out", "one")
    assert text_of(tmp_path / "out") == "one"


def test_out_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"cannot write the bundle .*file is a file"):
        publish(tmp_path / "file" / "out", "one")


def test_a_disk_that_numpy_finds_full_is_said_to_be(tmp_path: Path) -> None:
    with (
        pytest.raises(ExportError, match=r"out: No space left on device; nothing was left"),
        published(tmp_path / "out", force=False),
    ):
        raise OSError("48128 requested and 6112 written")
    assert names(tmp_path) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with published(tmp_path / "new" / "deeper" / "out", force=False) as scratch:
            (scratch / "bundle" / "half").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device", "half")

    with pytest.raises(ExportError, match=r"No space left on device.*nothing was left"):
        fill()
    assert names(tmp_path) == []


@pytest.mark.slow
def test_a_disk_that_really_takes_no_more_is_one_line(
    model_of: Callable[..., Any], tokenizer: Any, saved: Callable[..., Path], tmp_path: Path
) -> None:
    """A limit on the size of files stands in for the full disk: writes fail half-way."""
    saved(model_of(tokenizer), tmp_path / "model")
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from risen_export import export\n"
        "from risen_plugin import RisenError\n"
        "try:\n    export(sys.argv[1], sys.argv[2], progress=False)\n"
        "except RisenError as error:\n    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model"), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot write the bundle" in ran.stdout
    assert ran.stdout.count("\n") == 1
    assert names(tmp_path) == ["model"]


def test_everything_is_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "out", "one")
    with pytest.raises(ExportError, match="exists"):
        export(tmp_path / "no-such-model", tmp_path / "out")
    with pytest.raises(ExportError, match="unknown precision 'int9'; did you mean 'int8'"):
        export(tmp_path / "no-such-model", tmp_path / "new", ("int9",))
    with pytest.raises(ExportError, match="needs its tokenizer"):
        export("mine", tmp_path / "new", model=object())
    monkeypatch.setattr(build, "_NEEDED", ("onnxruntime", "no_such_runtime"))
    with pytest.raises(ExportError, match=r"needs the cpu extra: pip install no-such-runtime"):
        export(tmp_path / "no-such-model", tmp_path / "new")


def test_the_function_export_stays_itself_whichever_module_was_imported_before() -> None:
    script = (
        "import pkgutil, risen_export\n"
        "for module in pkgutil.iter_modules(risen_export.__path__):\n"
        "    __import__(f'risen_export.{module.name}')\n"
        "from risen_export import Bundle, check, export\n"
        "from risen_export import export\n"
        "print([type(name).__name__ for name in (Bundle, check, export)])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "['type', 'function', 'function']"
