"""What a bundle can be built for, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from risen_export.bundles.remarks import remarks
from risen_export.bundles.variants import (
    PRECISIONS,
    USUAL,
    from_smallest,
    read_precisions,
    read_targets,
    usual,
    variants,
)
from risen_plugin.errors import ExportError


def test_without_a_precision_each_target_gets_the_one_closest_to_fp32() -> None:
    assert [one.name for one in usual(("cpu", "cuda"))] == ["fp32", "cuda-fp16"]
    for target, name in USUAL.items():
        fit = [one for one in PRECISIONS.values() if target in one.targets]
        assert PRECISIONS[name].bits == max(one.bits for one in fit)


def test_fp32_is_not_built_for_cuda_whose_graphs_lack_a_cache() -> None:
    with pytest.raises(ExportError, match="precision fp32 is built for cpu, not for cuda; add"):
        variants(("cuda",), ("fp32",))
    assert [one.name for one in variants(("cpu", "cuda"), ("fp32", "fp16"))] == [
        "fp32",
        "cuda-fp16",
    ]
    assert "cuda-fp32" not in [one.name for one in from_smallest("cuda")]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["int9"], "unknown precision 'int9'; did you mean 'int8'"),
        (["fp32", "auto"], "auto chooses one itself; give it alone"),
        ([" , "], "no precision given; choose from: fp32"),
    ],
)
def test_a_wrong_precision_is_one_line(names: list[str], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        read_precisions(names)


def test_a_wrong_target_is_one_line() -> None:
    with pytest.raises(ExportError, match="unknown target 'cude'; did you mean 'cuda'"):
        read_targets(["cude"])


def test_unrun_variants_are_remarked_on() -> None:
    def made(target: str, precision: str, ran: str = "CPUExecutionProvider") -> dict[str, Any]:
        return {"target": target, "precision": precision, "ran": ran}

    assert remarks({"fp32": made("cpu", "fp32"), "int8": made("cpu", "int8")}) == []
    (unrun,) = remarks(
        {
            "int8": made("cpu", "int8", "built, not run"),
            "cuda-int8": made("cuda", "int8", "built, not run; measured with another"),
        }
    )
    assert unrun.startswith("cuda-int8: built and not run on a GPU")
