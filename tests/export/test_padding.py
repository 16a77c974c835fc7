"""A row's logits do not depend on its padding: on the left, on the right, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from risen_export.backends import genai, padding
from risen_export.bundles.variants import variants
from risen_export.merging import merge, saving

from .stepping import STEPS, logits_after, open_graph

pytestmark = pytest.mark.slow
LENGTHS = (3, 21, 12, 1)
WINDOW = 8
GRAPHS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fp32": ("fp32", "Qwen2", {}),
    "int8": ("int8", "Qwen2", {}),
    "int4, activations rounded": ("int4-fast", "Qwen2", {}),
    "untied": ("fp32", "Llama", {"tied": False}),
    "window": ("fp32", "Mistral", {"sliding_window": WINDOW}),
    "positions as an input": (
        "fp32",
        "HunYuanDenseV1",
        {"head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    ),
    "soft cap after the output layer": (
        "fp32",
        "Gemma2",
        {"head_dim": 16, "final_logit_softcapping": 3.0, "sliding_window": WINDOW},
    ),
}


@pytest.fixture(scope="module")
def built(
    tokenizer: Any, model_of: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    def build(name: str) -> Path:
        precision, kind, other = GRAPHS[name]
        folder = tmp_path_factory.mktemp("padding")
        model = model_of(tokenizer, kind, **other)
        merged = merge.from_memory(model, tokenizer, name="mine")
        saving.save(merged, folder / "merged")
        (variant,) = variants(("cpu",), (precision,))
        genai.build(
            folder / "merged",
            folder / precision,
            variant,
            cache=folder / "cache",
            tied=bool(model.config.tie_word_embeddings),
        )
        return folder / precision

    return build


def rows_and_tokens() -> tuple[list[list[int]], Any]:
    random = np.random.default_rng(0)
    rows = [random.integers(0, 250, size=length).tolist() for length in LENGTHS]
    return rows, random.integers(0, 250, size=(len(LENGTHS), STEPS))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_row_answers_alike_padded_on_either_side_and_alone(
    name: str, built: Callable[[str], Path]
) -> None:
    session = open_graph(built(name) / "model.onnx")
    rows, forced = rows_and_tokens()
    alone = np.concatenate(
        [
            logits_after(session, [row], forced[line : line + 1], left=False)
            for line, row in enumerate(rows)
        ]
    )
    for left in (True, False):
        padded = logits_after(session, rows, forced, left=left)
        np.testing.assert_allclose(padded, alone, atol=1e-4, rtol=0, err_msg=f"left: {left}")


def test_every_cell_of_a_left_padded_prefill_stands_where_its_token_stands(
    tied_bundle: Path,
) -> None:
    session = open_graph(tied_bundle / "fp32" / "model.onnx")
    rows, _ = rows_and_tokens()
    width = max(LENGTHS)
    caches = {
        value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), dtype=np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past_key_values.")
    }
    for row in rows:
        ids, ahead = np.zeros((1, width), dtype=np.int64), width - len(row)
        ids[0, ahead:] = row
        mask = (np.arange(width) >= ahead).astype(np.int64)[None]
        padded = session.run(["logits"], {"input_ids": ids, "attention_mask": mask, **caches})[0]
        whole = {"input_ids": ids[:, ahead:], "attention_mask": mask[:, ahead:], **caches}
        alone = session.run(["logits"], whole)[0]
        np.testing.assert_allclose(padded[:, ahead:], alone, atol=1e-4, rtol=0)


def test_a_graph_is_changed_once_and_its_weights_stay_as_they_are(tied_bundle: Path) -> None:
    graph, weights = (
        tied_bundle / "fp32" / name for name in ("model.onnx", "onnx/model.onnx_data")
    )
    before = graph.read_bytes(), weights.stat()
    assert padding.accept_left_padding(tied_bundle / "fp32")
    assert (graph.read_bytes(), weights.stat()) == before


def test_a_graph_with_another_state_is_left_as_it_is(tied_bundle: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(tied_bundle / "fp32" / "model.onnx"), load_external_data=False)
    state = onnx.helper.make_tensor_value_info("past_conv.0", onnx.TensorProto.FLOAT, [1, 4])
    model.graph.input.append(state)
    onnx.save(model, str(tmp_path / "model.onnx"))
    before = (tmp_path / "model.onnx").read_bytes()
    assert not padding.accept_left_padding(tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == before
