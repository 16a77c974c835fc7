"""Adapters on the hub: the revision of a base counts for all of it, and an adapter is one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from risen_export.merging.merge import load
from risen_export.merging.source import resolve
from risen_plugin.errors import ExportError

pytestmark = pytest.mark.slow
OLD, NEW = "0" * 40, "1" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``hub(name, folder, commit, ref)``: put a folder into the cache as a revision of ``name``."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def put(name: str, folder: Path, commit: str = NEW, ref: str = "main") -> None:
        place = cache / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / ref).write_text(commit)

    return put


@pytest.fixture
def published(
    hub: Callable[..., None],
    *,
    model_of: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
) -> Any:
    """An adapter on ``org/base`` at its revision ``old``; in ``main`` that is another model."""
    import copy

    from peft import LoraConfig, get_peft_model

    base, other = model_of(tokenizer), model_of(tokenizer)
    with torch.no_grad():
        other.model.embed_tokens.weight.add_(0.1)
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{{ messages[0].content }}"
    for model, its_tokenizer, commit, ref in (
        (base, tokenizer, OLD, "old"),
        (other, changed, NEW, "main"),
    ):
        for part in (model, its_tokenizer):
            part.save_pretrained(tmp_path / ref)
        hub("org/base", tmp_path / ref, commit, ref)
    config = LoraConfig(
        r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(base, config)
    adapted.peft_config["default"].base_model_name_or_path = "org/base"
    adapted.peft_config["default"].revision = "old"
    adapted.save_pretrained(tmp_path / "adapter")
    return adapted.eval()


def test_the_revision_of_the_base_is_that_of_its_tokenizer_and_template_too(
    published: Any, tokenizer: Any, tmp_path: Path
) -> None:
    merged = load(resolve(tmp_path / "adapter"))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected, ours = published(input_ids=ids).logits, merged.model(input_ids=ids).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    assert merged.tokenizer.chat_template == tokenizer.chat_template
    assert merged.provenance["model"]["commit"] == OLD
    assert merged.provenance["model"]["name"] == "org/base"


def test_an_adapter_whose_repository_has_a_config_is_an_adapter(
    published: Any, hub: Callable[..., None], tmp_path: Path
) -> None:
    shutil.copy(tmp_path / "old" / "config.json", tmp_path / "adapter")
    hub("org/adapter", tmp_path / "adapter")
    found = resolve("org/adapter")
    assert (found.model, found.adapters, found.revision) == ("org/base", ("org/adapter",), "old")
    [entry] = load(found).provenance["merged_adapters"]
    assert (entry["name"], entry["commit"], entry["base"]) == ("org/adapter", NEW, "org/base")
    assert published.active_adapter == "default"


def test_an_adapter_on_an_adapter_of_the_hub_brings_both(
    published: Any, hub: Callable[..., None], tmp_path: Path
) -> None:
    hub("org/adapter", tmp_path / "adapter")
    published.peft_config["default"].base_model_name_or_path = "org/adapter"
    published.peft_config["default"].revision = None
    published.save_pretrained(tmp_path / "outer")
    found = resolve(tmp_path / "outer")
    assert found.adapters == ("org/adapter", str(tmp_path / "outer"))
    assert (found.model, found.revision) == ("org/base", "old")


def test_adapters_that_name_each_other_as_base_are_refused(tmp_path: Path) -> None:
    for name, base in (("one", "two"), ("two", "one")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").touch()
        content = {"base_model_name_or_path": str(tmp_path / base)}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match="names itself as its base"):
        resolve(tmp_path / "one")


def test_a_model_is_not_taken_for_an_adapter_to_stack(
    published: Any, hub: Callable[..., None], tmp_path: Path
) -> None:
    del published, hub
    with pytest.raises(ExportError, match=r"old is not a PEFT adapter \(it has no adapter_config"):
        resolve(tmp_path / "adapter", adapters=[tmp_path / "old"])
