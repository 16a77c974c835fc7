"""Ask a server for what it describes, and for what is wrong: ``python -m benchmarks.serving_fuzz``.

Serves a bundle of the embedded model, or BUNDLE, and has schemathesis make requests from
``/openapi.json``: right ones, and ones that are wrong in every place. Exit code 1 if any of them is
answered with 500, or the server does not answer as before afterwards.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.serving_shared import Served, embedded_bundle, served

_COUNTED = re.compile(r'risen_requests_total\{path="([^"]*)",status="(\d+)"\} ([\d.]+)')


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--cases", default=2000, show_default=True, help="Least number of requests.")
@click.option("--seed", default=0, show_default=True)
def main(bundle: Path | None, cases: int, seed: int) -> None:
    """Print how many requests were answered with which status."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = bundle or embedded_bundle(Path(scratch))
        key = secrets.token_hex(8)
        with served(folder, key, "--rows", "4", "--context", "256", "--timeout", "60s") as server:
            before = _answer(server)
            began, found = time.perf_counter(), Counter[str]()
            examples = 20
            while sum(found.values()) < cases:
                _fuzz(server, seed, examples)
                found = _statuses(server)
                seed, examples = seed + 1, min(200, examples * 2)
            seconds = time.perf_counter() - began
            alive = _answer(server) == before and server.process.poll() is None
    shown = ", ".join(f"{count} x {status}" for status, count in sorted(found.items()))
    print(f"{sum(found.values())} requests in {seconds:.0f} s: {shown}")
    print("it answers as before" if alive else "it does not answer as before")
    sys.exit(0 if alive and not found["500"] else 1)


def _fuzz(server: Served, seed: int, examples: int) -> None:
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    # A server that was paused answers nobody, as it should.
    options = ["--exclude-path", "/pause", "--checks", "not_a_server_error", "--mode", "all"]
    limits = ["-n", str(examples), "--seed", str(seed), "--request-timeout", "60", "-w", "2"]
    done = subprocess.run(
        [
            *command,
            "run",
            f"{server.url}/openapi.json",
            "-H",
            f"Authorization: Bearer {server.key}",
            *options,
            *limits,
            "--continue-on-failure",
            "--suppress-health-check",
            "all",
            "--warnings",
            "off",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout[-1500:])


def _answer(server: Served) -> str:
    body = {"model": "bundle", "prompt": "Order", "max_tokens": 8, "temperature": 0}
    got = httpx.post(
        f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60
    ).json()
    return str(got["choices"][0]["text"])


def _statuses(server: Served) -> Counter[str]:
    text = httpx.get(f"{server.url}/metrics", headers=server.headers, timeout=60).text
    found = Counter[str]()
    for path, status, count in _COUNTED.findall(text):
        if path != "/metrics":
            found[status] += int(float(count))
    return found


if __name__ == "__main__":
    main()
