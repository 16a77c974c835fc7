"""Phases whose answers vLLM samples, by a stand-in that speaks as TRL has vLLM speak.

The stand-in has a transformers model inside, refuses weights that its model has no name for, holds
a port for each group of weight updates, and answers by the paths of vLLM 0.30. What it cannot show
is vLLM itself: its kernels, NCCL, and an engine's memory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from risen_plugin.errors import ConfigError
from risen_plugin.training import vllm as ours
from risen_plugin.training.vllm import check_vllm

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("vllm_worker.py")
STAND_IN = Path(__file__).with_name("vllm_standin")
RUNS = ("server-kept", "server-dropped", "colocate-kept")
PHASES, STEPS = 2, 2


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str) -> dict[str, Any]:
    """All runs in one process, since importing TRL with vLLM is what takes time."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("vllm")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=288,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    paths = [str(STAND_IN), str(WORKER.parents[2]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen: dict[str, Any] = json.loads((folder / "seen.json").read_text())
    return seen


@pytest.mark.parametrize("name", RUNS)
def test_the_answers_of_every_phase_come_from_vllm_with_the_weights_in_training(
    runs: dict[str, Any], name: str
) -> None:
    run = runs[name]
    assert run["asked"] == PHASES * STEPS
    assert run["updates"] == PHASES * STEPS, "one before the answers of each step"
    assert run["phases_begin_with"] == [True, True]
    assert len(run["ratios"]) == PHASES * STEPS
    # The same model in the same precision on both sides: only the order of sums differs.
    assert run["ratios"] == pytest.approx([1.0] * PHASES * STEPS, abs=1e-3)


@pytest.mark.parametrize("name", ["server-kept", "colocate-kept"])
def test_a_phase_is_kept_and_the_next_one_begins_with_its_weights(
    runs: dict[str, Any], name: str
) -> None:
    assert runs[name]["accepted"] == [True, True]
    assert all(runs[name]["changed"])


def test_a_users_own_adapter_is_all_that_a_kept_phase_changes(runs: dict[str, Any]) -> None:
    """TRL merges and subtracts it for each update, which would round the weights under it."""
    for changed in runs["colocate-kept"]["changed"]:
        assert all("lora_" in name for name in changed)


def test_a_phase_that_is_dropped_leaves_every_bit_as_it_was(runs: dict[str, Any]) -> None:
    assert runs["server-dropped"]["accepted"] == [False, False]
    assert runs["server-dropped"]["changed"] == [[], []]


def test_an_engine_of_its_own_is_built_for_each_phase_and_a_server_serves_all(
    runs: dict[str, Any],
) -> None:
    assert [runs[name]["engines"] for name in RUNS] == [1, 1, PHASES]


def test_trl_asks_the_server_what_the_stand_in_answers(runs: dict[str, Any]) -> None:
    assert {"/v1/completions", "/update_weights", "/init_weight_transfer_engine"} < set(
        runs["paths"]
    )


# What is looked for at the start


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """``stand_in(answers)``: a server that answers these paths; its address."""
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    servers: list[HTTPServer] = []

    def serve(answers: dict[str, Any]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                told = answers.get(self.path.partition("?")[0])
                content = json.dumps(told).encode()
                self.send_response(404 if told is None else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: object())
    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


MODEL = SimpleNamespace(is_quantized=False, device=SimpleNamespace(type="cuda"))
FINE = {
    "weight_transfer_config": {"backend": "nccl"},
    "model_config": {"logprobs_mode": "processed_logprobs"},
}


def refused(fields: dict[str, Any], model: Any = MODEL) -> str:
    with pytest.raises(ConfigError) as caught:
        check_vllm(fields, model, sleep=lambda seconds: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/health": {}}, "takes no weights (404 from /server_info); start it so: VLLM_SERVER_DEV"),
        (
            {"/health": {}, "/server_info": {"vllm_config": {"weight_transfer_config": None}}},
            "it has no weight-transfer engine; start it so: VLLM_SERVER_DEV_MODE=1 vllm serve ",
        ),
        (
            {
                "/health": {},
                "/server_info": {
                    "vllm_config": {**FINE, "model_config": {"logprobs_mode": "raw_logprobs"}}
                },
            },
            "runs with --logprobs-mode raw_logprobs, by which its answers would be weighted",
        ),
        ({}, "no vLLM server answers at http://127.0.0.1:"),
    ],
)
def test_a_server_that_cannot_serve_a_phase_is_refused_at_the_start_with_how_to_start_it(
    answers: dict[str, Any], said: str, stand_in: Callable[..., str]
) -> None:
    fields = {"vllm_mode": "server", "vllm_server_base_url": stand_in(answers)}
    assert said in refused({**fields, "vllm_server_timeout": 0.0})


def test_a_server_as_trl_needs_it_passes(stand_in: Callable[..., str]) -> None:
    address = stand_in({"/health": {}, "/server_info": {"vllm_config": FINE}})
    check_vllm({"vllm_mode": "server", "vllm_server_base_url": address}, MODEL)
    check_vllm({"vllm_mode": "colocate"}, MODEL)


def test_a_server_that_is_still_starting_is_waited_for(stand_in: Callable[..., str]) -> None:
    answers: dict[str, Any] = {}
    address = stand_in(answers)

    def start(seconds: float) -> None:
        answers.update({"/health": {}, "/server_info": {"vllm_config": FINE}})

    check_vllm({"vllm_mode": "server", "vllm_server_base_url": address}, MODEL, sleep=start)


def test_a_model_that_vllm_cannot_follow_is_refused(stand_in: Callable[..., str]) -> None:
    quantized = SimpleNamespace(is_quantized=True, device=SimpleNamespace(type="cuda"))
    assert "does not go with a quantized model" in refused({}, quantized)
    on_cpu = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    assert "by NCCL, but the model is on cpu" in refused({"vllm_mode": "server"}, on_cpu)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed")
def test_vllm_has_to_be_installed() -> None:
    assert "needs the package vllm, which is not installed" in refused({})
