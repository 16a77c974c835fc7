"""The spanning manifest as a *model package*, which onnxruntime opens and chooses a variant from.

``OUT/manifest.json`` follows onnxruntime's own format (``schema_version`` 1.0; it refuses keys that
it does not know), and holds what is ours under ``additional_metadata``. ``ModelPackageContext`` of
onnxruntime 1.32 reads it. onnxruntime-genai has the same, but its 0.18 wheels are built without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from risen_export.bundles.variants import PROVIDERS

COMPONENT = "model"
_OURS = "risen"
_DEVICES = {"cpu": "cpu", "cuda": "gpu"}


def wrap(content: Mapping[str, Any], graph: str) -> dict[str, Any]:
    """The model package that says what ``content`` says; the variants in their order.

    :param graph: the graph's file in the folder of each variant.
    """
    variants = {
        name: {
            "variant_directory": name,
            "ep": PROVIDERS.get(one["target"], PROVIDERS["cpu"]),
            "device": _DEVICES.get(one["target"], "cpu"),
            "executor_info": {"ort": {"model_file": graph}},
        }
        for name, one in content["variants"].items()
    }
    return {
        "schema_version": "1.0",
        "components": {COMPONENT: {"variants": variants}},
        "additional_metadata": {_OURS: dict(content)},
    }


def unwrap(package: Mapping[str, Any]) -> Any:
    """What is ours in a model package; None in one of somebody else, or in no package."""
    metadata = package.get("additional_metadata")
    return metadata.get(_OURS) if isinstance(metadata, Mapping) else None
