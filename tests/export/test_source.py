"""What RUN_OR_MODEL may be, and what is refused before weights are read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from risen_export.merging import source
from risen_export.merging.source import Source, check_architecture, check_config, resolve
from risen_plugin.embedded import base_model
from risen_plugin.errors import ExportError

QWEN = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}


def write(folder: Path, name: str, content: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("" if content is None else json.dumps(content))
    return folder


def model_in(folder: Path) -> Path:
    write(folder, "model.safetensors")
    return write(folder, "config.json", QWEN)


def adapter_in(folder: Path, base: object) -> Path:
    write(folder, "adapter_model.safetensors")
    return write(folder, "adapter_config.json", {"base_model_name_or_path": base})


def test_a_model_folder_is_itself(tmp_path: Path) -> None:
    folder = model_in(tmp_path / "model")
    assert resolve(folder) == Source(str(folder), str(folder))


def test_a_run_stands_for_its_saved_model_before_its_checkpoints(tmp_path: Path) -> None:
    run = model_in(tmp_path / "run")
    model_in(run / "checkpoint-10")
    assert resolve(run).model == str(run)


def test_a_run_without_a_saved_model_stands_for_its_newest_complete_checkpoint(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    for step in (9, 10):
        model_in(run / f"checkpoint-{step}")
    write(run / "checkpoint-11", "config.json", QWEN)  # its weights are not written yet
    assert resolve(run).model == str(run / "checkpoint-10")


@pytest.mark.parametrize("inside", [".", "checkpoint-5"])
def test_the_record_of_a_run_is_found(tmp_path: Path, inside: str) -> None:
    run = tmp_path / "run"
    model_in(run / "checkpoint-5")
    write(run / "risen", "run.json", {"rewards": []})
    assert resolve(run / inside).run == run


@pytest.mark.parametrize("named", ["absolute", "beside"])
def test_an_adapter_brings_its_base(tmp_path: Path, named: str) -> None:
    base = model_in(tmp_path / "base")
    folder = adapter_in(tmp_path / "adapter", str(base) if named == "absolute" else "../base")
    found = resolve(folder)
    assert found.adapter == str(folder)
    assert Path(found.model or "").resolve() == base.resolve()


@pytest.mark.parametrize("inside", [".", "checkpoint-5"])
def test_the_named_adapter_of_a_run_is_found_in_its_folder(tmp_path: Path, inside: str) -> None:
    base, run = model_in(tmp_path / "base"), tmp_path / "run"
    write(run / "risen", "run.json", {"rewards": []})
    named = adapter_in(run / inside / "mine", str(base))
    found = resolve(run)
    assert (found.adapter, found.model, found.run) == (str(named), str(base), run)


def test_two_named_adapters_are_no_answer(tmp_path: Path) -> None:
    for name in ("mine", "yours"):
        adapter_in(tmp_path / name, "base")
    said = r"holds nothing to export by itself, but the adapters mine, yours; give one .*/mine$"
    with pytest.raises(ExportError, match=said):
        resolve(tmp_path)


@pytest.mark.parametrize("inside", [".", "checkpoint-5"])
@pytest.mark.parametrize("trained", ["default", "mine", "yours"])
def test_of_several_adapters_the_one_that_the_run_trained_is_found(
    tmp_path: Path, trained: str, inside: str
) -> None:
    base, run = model_in(tmp_path / "base"), tmp_path / "run"
    write(run / "risen", "run.json", {"model": {"class": "Tiny", "adapter": trained}})
    default = adapter_in(run / inside, str(base))
    named = {name: adapter_in(run / inside / name, str(base)) for name in ("mine", "yours")}
    assert resolve(run).adapters == (str({"default": default, **named}[trained]),)


def test_a_missing_base_is_named_with_the_file_to_correct(tmp_path: Path) -> None:
    folder = adapter_in(tmp_path / "adapter", str(tmp_path / "gone"))
    with pytest.raises(
        ExportError,
        match=r"gone; export the whole run.*correct base_model_name_or_path in .*adapter_con",
    ):
        resolve(folder)


def test_a_base_that_is_nowhere_is_said_to_be_named_wrongly(tmp_path: Path) -> None:
    folder = adapter_in(tmp_path / "adapter", "gone")
    with pytest.raises(ExportError, match=r"cannot be found.*correct base_model_name_or_path in"):
        check_config(resolve(folder))


def test_an_adapter_without_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="names no base model"):
        resolve(adapter_in(tmp_path / "adapter", None))


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="holds nothing to export"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    ("finished", "said"),
    [
        ({"kept": False}, "its run has ended and kept no phase: 'risen report {name}' says why"),
        ({"kept": True}, "if the run is still going, wait for its first save"),
        ([], "if the run is still going, wait for its first save"),
    ],
)
def test_a_run_that_kept_nothing_is_not_waited_for(
    tmp_path: Path, finished: object, said: str
) -> None:
    (tmp_path / "finished.json").write_text(json.dumps(finished))
    with pytest.raises(ExportError) as caught:
        resolve(tmp_path)
    assert str(caught.value).endswith(said.format(name=tmp_path))


def test_the_embedded_model_has_a_name_unless_a_folder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("embedded").model == str(base_model())
    (tmp_path / "embedded").mkdir()
    with pytest.raises(ExportError, match="embedded holds nothing to export"):
        resolve("embedded")


def test_a_model_without_weights_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ExportError, match=r"holds nothing to export: config.json and no weights"):
        resolve(tmp_path)


def test_weights_that_may_not_be_read_are_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from risen_export.merging.weights import why_unread

    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"cut")
    damaged = why_unread(str(tmp_path), SafetensorError("incomplete metadata"))
    assert damaged == "incomplete metadata; copy or download its weights again"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    said = why_unread(str(tmp_path), FileNotFoundError("No such file or directory"))
    assert said == f"there is no permission to read {weights}"


def test_a_mistyped_folder_suggests_its_neighbour(tmp_path: Path) -> None:
    model_in(tmp_path / "my-run")
    with pytest.raises(ExportError, match=r"no folder .*did you mean '.*/my-run'"):
        resolve(tmp_path / "my-rnu")


def test_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors")
    with pytest.raises(ExportError, match="is a file; give the folder"):
        resolve(tmp_path / "model.safetensors")


def test_the_commit_of_a_hub_model_is_that_of_its_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "models--org--model" / "snapshots" / "0123abc" / "config.json"
    monkeypatch.setattr(source, "hub_file", lambda name, file, revision: cached)
    assert source.commit_of("org/model") == "0123abc"
    assert source.commit_of(str(tmp_path)) is None


def test_an_unknown_hub_id_is_refused_without_network() -> None:
    with pytest.raises(
        ExportError, match=r"neither a folder nor a model on the hub .*not asked: HF_"
    ):
        resolve("nobody/nothing-of-that-name")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel cannot be exported"),
        ({"architectures": ["GPT2LMHeadModel"]}, "names no model_type"),
        (
            {"architectures": ["GPT2LMHeadModel"], "model_type": "qwen2"},
            "model_type 'qwen2' in config.json is that of Qwen2ForCausalLM",
        ),
        (
            {"architectures": ["Qwen2ForCausalLMs"], "model_type": "qwen2"},
            "model_type 'qwen2' is that of Qwen2ForCausalLM",
        ),
        ({"architectures": ["Phi3SmallForCausalLM"]}, "no causal language model of this name$"),
        (
            {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "encoder-decoder model",
        ),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "classification model"),
        ({"model_type": "qwen2"}, "names no architectures"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_its_config(
    config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        check_architecture(config, "thing")


def test_the_config_is_checked_without_reading_weights(tmp_path: Path) -> None:
    folder = write(tmp_path, "config.json", {"architectures": ["GPT2LMHeadModel"]})
    write(folder, "model.safetensors")  # empty: reading it would fail otherwise
    with pytest.raises(ExportError, match="GPT2LMHeadModel"):
        check_config(resolve(folder))


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    folder = model_in(tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(ExportError, match=r"config\.json cannot be read"):
        check_config(resolve(folder))


def test_a_missing_folder_in_one_that_is_there_is_refused_without_asking_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "hub_file", lambda *_: pytest.fail("the hub was asked"))
    Path("out/first-run").mkdir(parents=True)
    with pytest.raises(ExportError, match=r"no folder out/frist-run; did you mean 'out/first-run'"):
        resolve("out/frist-run")


def test_a_model_of_the_hub_that_is_downloaded_may_have_the_name_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("org").mkdir()
    (config,) = [write(tmp_path / "cache", "config.json", QWEN) / "config.json"]
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(config))
    monkeypatch.setattr(
        source, "hub_file", lambda _, file, *__: config if file == "config.json" else None
    )
    assert resolve("org/model") == Source("org/model", "org/model")
