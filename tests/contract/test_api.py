"""What is public: the snapshot says what the code has, and the page what the snapshot has."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

import risen_export
import risen_plugin

ROOT = Path(__file__).parents[2]
RENEW = "python docs/generate_api.py"


@pytest.fixture(scope="module")
def api():
    spec = importlib.util.spec_from_file_location("generate_api", ROOT / "docs/generate_api.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def released(api):
    return api.SNAPSHOT.read_text(encoding="utf-8").splitlines()


def test_the_public_names_and_their_parameters_are_those_of_the_snapshot(api, released):
    """A difference may break callers: see the page on compatibility, and the changelog."""
    assert api.snapshot().splitlines() == released, RENEW


def test_the_page_is_what_the_code_says(api):
    assert api.PAGE.read_text(encoding="utf-8") == api.page(), RENEW


def test_the_page_has_every_name_of_the_snapshot_below_its_module(api, released):
    parts = re.split(r"^## (.+)$", api.PAGE.read_text(encoding="utf-8"), flags=re.M)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(sections) == list(api.PUBLIC)
    for line in released:
        module = max((m for m in api.PUBLIC if line.startswith(f"{m}.")), key=len)
        name, rest = re.fullmatch(r"(\w+)(.*)", line.removeprefix(f"{module}.")).groups()
        shown = rest if rest.startswith(".") else name + rest
        assert f"`{shown}`" in sections[module], line


@pytest.mark.parametrize("name", risen_plugin.__all__)
def test_every_name_of_the_package_can_be_imported(name):
    assert getattr(risen_plugin, name) is not None


def test_the_names_of_the_exporter_stay_what_they_are_once_its_modules_are_loaded():
    """A module called as a function of the package would take its place."""
    for name in risen_export.__all__:
        getattr(risen_export, name)
    modules = [
        name for name in risen_export.__all__ if inspect.ismodule(getattr(risen_export, name))
    ]
    assert not modules
