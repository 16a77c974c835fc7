"""A server that gets better while it runs: ``python -m benchmarks.serving_improves MODEL ROWS``.

MODEL is exported and served, and asked the instructions of ROWS, which have constraints. ``risen
adapt`` trains an adapter on what the server has logged, and adds it to the bundle. The same
instructions are asked again of the adapter; the server has never stopped.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.serving_shared import Served, served
from risen_export import export

_PROGRAM = "from risen_plugin.cli import main; main()"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("rows", type=click.Path(path_type=Path))
@click.option("--count", default=64, show_default=True, help="Instructions that are asked.")
@click.option("--steps", default=12, show_default=True, help="GRPO steps.")
@click.option("--rate", default=0.0005, show_default=True, help="The learning rate.")
def main(model: Path, rows: Path, count: int, steps: int, rate: float) -> None:
    """Print how many instructions are followed before and after."""
    asked = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()][:count]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        export(model, place / "bundle", ("fp32",), separate=True, progress=False)
        log, key = place / "traffic.jsonl", secrets.token_hex(8)
        with served(
            place / "bundle", key, "--context", "512", "--log-requests", str(log)
        ) as server:
            before = [_follows(server, "bundle", row) for row in asked]
            options = {
                "risen.grpo.learning_rate": rate,
                "risen.grpo.max_completion_length": 48,
                "risen.guard.confidence": "null",
            }
            pairs = [one for name, v in options.items() for one in ("--set", f"{name}={v}")]
            _risen(
                *("adapt", str(model), "--instructions", str(log), "--rewards", "constraints"),
                *("--steps", str(steps), "--output", str(place / "tuned"), "--quiet", *pairs),
            )
            _risen("adapt", str(place / "bundle"), str(place / "tuned"), "--name", "tuned")
            after = [_follows(server, "tuned", row) for row in asked]
            is_same = server.process.poll() is None
    print(
        f"followed before: {sum(before)} of {len(asked)}; with the adapter that was trained on the "
        f"log: {sum(after)} of {len(asked)}; the server ran on: {is_same}"
    )
    sys.exit(0 if is_same and sum(after) > sum(before) else 1)


def _follows(server: Served, model: str, row: dict[str, Any]) -> bool:
    prompt = row["prompt"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    risen = {name: row[name] for name in ("instruction_id_list", "kwargs")}
    body = {"model": model, "messages": messages, "max_tokens": 48, "temperature": 0}
    got = httpx.post(
        f"{server.url}/v1/chat/completions",
        json={**body, "risen": risen},
        headers=server.headers,
        timeout=120,
    )
    got.raise_for_status()
    return bool(got.json()["choices"][0]["risen"]["passed"])


def _risen(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    print(done.stdout, end="")
    if done.returncode:
        raise SystemExit(f"risen {arguments[0]} failed: {done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
