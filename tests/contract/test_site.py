"""That the documentation builds as a site: every page in its menu, every link and anchor there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material", reason="mkdocs-material is not installed; the extra docs brings it")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # the theme's word on its successor
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_built_without_a_warning(site):
    for page in (ROOT / "docs").rglob("*.md"):
        name = "index" if page.name == "README.md" else page.stem
        assert (site / page.relative_to(ROOT / "docs").parent / f"{name}.html").is_file()


def test_nothing_is_loaded_from_elsewhere(site):
    loads = r"<(?:script|img|iframe)[^>]* src=\"(https?:[^\"]+)|<link[^>]* href=\"(https?:[^\"]+)"
    for page in site.rglob("*.html"):
        assert not re.findall(loads, page.read_text(encoding="utf-8")), page.name


def test_a_link_that_leaves_the_documentation_names_the_file(site):
    text = (site / "reference" / "compatibility.html").read_text(encoding="utf-8")
    assert "risen-length (<code>plugins/risen-length</code>)" in text
