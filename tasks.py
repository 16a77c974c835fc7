#!/usr/bin/env python3
"""The two commands of the README; each does all its own set-up. Needs only Python >= 3.11 and pip.

python3 tasks.py demo [--quick] [--baselines] [--output DIR] [--seed N]
python3 tasks.py test [PYTEST ARGUMENTS]
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
EXTRAS = {"demo": "cpu", "test": "cpu,test"}
CHECKS = (  # the longest first, since two run at a time
    ("tox", "run", "-e", "oracle"),  # in an environment of its own, beside these versions
    ("basedpyright", "--pythonpath", str(BIN / "python")),
    ("mypy",),
    ("lint-imports",),
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
)
ORACLE_PAIRS = "200"  # per id, a tenth of what tox compares by itself


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 whoever runs this may have an older one
        print(f"risen-plugin needs Python 3.11 or newer; this is {sys.version.split()[0]}")
        return 2
    if len(sys.argv) < 2 or sys.argv[1] not in EXTRAS:
        print(__doc__)
        return 2
    task, arguments = sys.argv[1], sys.argv[2:]
    set_up(task)
    if task == "demo":
        return run("risen", "demo", *arguments)
    failed = [] if arguments else failing(CHECKS)
    for check in failed:
        print(f"FAILED: {check}", flush=True)
    parallel = [] if arguments else ["-n", "2", "--dist", "worksteal"]
    return run("pytest", *parallel, *arguments, one_thread=True) or int(bool(failed))


def set_up(task: str) -> None:
    """Make the virtual environment, and install again when what it is made from has changed."""
    sources = b"".join((ROOT / name).read_bytes() for name in ("setup.cfg", "constraints.txt"))
    wanted = hashlib.sha256(sources + EXTRAS[task].encode()).hexdigest()
    stamp = VENV / f"installed-{task}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"installing into {VENV.name}, which takes some minutes the first time", flush=True)
    if not (BIN / "python").exists():
        venv.create(VENV, with_pip=True)
    pip = ("-m", "pip", "install", "--quiet", "-c", "constraints.txt")
    if run("python", *pip, "setuptools") or run("python", *pip, "-e", f".[{EXTRAS[task]}]"):
        sys.exit("the installation failed; pip's messages are above")
    stamp.write_text(wanted)


def failing(checks: Sequence[tuple[str, ...]]) -> list[str]:
    """Run the checks, two at a time, and show what each has said; those that failed."""
    failed = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for check, done in zip(checks, pool.map(captured, checks), strict=True):
            print(f"$ {' '.join(check)}\n{done.stdout}", end="", flush=True)
            if done.returncode:
                failed.append(" ".join(check))
    return failed


def captured(check: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a program of the virtual environment, and keep what it says."""
    program, *arguments = check
    return subprocess.run(
        [BIN / program, *arguments],
        cwd=ROOT,
        env=environment(),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )


def run(program: str, *arguments: str, one_thread: bool = False) -> int:
    """Run a program of the virtual environment in the project's folder; its exit status."""
    own = environment()
    if one_thread:  # two test processes on two cores
        own["OMP_NUM_THREADS"] = "1"
    print(f"$ {program} {' '.join(arguments)}", flush=True)
    return subprocess.run([BIN / program, *arguments], cwd=ROOT, env=own, check=False).returncode


def environment() -> dict[str, str]:
    """Variables for programs of the virtual environment."""
    own = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    own.pop("PYTHONPATH", None)
    own.setdefault("RISEN_ORACLE_PAIRS", ORACLE_PAIRS)
    return own


if __name__ == "__main__":
    sys.exit(main())
