"""Trained through the callback and exported: the graph is the trained model, and answers as it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.exported_architectures import (
    PAGE,
    RESULTS,
    TOLERANCE,
    compare,
    is_wrong,
    train,
    write_page,
)
from tests.export.architectures import ARCHITECTURES, BY_NAME, model_of


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the Trainer, PEFT and TRL, which other tests look at
@pytest.mark.parametrize("name", ["gemma3", "lfm2"])
def test_a_model_that_a_phase_trained_is_exported_as_it_is(
    name: str, tokenizer: Any, tmp_path: Path
) -> None:
    model = model_of(BY_NAME[name])
    before = model.get_output_embeddings().weight.detach().clone()
    assert train(model, tokenizer, str(tmp_path / "run")) == "trained"
    model.float().eval()
    assert not before.equal(model.get_output_embeddings().weight)
    exact = compare(model, tokenizer, tmp_path, ("fp32",))["fp32"]
    assert max(exact["differences"].values()) <= TOLERANCE
    assert exact["tokens_equal"] == exact["tokens"]


def test_the_table_of_the_docs_is_what_was_measured(tmp_path: Path) -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["results"]["all"]
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    write_page(found, page)
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), (
        "python -m benchmarks.exported_architectures --render"
    )


def test_every_architecture_was_measured_and_none_was_exported_as_another_model() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["results"]["all"]
    assert [one["name"] for one in found] == [one.name for one in ARCHITECTURES]
    assert [one["name"] for one in found if is_wrong(one)] == []
