"""Hashes of large files are remembered until the file changes, and never in its place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from risen_export.bundles import hashes, manifest
from risen_export.bundles.hashes import sha256_of

SIZE = 2 * 1024 * 1024


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "_SETTLED_NS", -1)  # a file of this instant counts as settled
    return tmp_path / "cache" / "risen" / "hashes"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "large"
    path.parent.mkdir()
    path.write_bytes(b"a" * SIZE)
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read to the end."""
    names: list[str] = []
    honest: Callable[[Path], str] = hashes.sha256

    def noting(path: Path) -> str:
        names.append(path.name)
        return honest(path)

    monkeypatch.setattr(hashes, "sha256", noting)
    return names


def of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_large_file_is_read_once_for_each_change(
    cache: Path, large: Path, read: list[str]
) -> None:
    assert sha256_of([large]) == sha256_of([large]) == {large: of(b"a" * SIZE)}
    assert read == ["large"]
    large.write_bytes(b"b" * SIZE)
    os.utime(large, (1, 1))  # as if the content had not changed since
    assert sha256_of([large]) == {large: of(b"b" * SIZE)}
    assert read == ["large", "large"]


def test_a_folder_that_is_renamed_is_known(cache: Path, large: Path, read: list[str]) -> None:
    sha256_of([large])
    moved = large.parent.rename(large.parent.with_name("published")) / "large"
    assert sha256_of([moved]) == {moved: of(b"a" * SIZE)}
    assert read == ["large"]


def test_nothing_is_written_beside_the_file_or_for_small_ones(
    cache: Path, large: Path, tmp_path: Path
) -> None:
    small = large.with_name("small")
    small.write_bytes(b"a")
    assert sha256_of([large, small, small])[small] == of(b"a")
    assert sorted(os.listdir(large.parent)) == ["large", "small"]
    assert len(os.listdir(cache)) == 1


def test_a_file_of_this_instant_is_not_remembered(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sha256_of([large])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sha256": "x"}', "[" * 4000, "\x00" * 9000])
def test_a_memory_that_is_damaged_is_ignored(cache: Path, large: Path, content: str) -> None:
    sha256_of([large])
    (memory,) = cache.iterdir()
    memory.write_text(content)
    assert sha256_of([large]) == {large: of(b"a" * SIZE)}


def test_a_cache_that_cannot_be_written_is_ignored(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file"), "relative/folder", "/proc/nowhere"):
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        assert sha256_of([large]) == {large: of(b"a" * SIZE)}


def test_checking_reads_everything_whatever_is_remembered(
    cache: Path, large: Path, read: list[str]
) -> None:
    sha256_of([large])
    sha256_of([large], remember=False)
    assert read == ["large", "large"]


def test_hashes_of_large_files_that_are_known_are_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "weights").write_bytes(b"w" * 1000)
    (tmp_path / "config.json").write_bytes(b"{}")
    monkeypatch.setattr(manifest, "_LARGE_BYTES", 100)
    known = manifest.large_hashes(tmp_path)
    assert known == {"onnx/weights": hashlib.sha256(b"w" * 1000).hexdigest()}
    assert manifest.files_of(tmp_path, known=known) == manifest.files_of(tmp_path)
    told = manifest.files_of(tmp_path, known={"onnx/weights": "f" * 64})
    assert told["onnx/weights"] == {"bytes": 1000, "sha256": "f" * 64}
    assert told["config.json"]["sha256"] == hashlib.sha256(b"{}").hexdigest()
