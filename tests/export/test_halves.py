"""Weights of 8 bits as two halves of 4: the same products, without a rounding more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from risen_export.backends.halves import bits_of, halve_int8, pack
from risen_export.bundles.sizes import bytes_by_kind

MICROSOFT = "com.microsoft"


def graph_of(folder: Path, *, blocks: int, zeros: bool, level: int, table: bool = False) -> None:
    """A product of 8-bit weights (40, blocks, 32), and a lookup in the same weights."""
    numbers = np.random.default_rng(0)
    weights = {
        "w": numbers.integers(0, 256, (40, blocks, 32)).astype(np.uint8),
        "s": numbers.random((40, blocks)).astype(np.float32),
        "flat": np.array([40, blocks * 32]),
    }
    if zeros:
        weights["z"] = numbers.integers(0, 256, (40, blocks)).astype(np.uint8)
    sizes = {"bits": 8, "block_size": 32}
    nodes = [
        helper.make_node(
            "MatMulNBits",
            ["x", "w", "s", *(["z"] if zeros else [])],
            ["y"],
            "/product",
            domain=MICROSOFT,
            K=blocks * 32,
            N=40,
            accuracy_level=level,
            **sizes,
        )
    ]
    kind, any_rows = helper.make_tensor_value_info, [None, blocks * 32]
    inputs, outputs = [kind("x", TensorProto.FLOAT, any_rows)], [kind("y", TensorProto.FLOAT, None)]
    if table:
        looked_up = helper.make_node(
            "GatherBlockQuantized",
            ["rows", "ids", "s", "z"],
            ["found"],
            "/lookup",
            domain=MICROSOFT,
            gather_axis=0,
            quantize_axis=1,
            **sizes,
        )
        nodes += [helper.make_node("Reshape", ["w", "flat"], ["rows"], "/rows"), looked_up]
        inputs.append(kind("ids", TensorProto.INT64, [None]))
        outputs.append(kind("found", TensorProto.FLOAT, None))
    made = helper.make_graph(
        nodes,
        "graph",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    domains = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(made, opset_imports=domains, ir_version=10)
    onnx.save(
        model,
        str(folder / "model.onnx"),
        save_as_external_data=True,
        size_threshold=128,
        location="model.onnx.data",
    )


def run(folder: Path, **feeds: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    return list(session.run(None, feeds))


def bits(folder: Path) -> set[int]:
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    return {one.i for node in graph.node for one in node.attribute if one.name == "bits"}


def test_two_numbers_lie_in_one_byte_the_first_in_the_low_half() -> None:
    assert pack(np.array([1, 2, 3], np.uint8)).tolist() == [0x21, 0x03]
    values = np.array([0xAB, 0x0F], np.uint8)
    assert bits_of(values, 4).tolist() == [0xA, 0x0]
    assert bits_of(values, 0).tolist() == [0xB, 0xF]


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("blocks", [1, 3, 4])
def test_two_halves_compute_the_product(tmp_path: Path, blocks: int, *, zeros: bool) -> None:
    graph_of(tmp_path, blocks=blocks, zeros=zeros, level=1)
    x = np.random.default_rng(1).normal(size=(5, blocks * 32)).astype(np.float32)
    (before,) = run(tmp_path, x=x)
    assert halve_int8(tmp_path)
    assert bits(tmp_path) == {4}
    (after,) = run(tmp_path, x=x)
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
    assert not halve_int8(tmp_path)


def test_a_tied_table_is_halved_with_the_output_layer_and_stored_once(tmp_path: Path) -> None:
    graph_of(tmp_path, blocks=4, zeros=True, level=1, table=True)
    feeds = {"x": np.ones((1, 128), np.float32), "ids": np.array([3, 39, 0])}
    before = run(tmp_path, **feeds)
    size = (tmp_path / "model.onnx.data").stat().st_size
    assert halve_int8(tmp_path)
    for old, new in zip(before, run(tmp_path, **feeds), strict=True):
        assert np.abs(old - new).max() <= 1e-5 * np.abs(old).max()
    assert bits(tmp_path) == {4}
    graph = onnx.load(str(tmp_path / "model.onnx"), load_external_data=False).graph
    stored = sorted(tuple(one.dims) for one in graph.initializer if one.data_type == 2)
    assert stored == [(40, 2), (40, 2), (40, 4, 16), (40, 4, 16)]
    assert (tmp_path / "model.onnx.data").stat().st_size <= size + 4096  # alignment


def test_weights_beside_rounded_activations_stay_whole(tmp_path: Path) -> None:
    graph_of(tmp_path, blocks=4, zeros=True, level=4)
    assert not halve_int8(tmp_path)
    assert bits(tmp_path) == {8}


def test_the_int8_graph_of_a_bundle_is_halved_and_still_called_int8(tied_bundle: Path) -> None:
    assert bits(tied_bundle / "int8") == {4}
    kinds = bytes_by_kind(tied_bundle / "int8")
    assert {"int8_weights", "int8_scales"} < kinds.keys()
    assert not any(kind.startswith("int4") for kind in kinds)
