"""Server-sent events, and work that ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Send

from risen_export.serving.fields import read_object
from risen_export.serving.refusals import RefusedError

_T = TypeVar("_T")
_log = logging.getLogger("risen_export.serving")
SLOWEST = 60.0
"""Seconds in which a client has to send its body, and to take an event."""


def event(data: Mapping[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body.

    :raises RefusedError: if it is none, or does not come in time.
    """
    try:
        async with asyncio.timeout(SLOWEST):
            body = await request.body()
    except TimeoutError:
        raise RefusedError(
            f"the body did not come within {SLOWEST:g} s", 408, code="timeout"
        ) from None
    return read_object(body)


class EventStream(StreamingResponse):
    """A stream of events, closed when its client is gone or takes too long.

    Make one with :meth:`begun`.
    """

    @classmethod
    async def begun(cls, events: AsyncIterator[bytes]) -> EventStream:
        """A stream whose first event is there.

        :raises RefusedError: as the first event does: the response has not begun yet.
        """
        first = await anext(events)
        return cls(
            _after(first, events),
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )

    async def stream_response(self, send: Send) -> None:
        async def in_time(message: Any) -> None:
            async with asyncio.timeout(SLOWEST):
                await send(message)

        try:
            await super().stream_response(in_time)
        except TimeoutError:
            _log.warning("a client took no event for %g s: its request is ended", SLOWEST)
            raise ClientDisconnect from None
        finally:
            close = getattr(self.body_iterator, "aclose", None)
            if close is not None:
                await close()


async def _after(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """``first`` and then the others; what is refused on the way becomes an event."""
    try:
        yield first
        async for one in events:
            yield one
    except RefusedError as error:
        yield event(error.body)
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of some work, which is ended if the client goes away meanwhile.

    :raises ClientDisconnect: if it does.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            if not one.done():
                one.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await one


async def _gone(request: Request) -> None:
    # Once the body is read, the next message is that of the end.
    while (await request.receive())["type"] != "http.disconnect":
        pass
