"""On the command line bad input gets the same line and exit code 2, without a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from risen_plugin.cli import main
from risen_plugin.errors import ExportError

from .refusing import (
    CAUSAL,
    CLASSIFIER,
    everything_in,
    refused,
)

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


@pytest.fixture
def risen(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``risen`` with bad input; gives the one line that it says."""

    def run(*arguments: object) -> str:
        said = []
        for debug in ((), ("--debug",)):
            with pytest.raises(SystemExit) as stopped:
                main([*debug, *map(str, arguments)])
            assert stopped.value.code == 2
            said.append(capsys.readouterr().err)
        line, whole = said
        assert line.startswith("risen: ")
        assert line.count("\n") == 1
        assert "Traceback" not in line
        assert "Traceback (most recent call last)" in whole  # after what libraries had to say
        assert whole.endswith(line)
        return line.removeprefix("risen: ").rstrip("\n")

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rewards", "lenght"), "no reward is called 'lenght'; did you mean 'length'? Offered: "),
        (("generators", "json"), "no generator is called 'json'; did you mean 'jsonl'?"),
        (("schedulers", "never"), "no scheduler is called 'never'"),
        (("generate", "no-bundle", "hi"), "no-bundle is not a bundle"),
        (("export", "no-such/model", "OUT"), "'no-such/model' is neither a folder nor a model on"),
        (("export", "./no-such-model", "OUT"), "there is no folder ./no-such-model"),
    ],
)
def test_an_unknown_name_is_one_line(
    arguments: tuple[str, ...],
    said: str,
    risen: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert risen(*arguments).startswith(said)
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("exprot",), "there is no command 'exprot'; did you mean 'export'?"),
        (("export", "--forse", "a", "b"), "risen: no such option '--forse'"),
        (("demo", "--seed", "one"), "'one' is not a valid integer"),
    ],
)
def test_a_command_line_that_means_nothing_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith("risen: ")
    assert shown.count("\n") == 1


# risen export


@pytest.fixture(scope="module")
def model_folder(tokenizer_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(tokenizer_folder, folder)
    torch.manual_seed(0)
    settings: dict[str, Any] = {**CAUSAL, "hidden_size": 32, "eos_token_id": 258}
    config = transformers.Qwen2Config(**settings)
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def spoilt(model_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the model with other ``config.json`` values or other files."""

    def make(config: Mapping[str, Any] | None = None, **files: bytes) -> Path:
        folder = tmp_path / "spoilt"
        shutil.copytree(model_folder, folder)
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **(config or {})}))
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_bytes(content)
        return folder

    return make


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["Qwen2ForCausalLMs"]}, "'qwen2' is that of Qwen2ForCausalLM"),
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel cannot be exporte"),
        ({"architectures": [CLASSIFIER]}, "is a classification model"),
        ({"is_encoder_decoder": True}, "is an encoder-decoder model"),
        ({"architectures": "Qwen2ForCausalLM"}, "names no architectures; add the list with the"),
    ],
)
def test_a_model_that_cannot_be_exported_is_refused_before_its_weights_are_read(
    config: dict[str, Any],
    said: str,
    spoilt: Callable[..., Path],
    risen: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = spoilt(config)
    monkeypatch.setattr("risen_export.merging.merge.load", None)
    assert said in risen("export", folder, tmp_path / "new" / "out")
    assert everything_in(tmp_path) == ["spoilt", *(f"spoilt/{n}" for n in everything_in(folder))]


@pytest.mark.parametrize(
    ("config", "files", "said"),
    [
        ({}, {"model__safetensors": b"no weights"}, "cannot be loaded: Error while deserializing"),
        ({}, {"tokenizer__json": b"{"}, "the tokenizer in "),
        ({"hidden_size": 48}, {}, " asks for (288, 48); they do not belong together"),
        ({"hidden_size": "32"}, {}, "Validation error for field 'hidden_size'"),
        (
            {"model_type": "nope"},
            {},
            "model_type 'nope' in config.json is that of no model",
        ),
    ],
)
def test_a_model_folder_that_is_damaged_is_named_and_nothing_is_left(
    config: dict[str, Any],
    files: dict[str, bytes],
    said: str,
    spoilt: Callable[..., Path],
    risen: Callable[..., str],
    tmp_path: Path,
) -> None:
    folder = spoilt(config, **files)
    before = everything_in(tmp_path)
    line = risen("export", folder, tmp_path / "new" / "out", "--quiet")
    assert str(folder) in line
    assert said in line
    assert everything_in(tmp_path) == before


def test_a_damaged_adapter_is_named_and_nothing_is_left(
    model_folder: Path, risen: Callable[..., str], tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    names = {"base_model_name_or_path": str(model_folder), "peft_type": "LORA"}
    (adapter / "adapter_config.json").write_text(json.dumps(names))
    (adapter / "adapter_model.safetensors").write_bytes(b"no weights")
    assert str(adapter) in risen("export", adapter, tmp_path / "out", "--quiet")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("taken", "exists and is left as it is, since it is no bundle; choose another OUT"),
        ("file", "exists and is left as it is"),
        ("file/out", "is a file and no folder; choose another OUT"),
    ],
)
def test_an_out_that_is_taken_or_cannot_be_is_refused_before_a_model_is_loaded(
    out: str,
    said: str,
    model_folder: Path,
    risen: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("precious")
    (tmp_path / "file").write_text("precious")
    monkeypatch.setattr("risen_export.merging.merge.load", None)
    line = risen("export", model_folder, tmp_path / out, "--quiet")
    assert str(tmp_path / out) in line
    assert said in line
    assert everything_in(tmp_path) == ["file", "taken", "taken/mine"]
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("size", ["16k", "120k", "140k", "200k"])
def test_a_full_disk_is_one_line_and_nothing_is_left_on_it(
    size: str, model_folder: Path, disk: Callable[[str], Path]
) -> None:
    """The disk is full when the model is saved, its tokenizer, the graph, and the bundle."""
    from risen_export import export

    place = disk(f"size={size}")
    said = refused(ExportError, lambda: export(model_folder, place / "out", progress=False))
    assert said.startswith(f"cannot write the bundle {place / 'out'}: ")
    assert "No space left on device" in said
    assert everything_in(place) == []


def test_a_disk_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    model_folder: Path,
    disk: Callable[[str], Path],
    risen: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = disk("ro")
    monkeypatch.setattr("risen_export.merging.merge.load", None)
    monkeypatch.setattr("risen_export.demo.run.run_demo", None)
    line = risen("export", model_folder, place / "out", "--quiet")
    assert line == (
        f"cannot write the bundle {place / 'out'}: Read-only file system; nothing was left"
    )
    line = risen("demo", "--output", place / "demo")
    assert line == (
        f"cannot write to {place / 'demo'}: Read-only file system; choose another --output"
    )


# risen demo


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_demo_leaves_an_existing_out_as_it_is(
    kind: str, risen: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
        (out / "mine").write_text("precious")
    else:
        out.write_text("precious")
    before = everything_in(tmp_path)
    line = risen("demo", "--quick", "--output", out)
    assert line == f"{out} exists; name a new folder with --output, or remove it"
    assert everything_in(tmp_path) == before


def test_the_demo_cannot_write_below_a_file(risen: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    line = risen("demo", "--quick", "--output", tmp_path / "file" / "out")
    assert line.startswith(f"cannot write to {tmp_path / 'file' / 'out'}: ")
    assert line.endswith("; choose another --output")


@pytest.mark.parametrize("model", ["no-such/model", "./no-such-folder"])
def test_the_demo_names_a_model_that_is_not_there_and_makes_no_folder(
    model: str, risen: Callable[..., str], tmp_path: Path
) -> None:
    assert model in risen("demo", "--output", tmp_path / "out", "--model", model)
    assert everything_in(tmp_path) == []
