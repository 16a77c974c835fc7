"""A real endpoint on 127.0.0.1, whose every answer a test decides."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Reply:
    """What the endpoint sends for one request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    trickle: bool = False


def completion(content: Any, **others: Any) -> Reply:
    """A chat completion with this content."""
    message = {"role": "assistant", "content": content}
    return Reply(json.dumps({"choices": [{"message": message}], **others}).encode())


def verdict(met: bool) -> Reply:
    return completion(json.dumps({"met": met, "reason": "so it is"}))


class JudgeServer:
    """Answers requests with ``script``, a function of the request's body and number (from 1)."""

    def __init__(self) -> None:
        self.script: Callable[[dict[str, Any], int], Reply] = lambda body, number: verdict(True)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.over = threading.Event()
        self._lock = threading.Lock()
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                with served._lock:
                    served.bodies.append(body)
                    served.headers.append(dict(self.headers))
                    served.paths.append(self.path)
                    number = len(served.bodies)
                reply = served.script(body, number)
                with contextlib.suppress(OSError):  # the client may have given up
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(reply.body)))
                    self.end_headers()
                    if reply.trickle:
                        for byte in reply.body:
                            if served.over.wait(0.01):
                                break
                            self.wfile.write(bytes([byte]))
                            self.wfile.flush()
                    else:
                        self.wfile.write(reply.body)

            def log_message(self, format: str, *arguments: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    running = JudgeServer()
    yield running
    running.close()


@pytest.fixture
def replies() -> Any:
    """The makers of replies, for test modules: ``replies.verdict(True)``."""

    class Makers:
        Reply = Reply
        completion = staticmethod(completion)
        verdict = staticmethod(verdict)

    return Makers
