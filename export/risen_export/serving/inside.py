"""Ask an application without HTTP: where something else listens, and hands requests on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Asked:
    """A request, whole.

    :param client: the address of whoever asks.
    """

    method: str
    path: str
    headers: Headers = ()
    body: bytes = b""
    query: bytes = b""
    client: tuple[str, int] | None = None

    def scope(self) -> dict[str, Any]:
        """What an ASGI application is told of it."""
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "query_string": self.query,
            "headers": list(self.headers),
            "client": self.client,
            "server": None,
            "state": {},
        }


@dataclass(frozen=True)
class Answered:
    """A response, whole."""

    status: int
    headers: Headers
    body: bytes


async def messages(
    app: ASGIApp, asked: Asked, gone: Callable[[], Awaitable[object]] | None = None
) -> AsyncGenerator[Message, None]:
    """The messages of a response as they come: its start, then parts of its body.

    Whoever stops reading ends the request.

    :param gone: returns when whoever asks has gone away.
    """
    sent: asyncio.Queue[Message | None] = asyncio.Queue()
    left = asyncio.Event()
    first = True

    async def receive() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": asked.body, "more_body": False}
        await (left.wait() if gone is None else gone())
        return {"type": "http.disconnect"}

    async def run() -> None:
        try:
            await app(asked.scope(), receive, sent.put)
        finally:
            sent.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        while (message := await sent.get()) is not None:
            yield message
        await task  # an application that fails says so here
    finally:
        left.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def whole(app: ASGIApp, asked: Asked) -> Answered:
    """The whole response."""
    status, headers, parts = 500, (), []
    async for message in messages(app, asked):
        if message["type"] == "http.response.start":
            status, headers = message["status"], tuple(message["headers"])
        else:
            parts.append(message.get("body", b""))
    return Answered(status, headers, b"".join(parts))
