"""What the machine says of threads and libraries is taken as others take it, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from risen_export import Bundle, export
from risen_export.bundles.requirements import require_runtime, smallest_runtime
from risen_export.runtime import session
from risen_export.runtime.session import threads_of_environment
from risen_plugin.errors import ExportError


@pytest.mark.parametrize(
    ("written", "threads"),
    [("", 0), ("  ", 0), ("1", 1), (" 4 ", 4), ("4,2", 4), ("8, 4 ,1", 8), ("04", 4)],
)
def test_the_first_number_of_omp_num_threads_counts(
    monkeypatch: pytest.MonkeyPatch, written: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", written)
    assert threads_of_environment() == threads


@pytest.mark.parametrize(
    "written", ["auto", "0", "-1", "4,", "4;2", "1e3", "٣", "9" * 30, "\x1b[2J"]
)
def test_omp_num_threads_that_is_no_number_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", written)
    with pytest.raises(ExportError, match=r"OMP_NUM_THREADS is '.*', and no number") as raised:
        threads_of_environment()
    assert str(raised.value).isprintable()
    with pytest.raises(ExportError, match="OMP_NUM_THREADS"):
        export(tmp_path / "no-such-model", tmp_path / "out")


def graph(
    operator: str = "Identity",
    inputs: int = 1,
    *,
    domain: str = "com.microsoft",
    opset: int = 21,
    ir: int = 10,
    **attributes: Any,
) -> onnx.ModelProto:
    names = ["x", *([""] * (inputs - 1))]
    node = helper.make_node(operator, names, ["y"], domain=domain, **attributes)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    return helper.make_model(
        helper.make_graph([node], "g", [value], []),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
        ir_version=ir,
    )


@pytest.mark.parametrize(
    ("model", "release"),
    [
        (graph("Identity", domain=""), "1.20"),
        (graph("Identity", domain="", opset=23), "1.23"),
        (graph("Identity", domain="", opset=24), "1.24"),
        (graph("Identity", domain="", opset=99), "1.32"),
        (graph("Identity", domain="", ir=12), "1.24"),
        (graph("GroupQueryAttention", 9), "1.20"),
        (graph("GroupQueryAttention", 10), "1.22"),
        (graph("GroupQueryAttention", 12), "1.23"),
        (graph("GroupQueryAttention", 17), "1.32"),
        (graph("GatherBlockQuantized", 3, bits=8), "1.23"),
        (graph("LinearAttention", 3), "1.25"),
        (graph("SomethingOfSomebody", 3, domain="org.example"), "1.20"),
    ],
)
def test_a_graph_needs_the_release_that_brought_the_newest_thing_in_it(
    tmp_path: Path, model: onnx.ModelProto, release: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert smallest_runtime(tmp_path / "model.onnx") == {"onnxruntime": release}


@pytest.mark.parametrize(
    ("needed", "installed", "fits"),
    [
        ("1.23", "1.22.1", False),
        ("1.23", "1.23.0", True),
        ("1.23", "1.100", True),
        ("1.23", "2.0.0.dev20261101", True),
        ("1.9", "1.10", True),
    ],
)
def test_releases_are_compared_by_their_numbers(needed: str, installed: str, fits: bool) -> None:
    if fits:
        return require_runtime({"onnxruntime": needed}, Path("out"), installed)
    with pytest.raises(ExportError, match=rf"needs onnxruntime {needed} or newer, and {installed}"):
        require_runtime({"onnxruntime": needed}, Path("out"), installed)
    return None


@pytest.mark.slow
def test_an_older_onnxruntime_is_told_to_upgrade_before_the_graph_is_opened(
    tied_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old:
        __version__ = "1.22.1"

    monkeypatch.setattr(session, "_onnxruntime", lambda: Old)
    with pytest.raises(ExportError, match=r"needs onnxruntime 1\.\d+ or newer.*pip install"):
        Bundle.open(tied_bundle)
