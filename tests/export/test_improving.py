"""What a server was asked trains the adapter that it answers with, without being stopped."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from risen_export import export
from risen_export.engine.settings import EngineSettings
from risen_plugin.cli import command_line
from risen_plugin.embedded import base_model, orders

pytest.importorskip("starlette", reason="the extra serve is not installed")
from .serving import KEY, running

ROWS = 128  # fewer reserve no family, so that other rows are learned from
STEPS = 8


def asked(model: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A request whose answer is verified by the reward that will train."""
    constraints = {key: row[key] for key in ("instruction_id_list", "kwargs")}
    return {
        "model": model,
        "messages": row["prompt"],
        "temperature": 0,
        "max_tokens": 48,
        "risen": {"rewards": ["constraints"], **constraints},
    }


def followed(http: httpx.Client, model: str, rows: list[dict[str, Any]]) -> int:
    """How many instructions a model follows."""
    answers = [http.post("/v1/chat/completions", json=asked(model, row)) for row in rows]
    assert {answer.status_code for answer in answers} == {200}
    return sum(answer.json()["choices"][0]["risen"]["passed"] for answer in answers)


@pytest.mark.slow
def test_instructions_that_failed_are_followed_more_often_by_an_adapter_that_is_loaded_live(
    tmp_path: Path,
) -> None:
    rows = orders.draw(ROWS, seed=5, wish_counts=(1,))
    export(base_model(), tmp_path / "bundle", ("fp32",), separate=True, progress=False)
    log, tuned = tmp_path / "traffic.jsonl", tmp_path / "tuned"
    settings: dict[str, Any] = {"keys": (KEY,), "log_requests": log, "adapters": tmp_path}
    with running(tmp_path / "bundle", EngineSettings(rows=4), **settings) as server:
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as http:
            before = followed(http, "tiny", rows)
            codes, ends = set(), threading.Event()

            def keep_asking() -> None:
                while not ends.wait(0.2):
                    body = {**asked("tiny", rows[0]), "max_tokens": 4}
                    codes.add(http.post("/v1/chat/completions", json=body).status_code)

            asking = threading.Thread(target=keep_asking)
            asking.start()
            try:
                adapt = ["adapt", str(base_model()), "--instructions", str(log)]
                adapt += ["--rewards", "constraints", "--steps", str(STEPS), "--quiet"]
                adapt += ["--output", str(tuned), "--set", "risen.grpo.learning_rate=0.0004"]
                # So few rows would leave a true gain within chance; the numbers themselves decide.
                adapt += ["--set", "risen.guard.confidence=null"]
                result = CliRunner().invoke(command_line(), adapt)
            finally:
                ends.set()
                asking.join()
            assert result.exit_code == 0, result.output
            assert codes == {200}
            loaded = {"lora_name": "tuned", "lora_path": "tuned"}
            assert http.post("/v1/load_lora_adapter", json=loaded).status_code == 200
            after = followed(http, "tuned", rows)
            assert followed(http, "tiny", rows) == before
    # Measured: 0.84 of the instructions before and 0.94 after, with 128 of them.
    assert after >= before + ROWS // 25
