"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from risen_plugin.kit import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_cannot_be_put_in_its_place_leaves_the_old_one_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "one")

    def failing(old: Path, new: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(new))

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "two")
    assert path.read_text() == "one"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_whose_writing_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert names(tmp_path) == []


def test_a_folder_is_published_with_a_manifest_that_tells_what_was_changed(tmp_path: Path) -> None:
    place = tmp_path / "step"
    for text in ("one", "two"):
        with files.publishing(place) as folder:
            (folder / "a.txt").write_text(text)
    assert names(tmp_path) == ["step"]
    assert (place / "a.txt").read_text() == "two"
    assert files.damage(place) is None
    (place / "a.txt").write_text("six")
    assert files.damage(place) == "a.txt is not what was written"
    (place / "a.txt").unlink()
    assert files.damage(place) == "a.txt is missing"
    (place / files.MANIFEST).unlink()
    assert files.damage(place) == "it was not written to its end"


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError(errno.EACCES, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="Permission denied"):
        files.replace_folder(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "a.txt").read_text() == "old"


@pytest.mark.parametrize("kind", ["pipe", "link", "dangling", "device"])
def test_what_is_no_ordinary_file_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "out", tmp_path / "target"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"link": target, "dangling": tmp_path / "gone"}.get(kind, "/dev/null"))
    target.write_text("kept")
    before = path.lstat()
    with pytest.raises(OSError, match="no ordinary file"):
        files.write_text(path, "new")
    assert os.path.samestat(path.lstat(), before)
    assert target.read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "target"]
