"""What a Triton model of a bundle does with requests: its ``model.py`` hands them on to this.

Triton gives and takes tensors. A request's fields are those of the OpenAI API, so that adapters,
formats, tools and rewards are there as in ``risen serve``.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from risen_export.engine.engine import Engine
from risen_export.engine.settings import EngineSettings
from risen_export.serving import inside
from risen_export.serving.app import application
from risen_export.serving.fields import read_object
from risen_export.serving.inside import Asked
from risen_export.serving.refusals import RefusedError
from risen_export.serving.running import make_service
from risen_export.serving.service import ServeSettings
from risen_plugin.errors import ConfigError, RisenError

_POLL = 0.05  # seconds between two looks at whether a request was cancelled
_HEADERS = ((b"content-type", b"application/json"),)


class Model:
    """A bundle as a decoupled model of Triton's Python backend.

    :param backend: the module ``triton_python_backend_utils``, which is there inside Triton alone.
    :param arguments: those of ``initialize``.
    :raises ConfigError: if a parameter of ``config.pbtxt`` cannot be read.
    :raises ExportError: if the bundle cannot be opened.
    """

    def __init__(self, backend: Any, arguments: Mapping[str, str]) -> None:
        self._backend = backend
        given = json.loads(arguments["model_config"]).get("parameters", {})
        parameters = {name: one["string_value"] for name, one in given.items()}
        version = Path(arguments["model_repository"], arguments["model_version"])
        engine = Engine.open(
            version / parameters.get("bundle", "bundle"),
            parameters.get("precision") or None,
            _settings(parameters),
        )
        name = arguments["model_name"]
        self._service = make_service(engine, ServeSettings(), name=name)
        self._app = application(self._service)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="risen", daemon=True)
        self._thread.start()

    def execute(self, requests: list[Any]) -> None:
        """Begin to answer; responses are sent as they come."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                asked = self._asked(request)
            except RisenError as error:
                self._end(sender, self._error(str(error), 400))
                continue
            asyncio.run_coroutine_threadsafe(self._answer(asked, sender), self._loop)

    def finalize(self) -> None:
        """End what is being written, and the engine."""
        self._service.worker.stop(drain=False, timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        if not self._thread.is_alive():
            self._loop.close()

    def _asked(self, request: Any) -> Asked:
        """What the tensors ask.

        :raises RefusedError: if they ask for nothing, or for two things.
        """
        text, messages = self._text(request, "text_input"), self._text(request, "messages")
        body = read_object((self._text(request, "sampling_parameters") or "{}").encode())
        if (text is None) == (messages is None):
            raise RefusedError("give text_input or messages, and not both")
        if text is not None:
            body["prompt"] = text
        else:
            body |= read_object(f'{{"messages": {messages}}}'.encode())
        body.setdefault("model", self._service.models.base)
        stream = self._tensor(request, "stream")
        body["stream"] = bool(stream) if stream is not None else False
        path = "/v1/completions" if text is not None else "/v1/chat/completions"
        return Asked("POST", path, _HEADERS, json.dumps(body).encode())

    def _tensor(self, request: Any, name: str) -> Any:
        tensor = self._backend.get_input_tensor_by_name(request, name)
        values = None if tensor is None else tensor.as_numpy().reshape(-1)
        return None if values is None or not len(values) else values[0]

    def _text(self, request: Any, name: str) -> str | None:
        value = self._tensor(request, name)
        try:
            return value.decode() if isinstance(value, bytes) else value
        except UnicodeDecodeError:
            raise RefusedError(f"{name} is no UTF-8", param=name) from None

    async def _answer(self, asked: Asked, sender: Any) -> None:
        last: Any = None
        try:
            last = await self._send(asked, sender)
        except Exception as error:  # noqa: BLE001 - Triton waits until it is told of an end
            last = self._error(f"the model has failed: {error}", 500)
        self._end(sender, last)

    async def _send(self, asked: Asked, sender: Any) -> Any:
        """Send responses as they come; an error that is to be the last, if there is one."""

        async def gone() -> None:
            while not sender.is_cancelled():
                await asyncio.sleep(_POLL)

        status, streams, kept = 500, False, b""
        async for message in inside.messages(self._app, asked, gone):
            if message["type"] == "http.response.start":
                status = message["status"]
                streams = (b"content-type", b"text/event-stream; charset=utf-8") in message[
                    "headers"
                ]
                continue
            kept += message.get("body", b"")
            while streams and b"\n\n" in kept:
                event, _, kept = kept.partition(b"\n\n")
                if (failed := self._one(sender, event.removeprefix(b"data: "))) is not None:
                    return failed
        if status == 499:
            return self._error("the request was cancelled", 499)
        return None if streams else self._one(sender, kept)

    def _one(self, sender: Any, body: bytes) -> Any:
        """Send one response; an error instead, if it is one."""
        if body == b"[DONE]" or body.startswith(b":"):
            return None
        data = json.loads(body)
        if "error" in data:
            code = data["error"]["type"]
            return self._error(data["error"]["message"], 503 if "unavailable" in code else 400)
        texts = [_text_of(choice) for choice in data["choices"]]
        reasons = [choice.get("finish_reason") or "" for choice in data["choices"]]
        tensors = [
            self._backend.Tensor(name, np.array([str(one).encode() for one in values], object))
            for name, values in (
                ("text_output", texts),
                ("finish_reason", reasons),
                ("response", [body.decode()]),
            )
        ]
        sender.send(self._backend.InferenceResponse(output_tensors=tensors))
        return None

    def _error(self, message: str, status: int) -> Any:
        kinds = {400: "INVALID_ARG", 499: "CANCELLED", 503: "UNAVAILABLE"}
        error = self._backend.TritonError
        return self._backend.InferenceResponse(
            output_tensors=[],
            error=error(message, getattr(error, kinds.get(status, "INTERNAL"))),
        )

    def _end(self, sender: Any, last: Any) -> None:
        final = self._backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        if last is None:
            sender.send(flags=final)
        else:
            sender.send(last, flags=final)


def _text_of(choice: Mapping[str, Any]) -> str:
    said = choice.get("message") or choice.get("delta") or choice
    return said.get("content") or said.get("text") or ""


def _settings(parameters: Mapping[str, str]) -> EngineSettings:
    settings = EngineSettings()
    for name in ("rows", "context", "memory", "waiting", "threads"):
        if parameters.get(name):
            value: Any = _whole(parameters, name)
            settings = replace(settings, **{name: value})
    return settings


def _whole(parameters: Mapping[str, str], name: str) -> int:
    try:
        return int(parameters[name])
    except ValueError:
        raise ConfigError(
            f"the parameter {name} of config.pbtxt is '{parameters[name]}', and has to be a number"
        ) from None
