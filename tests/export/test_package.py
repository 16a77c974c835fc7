"""A bundle is a model package of onnxruntime, too."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnxruntime
import pytest

from risen_export.bundles import manifest
from risen_plugin.errors import ExportError

pytestmark = pytest.mark.slow


def test_onnxruntime_opens_a_bundle_as_its_model_package_and_chooses_a_variant(
    tied_bundle: Path,
) -> None:
    info = onnxruntime.ModelPackage.open(str(tied_bundle), strict_unknown_fields=True).get_info()
    assert info["schema_version_major"] == 1
    package = onnxruntime.ModelPackageContext(str(tied_bundle))
    assert package.get_component_names() == ["model"]
    assert package.get_variant_names("model") == ["fp32", "int8"]
    options = onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions())
    chosen = package.select_component("model", options)
    assert chosen.get_selected_variant_name() == "fp32"
    assert "input_ids" in [value.name for value in chosen.create_session().get_inputs()]


def test_what_the_package_says_of_variants_is_sealed_with_the_rest(
    tied_bundle: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tied_bundle, tmp_path / "copy")
    path = copy / "manifest.json"
    path.write_text(
        path.read_text().replace('"variant_directory": "fp32"', '"variant_directory": "x"')
    )
    with pytest.raises(ExportError, match=r"manifest\.json was changed after it was written"):
        manifest.read(copy)
