"""``vllm serve`` so far as TRL 1.16 asks it, in a thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vllm import LLM, SamplingParams

from .distributed.weight_transfer.nccl_common import WIRE


class Server:
    """Serves an engine at a free port until :meth:`close`."""

    def __init__(self, model: str) -> None:
        self.engine, self.name = LLM(model), model
        self.paths: list[str] = []
        self.is_updating = False
        self.config = {
            "weight_transfer_config": {"backend": "nccl"},
            "model_config": {"logprobs_mode": "processed_logprobs"},
        }
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                self.answer(json.loads(self.rfile.read(size) or b"{}"))

            def answer(self, body: dict[str, Any]) -> None:
                path = self.path.partition("?")[0]
                server.paths.append(path)
                try:
                    status, told = 200, server.told(path, body)
                except (LookupError, AssertionError) as error:
                    status, told = 400, {"error": f"{type(error).__name__}: {error}"}
                if told is None:
                    status, told = 404, {"detail": "Not Found"}
                content = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def told(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a request; None where there is no such path."""
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "/health": dict,
            "/init_weight_transfer_engine": dict,
            "/v1/models": lambda: {"data": [{"id": self.name}]},
            "/server_info": lambda: {"vllm_config": self.config},
            "/get_world_size": lambda: {"world_size": 1},
            "/start_weight_update": lambda: self._turn(begins=True),
            "/finish_weight_update": lambda: self._turn(begins=False),
            "/update_weights": lambda: self._update(body["update_info"]),
            "/reset_prefix_cache": self._reset,
            "/v1/completions": lambda: self._completions(body),
        }
        return answers[path]() if path in answers else None

    def _turn(self, *, begins: bool) -> dict[str, Any]:
        assert self.is_updating is not begins, "updates are nested"
        self.is_updating = begins
        return {}

    def _reset(self) -> dict[str, Any]:
        self.engine.reset_prefix_cache()
        return {"success": True}

    def _update(self, info: dict[str, Any]) -> dict[str, Any]:
        assert self.is_updating, "no update was begun"
        runner = self.engine.llm_engine.model_executor.driver_worker.model_runner
        triples = zip(info["names"], info["dtype_names"], info["shapes"], strict=True)
        for name, dtype, shape in triples:
            tensor = WIRE.get(timeout=30)
            assert (str(tensor.dtype), list(tensor.shape)) == (f"torch.{dtype}", shape), name
            runner.model.load_weights([(name, tensor)])
        return {}

    def _completions(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["model"] == self.name
        assert body["return_token_ids"]
        known = {name: body[name] for name in vars(SamplingParams()) if name in body}
        prompts = [{"prompt_token_ids": ids} for ids in body["prompt"]]
        choices = []
        for made in self.engine.generate(prompts, SamplingParams(**known)):
            for output in made.outputs:
                pairs = [(f"token_id:{t}", lp[t].logprob) for t, lp in _steps(output)]
                choices.append(
                    {
                        "prompt_token_ids": made.prompt_token_ids,
                        "token_ids": output.token_ids,
                        "logprobs": {
                            "tokens": [token for token, _ in pairs],
                            "token_logprobs": [value for _, value in pairs],
                            "top_logprobs": [dict([pair]) for pair in pairs],
                        },
                    }
                )
        return {"choices": choices}


def _steps(output: Any) -> Any:
    return zip(output.token_ids, output.logprobs, strict=True)
