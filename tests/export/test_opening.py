"""A bundle is opened as it was exported, or refused with the name of the file that is not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risen_export import Bundle, check
from risen_export.bundles import manifest
from risen_export.bundles.opening import open_folder
from risen_export.gate.verifying import verify_bundle
from risen_plugin.errors import ExportError

Damage = Callable[[Path], object]


@pytest.fixture
def copy(tied_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tied_bundle, tmp_path / "copy"))


def zero(path: Path) -> None:
    """Blank a block in the middle of a file, as a broken disk does; its size stays."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a block of zeros": (
        lambda b: zero(b / "fp32/onnx/model.onnx_data"),
        "fp32/onnx/model.onnx_data is not",
    ),
    "another end of text": (
        lambda b: change(b / "fp32/generation_config.json", "256", "257"),
        "fp32/generation_config.json is not what was exported",
    ),
    "another template": (
        lambda b: change(b / "fp32/chat_template.jinja", "assistant", "assistent"),
        "fp32/chat_template.jinja is not what was exported",
    ),
    "a file that is gone": (lambda b: (b / "fp32/config.json").unlink(), "config.json is missing"),
    "a longer file": (
        lambda b: (b / "fp32/config.json").write_text((b / "fp32/config.json").read_text() + " "),
        "config.json is longer than it should be",
    ),
    "a file that is not listed": (
        lambda b: (b / "fp32/added_tokens.json").write_text("{}"),
        "added_tokens.json is not listed",
    ),
    "a pickle": (
        lambda b: (b / "fp32/pytorch_model.bin").write_bytes(b"x"),
        "pytorch_model.bin is of a kind that runs code",
    ),
    "a link out": (
        lambda b: (b / "fp32/more").symlink_to("/etc/hostname"),
        "more is a link out of the bundle",
    ),
    "a pipe": (lambda b: os.mkfifo(b / "fp32/pipe"), "pipe is no ordinary file"),
    "another manifest": (
        lambda b: shutil.copy(b / "int8/manifest.json", b / "fp32/manifest.json"),
        "fp32/manifest.json is not what was exported",
    ),
    "variants swapped": (
        lambda b: [
            (b / "fp32").rename(b / "x"),
            (b / "int8").rename(b / "fp32"),
            (b / "x").rename(b / "int8"),
        ],
        "fp32/manifest.json is not what was exported",
    ),
    "a changed manifest of all": (
        lambda b: change(b / "manifest.json", '"cpu"', '"gpu"'),
        "manifest.json was changed after it was written",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_not_as_it_was_exported_is_refused_by_name(copy: Path, name: str) -> None:
    damage, said = DAMAGES[name]
    damage(copy)
    with pytest.raises(ExportError, match=said) as raised:
        open_folder(copy)
    assert "\n" not in str(raised.value)


def test_without_hashes_only_names_and_sizes_are_compared(copy: Path) -> None:
    zero(copy / "fp32/onnx/model.onnx_data")
    Bundle.open(copy, check_hashes=False)
    (copy / "fp32/config.json").unlink()
    with pytest.raises(ExportError, match=r"config\.json is missing"):
        Bundle.open(copy, check_hashes=False)


def test_checking_names_every_file_that_differs(copy: Path) -> None:
    assert check(copy) == []
    zero(copy / "int8/onnx/model_int8.onnx_data")
    (copy / "fp32/added_tokens.json").write_text("{}")
    (copy / "fp32/tokenizer.json").unlink()
    assert check(copy) == [
        "fp32/added_tokens.json",
        "fp32/tokenizer.json",
        "int8/onnx/model_int8.onnx_data",
    ]


def test_hidden_files_of_systems_and_tools_are_passed_over(copy: Path) -> None:
    (copy / "fp32/.DS_Store").write_bytes(b"x")
    (copy / "fp32/.cache/huggingface").mkdir(parents=True)
    (copy / "fp32/.cache/huggingface/fp32.lock").write_bytes(b"")
    open_folder(copy)


def test_a_bundle_in_the_hubs_own_cache_is_read_through_its_links(
    tied_bundle: Path, tmp_path: Path
) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    for index, path in enumerate(sorted(tied_bundle.rglob("*"))):
        if path.is_file():
            link = snapshot / path.relative_to(tied_bundle)
            link.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, blobs / str(index))
            link.symlink_to(os.path.relpath(blobs / str(index), link.parent))
    open_folder(snapshot)


def test_a_bundle_of_the_first_format_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": "risen-bundle/1"}')
    with pytest.raises(
        ExportError, match=r"of the format 'risen-bundle/1'.*export the model again"
    ):
        open_folder(tmp_path)


def variant(**other: Any) -> dict[str, Any]:
    return {
        "format": manifest.FORMAT,
        "variant": "fp32",
        "target": "cpu",
        "precision": "fp32",
        "backend": "genai",
        "ran": manifest.NOT_RUN,
        "requires": {"onnxruntime": "1.22"},
        "files": {},
        **other,
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"files": {"../x": {"bytes": 1, "sha256": "0" * 64}}}, "a key of files"),
        ({"files": {"/etc/x": {"bytes": 1, "sha256": "0" * 64}}}, "a key of files"),
        ({"files": {"a\\..\\x": {"bytes": 1, "sha256": "0" * 64}}}, "a key of files"),
        ({"files": {"model.bin": {"bytes": 1, "sha256": "0" * 64}}}, "a key of files"),
        ({"files": {"x": {"bytes": -1, "sha256": "0" * 64}}}, "files.x.bytes is -1"),
        ({"files": {"x": {"bytes": True, "sha256": "0" * 64}}}, "files.x.bytes is true"),
        ({"files": {"x": {"bytes": 10**30, "sha256": "0" * 64}}}, "files.x.bytes is 1000"),
        ({"files": {"x": {"bytes": 1}}}, "files.x.sha256 is missing"),
        ({"files": []}, r"files is \[\] and not an object"),
        ({"requires": {"onnxruntime": 1.22}}, "requires.onnxruntime is 1.22 and not a text"),
        ({"gate": {"passed": "yes"}}, "gate"),
    ],
)
def test_a_manifest_of_another_shape_is_neither_written_nor_read(
    tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    content = variant(**wrong)
    with pytest.raises(ExportError, match=f"cannot be written: {said}"):
        manifest.write(tmp_path, content)
    content["sha256"] = manifest.seal(content)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match=rf"manifest\.json is damaged or of another make: {said}"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 1, "format": 2}', 'the key "format" occurs twice'),
        ('{"format": NaN}', "NaN is no number of JSON"),
        ('{"format": -Infinity}', "-Infinity is no number of JSON"),
        ('{"format": 1e999}', "the number 1e999 is too large"),
        ('{"format": ' + "9" * 5000 + "}", "a number has 5000 digits"),
        ('{"format": ' + "[" * 60 + "]" * 60 + "}", "nested too deeply"),
        ('{"format": ' + "[" * 100_000, "nested too deeply|not valid JSON"),
        ("[]", "it holds no object"),
        ("{", "is not valid JSON"),
        ('{"format": "risen-bundle/2"}', r"variant is missing"),
        ('{"format": "\udcff"}', "is not valid JSON"),
    ],
)
def test_json_that_no_export_wrote_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ExportError, match=said) as raised:
        manifest.read(tmp_path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda b: (b / "notes.txt").write_text("mine"),
            "notes.txt is not listed in the manifest; remove it",
        ),
        (
            lambda b: (b / "gate/probe.json").unlink(),
            "gate/probe.json is missing or cut short; copy",
        ),
        (lambda b: (b / "int8/notes.txt").write_text("mine"), "int8/notes.txt is not listed"),
        (
            lambda b: zero(b / "int8/onnx/model_int8.onnx_data"),
            "model_int8.onnx_data is not what was",
        ),
    ],
)
def test_measuring_again_says_which_file_is_wrong_and_what_to_do(
    damage: Damage, said: str, copy: Path
) -> None:
    damage(copy)
    with pytest.raises(ExportError) as refused:
        verify_bundle(copy, "fp32")
    assert said in str(refused.value)
    assert not str(refused.value).endswith("remove it; copy or export the bundle again")
