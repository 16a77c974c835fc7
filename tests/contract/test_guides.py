"""That the guides work as they are shown, without an error and with the same output.

What trains or exports is left out here; ``python docs/run_guides.py`` runs all of it.
"""

from __future__ import annotations

import doctest
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _script():
    spec = importlib.util.spec_from_file_location("run_guides", ROOT / "docs" / "run_guides.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


guides = _script()


@pytest.mark.parametrize("page", guides.GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_guide_shows_works_as_it_is_shown(page, tmp_path):
    failed = [outcome for outcome in guides.run_page(page, tmp_path, light=True) if outcome.failed]
    assert [f"{it.block.page}:{it.block.line}: {it.reason}" for it in failed] == []


def test_every_block_is_run_or_says_why_not():
    for page in guides.GUIDES:
        for block in guides.blocks_of(page):
            assert block.mark("not run") != "", f"{block.page}:{block.line} gives no reason"


def test_the_examples_of_the_script_itself_hold():
    assert doctest.testmod(guides).failed == 0


@pytest.fixture
def read(tmp_path):
    """Read a page with this text, as the script does; the outcomes."""

    def read(text):
        page = tmp_path / "guide.md"
        page.write_text(text, encoding="utf-8")
        reader = guides.Reader(tmp_path / "home", tmp_path)
        reader.folder.mkdir(exist_ok=True)
        return [reader.read(block) for block in guides.blocks_of(page)]

    return read


def test_a_command_that_fails_is_found_with_its_line(read):
    [failed] = read("# Title\n\n```\ncd nowhere\n```\n")
    assert (failed.state, failed.block.line) == ("failed", 4)
    assert "exit code 1" in failed.reason


def test_an_output_that_differs_is_found(read):
    assert [it.state for it in read("```sh\n$ echo 3 pears\n3 apples\n```\n")] == ["failed"]
    assert [it.state for it in read("```sh\necho 3 pears\n```\n\n```\n2 pears\n```\n")] == [
        "ran",
        "failed",
    ]


def test_python_that_raises_is_found(read):
    [ran, failed] = read("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    assert (ran.state, failed.state) == ("ran", "failed")
