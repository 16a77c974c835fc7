"""A bundle's configurations are read by their kinds and bounds, whoever wrote them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from risen_export import Bundle
from risen_export.runtime.settings import (
    read_genai,
    read_generation,
    read_template,
    read_tokenizer,
)
from risen_plugin.errors import ExportError

READERS = {
    "genai_config.json": read_genai,
    "generation_config.json": read_generation,
    "tokenizer_config.json": read_tokenizer,
}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("genai_config.json", {}, "model is missing"),
        ("genai_config.json", {"model": []}, r"model is \[\] and not an object"),
        ("genai_config.json", {"model": {"context_length": 0, "vocab_size": 9}}, "is 0 and not"),
        ("genai_config.json", {"model": {"context_length": 10**30, "vocab_size": 9}}, "is 1000"),
        ("genai_config.json", {"model": {"context_length": "9", "vocab_size": 9}}, 'is "9" and'),
        ("genai_config.json", {"model": {"context_length": 9, "vocab_size": True}}, "is true and"),
        ("generation_config.json", {"eos_token_id": "2"}, "eos_token_id"),
        ("generation_config.json", {"eos_token_id": [2, -1]}, "eos_token_id"),
        ("generation_config.json", {"max_new_tokens": 1e300}, "max_new_tokens"),
        ("generation_config.json", {"repetition_penalty": 0}, "repetition_penalty"),
        ("generation_config.json", {"bad_words_ids": [["a"]]}, "bad_words_ids"),
        ("tokenizer_config.json", {"chat_template": 3}, "chat_template is 3"),
    ],
)
def test_a_value_of_another_kind_is_one_line_with_the_file_and_the_field(
    tmp_path: Path, file: str, content: Any, said: str
) -> None:
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ExportError, match=rf"{file} is damaged.*{said}") as raised:
        READERS[file](tmp_path)
    assert "\n" not in str(raised.value)


def test_the_length_that_transformers_writes_for_no_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(f'{{"model_max_length": {int(1e30)}}}')
    assert read_tokenizer(tmp_path) == {"model_max_length": int(1e30)}


def test_a_template_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(ExportError, match=r"chat_template\.jinja is no text in UTF-8"):
        read_template(tmp_path / "chat_template.jinja")


@pytest.mark.slow
def test_nan_in_place_of_logits_is_said_and_not_answered(tied_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tied_bundle / "fp32", tmp_path / "fp32")
    (data,) = copy.rglob("*data")
    weights = np.fromfile(data, dtype=np.float32)
    weights[:] = np.nan
    weights.tofile(data)
    bundle = Bundle.open(copy, check_hashes=False)
    with pytest.raises(ExportError, match=r"model\.onnx gives NaN in place of logits"):
        bundle.generate(["hello"], max_new_tokens=2)


@pytest.mark.slow
def test_more_tokens_than_there_is_memory_for_is_one_line(
    tied_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(tied_bundle)
    monkeypatch.setattr(bundle, "context_length", 2**60)
    monkeypatch.setattr(bundle, "max_length", 2**60)
    with pytest.raises(ExportError, match="there is no memory for 1 answers"):
        bundle.generate(["hello"], max_new_tokens=2**59)
