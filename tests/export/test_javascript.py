"""A variant lies where transformers.js looks for it, and its weights are stored once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from risen_export.bundles.javascript import dtype_of, share_with_javascript

from .stepping import STEPS, logits_after, open_graph


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [
        ("fp32", "fp32"),
        ("int8", "int8"),
        ("int4", "q4"),
        ("int4-mixed", "q4"),
        ("cuda-fp16", "fp16"),
        ("cuda-int4", "q4f16"),
        ("cuda-int4-mixed", "q4f16"),
        ("cuda-bf16", None),
        ("cuda-int8", None),
        ("anything", None),
    ],
)
def test_variants_have_the_librarys_names(variant: str, dtype: str | None) -> None:
    assert dtype_of(variant) == dtype


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "graph"), [("fp32", "onnx/model.onnx"), ("int8", "onnx/model_int8.onnx")]
)
def test_both_graphs_read_the_same_weights(tied_bundle: Path, variant: str, graph: str) -> None:
    folder = tied_bundle / variant
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in files if "model" in name} == {"model.onnx", graph, f"{graph}_data"}
    rows, forced = [[1, 2, 3], [4]], np.full((2, STEPS), 7)
    ours, theirs = (
        logits_after(open_graph(path), rows, forced, left=True)
        for path in (folder / "model.onnx", folder / graph)
    )
    np.testing.assert_array_equal(ours, theirs)
    settings = json.loads((folder / "config.json").read_text())["transformers.js_config"]
    assert settings["dtype"] == variant
    assert settings["use_external_data_format"] == {Path(graph).name: 1}


@pytest.mark.slow
def test_a_variant_without_a_name_stays_flat(tied_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cuda-bf16"
    folder.mkdir()
    shutil.copy(tied_bundle / "fp32" / "onnx" / "model.onnx", folder / "model.onnx")
    (folder / "model.onnx_data").touch()
    assert share_with_javascript(folder) is None
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "model.onnx_data"}
