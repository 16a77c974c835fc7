"""Trained through the callback and exported: the graph is the trained model, and answers as it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.exported_architectures import (
    TOLERANCE,
    compare,
    train,
)
from tests.export.architectures import BY_NAME, model_of


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
