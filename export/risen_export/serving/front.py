"""What clients see of a server with several replicas: a request goes to one, to another if it dies.

A request that nothing of has been sent back for is asked again, with the seed that it was given
before the first try, so that the second answer is what the first one would have been. A stream
that has begun cannot be taken back: it ends with an error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from risen_export.serving.events import SLOWEST, event, unless_gone
from risen_export.serving.guarding import Guard, Keys, Rates, refused
from risen_export.serving.inside import Answered, Asked, Headers
from risen_export.serving.metrics import CONTENT_TYPE, Metrics
from risen_export.serving.refusals import InTime, RefusedError
from risen_export.serving.service import ServeSettings
from risen_plugin.errors import RisenError

_log = logging.getLogger("risen_export.serving")
TRIES = 3
"""Replicas that a request may die with: what kills every one of them is not asked for ever."""
_OF_ONE = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/pause", "/resume")
_SEEDED = ("/v1/chat/completions", "/v1/completions")
# Those of the connection, and those that the front writes itself.
_OWN_HEADERS = frozenset(
    (b"connection", b"transfer-encoding", b"x-request-id", b"x-content-type-options")
)


class LostError(RisenError):
    """The replica that a request was given to has died."""


class Replicas(Protocol):
    """Those that answer."""

    async def whole(self, asked: Asked) -> Answered:
        """The response of one of them.

        :raises LostError: if it dies.
        """
        ...

    def stream(self, asked: Asked) -> AsyncGenerator[Message, None]:
        """The same as it comes: its start, then parts of its body."""
        ...


@dataclass
class Front:
    """Stands before replicas.

    :ivar active: requests that are under way.
    :ivar retried: how often a request was given to another replica.
    """

    replicas: Replicas
    settings: ServeSettings
    metrics: Metrics = field(default_factory=Metrics)
    active: set[object] = field(default_factory=set)
    stopping: bool = False
    paused: bool = False
    retried: int = 0

    def resume(self) -> None:
        """Nothing: replicas are not paused from here."""

    async def answer(self, request: Request) -> Response:
        """The response to a request."""
        request.scope["state"]["path"] = _label(request.url.path)
        me = object()
        self.active.add(me)
        try:
            return await unless_gone(request, self._answer(request))
        except RefusedError as error:
            request.scope["state"]["told"]["refused"] = str(error)
            return refused(error)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:  # noqa: BLE001 - a bug is still an answer in their shape
            _log.exception("a request to %s failed; this is a bug", request.url.path)
            return refused(RefusedError("the server has failed; see its log", 500))
        finally:
            self.active.discard(me)

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        if path == "/metrics":
            return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})
        if path in _OF_ONE:
            raise RefusedError(
                "one replica alone would know of this; adapters that `risen adapt` or `risen "
                "adapters` puts into the bundle are there for all",
                403,
                code="several_replicas",
            )
        if path == "/ready" and self.stopping:
            raise RefusedError("the server is stopping", 503, code="stopping", retry_after=1)
        asked, streams = await _read(request)
        if streams:
            return await self._stream(asked)
        answered = await self._whole(asked)
        return _response(answered)

    def _in_time(self) -> InTime:
        seconds = self.settings.timeout
        message = f"no replica has answered within {seconds:g} s"
        return InTime(asyncio.timeout(seconds), message)

    async def _whole(self, asked: Asked) -> Answered:
        async with self._in_time():
            for tries in range(1, TRIES + 1):
                try:
                    return await self.replicas.whole(asked)
                except LostError as error:
                    self._lost(error, tries)
        raise AssertionError  # the last try has raised

    async def _stream(self, asked: Asked) -> Response:
        async with self._in_time():
            for tries in range(1, TRIES + 1):
                parts = self.replicas.stream(asked)
                try:
                    start, body = await anext(parts), await anext(parts)
                except LostError as error:
                    self._lost(error, tries)
                    continue
                response = StreamingResponse(_rest(body, parts), start["status"])
                response.raw_headers = list(_kept(tuple(start["headers"])))
                return response
        raise AssertionError

    def _lost(self, error: LostError, tries: int) -> None:
        """Say so; raise where it was the last try."""
        if tries == TRIES:
            raise RefusedError(
                f"{TRIES} replicas have died with this request", 503, code="replica_lost"
            ) from error
        self.retried += 1
        _log.warning("%s; its request is given to another", error)


def application(front: Front) -> Starlette:
    """The application that clients see."""
    settings = front.settings
    guard = Middleware(
        Guard,
        metrics=front.metrics,
        keys=Keys(settings.keys),
        rates=Rates(settings.rate),
        most_bytes=settings.most_bytes,
        hosts=settings.hosts,
    )
    route = Route("/{path:path}", front.answer, methods=["GET", "POST"])
    return Starlette(routes=[route], middleware=[guard])


async def _read(request: Request) -> tuple[Asked, bool]:
    """A request with its seed, and whether it asks for a stream."""
    try:
        async with asyncio.timeout(SLOWEST):
            body = await request.body()
    except TimeoutError:
        raise RefusedError(
            f"the body did not come within {SLOWEST:g} s", 408, code="timeout"
        ) from None
    client = request.client
    asked = Asked(
        request.method,
        request.url.path,
        tuple(request.headers.raw),
        body,
        request.url.query.encode(),
        None if client is None else (client.host, client.port),
    )
    return seeded(asked, secrets.randbits(62))


def seeded(asked: Asked, seed: int) -> tuple[Asked, bool]:
    """The request with a seed, if it has none, and whether it asks for a stream.

    What cannot be read goes on as it is: whoever answers says what is wrong with it.
    """
    if asked.path not in _SEEDED:
        return asked, False
    try:
        data = json.loads(asked.body)
    except (ValueError, RecursionError):
        return asked, False
    if not isinstance(data, dict):
        return asked, False
    streams = data.get("stream") is True
    if data.get("seed") is not None:
        return asked, streams
    # Written at the end of the text, so that everything else arrives as it was written; of two
    # fields of one name, such as an empty seed, the last one counts.
    comma = b"," if data else b""
    body = asked.body.rstrip()[:-1] + comma + f'"seed":{seed}}}'.encode()
    lengths = [(name, value) for name, value in asked.headers if name != b"content-length"]
    headers = (*lengths, (b"content-length", str(len(body)).encode()))
    return replace(asked, body=body, headers=headers), streams


def _response(answered: Answered) -> Response:
    response = Response(answered.body, answered.status)
    response.raw_headers = list(_kept(answered.headers))
    return response


def _kept(headers: Headers) -> Headers:
    return tuple((name, value) for name, value in headers if name.lower() not in _OWN_HEADERS)


async def _rest(body: Message, parts: AsyncGenerator[Message, None]) -> AsyncIterator[bytes]:
    """The body of a stream that has begun; an error where its replica dies."""
    try:
        yield body.get("body", b"")
        async for part in parts:
            yield part.get("body", b"")
    except LostError as error:
        _log.warning("%s, and its stream had begun", error)
        lost = RefusedError("the replica that wrote this has died", 503, code="replica_lost")
        yield event(lost.body)
    finally:
        await parts.aclose()


def _label(path: str) -> str:
    """A path for the metrics, which are not to grow with what strangers ask."""
    known = (*_SEEDED, *_OF_ONE, "/", "/health", "/ready", "/metrics", "/openapi.json")
    if path.startswith("/v1/models"):
        return "/v1/models"
    return path if path in known else "other"
