"""Hostile input ends in one line: a sample of the tries that ``benchmarks/hostile`` makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["plugins", "yaml", "runs", "endpoint"])
def test_no_traceback_no_hang_no_key_and_no_noise(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hostile", "--short", "--kind", kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 faults" in done.stdout
