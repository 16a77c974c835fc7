"""What a person should know of the variants of a bundle that was made, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from risen_export.bundles.manifest import NOT_RUN
from risen_export.bundles.variants import PRECISIONS


def remarks(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which variants are slow, and which were not run.

    :param variants: their manifests by their folders.
    """
    found = [
        f"{name} keeps what its int8 weights are multiplied with in fp32, for which onnxruntime "
        "has no quick kernel on a CPU: it saves memory and costs time; fp32 and the kinds called "
        "-fast are quicker"
        for name, one in variants.items()
        if one["target"] == "cpu" and PRECISIONS[one["precision"]].is_slow_on_cpu
    ]
    unrun = [
        name
        for name, one in variants.items()
        if one["target"] != "cpu" and one["ran"].startswith(NOT_RUN)
    ]
    if unrun:
        found.append(
            f"{', '.join(unrun)}: built and not run on a GPU; `risen verify` does that where there "
            "is one, and completes the mark in the manifest"
        )
    return found
