"""What a person should know of the variants of a bundle that was made, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from risen_export.bundles.manifest import NOT_RUN


def remarks(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which variants were not run.

    :param variants: their manifests by their folders.
    """
    unrun = [
        name
        for name, one in variants.items()
        if one["target"] != "cpu" and one["ran"].startswith(NOT_RUN)
    ]
    if not unrun:
        return []
    return [
        f"{', '.join(unrun)}: built and not run on a GPU; `risen verify` does that where there is "
        "one, and completes the mark in the manifest"
    ]
