"""A fresh interpreter that sees this checkout as an installed distribution."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from risen_plugin import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture
def fresh_python(tmp_path, setup):
    """Run code in a fresh interpreter that sees this checkout as an installed distribution."""
    dist_info = tmp_path / f"risen_plugin-{__version__}.dist-info"
    dist_info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: risen-plugin\nVersion: {__version__}\n"
    (dist_info / "METADATA").write_text(metadata)
    groups = {group: entries.strip() for group, entries in setup["options.entry_points"].items()}
    (dist_info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{entries}\n" for group, entries in groups.items())
    )
    clean = {name: text for name, text in os.environ.items() if not name.startswith("RISEN_")}
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "export")))

    def run(code):
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={**clean, "PYTHONPATH": path, "RISEN_STRICT_PLUGINS": "1"},
        )

    return run
