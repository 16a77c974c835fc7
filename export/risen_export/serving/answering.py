"""Between a server's event loop and the engine's thread: requests in, pieces of answers out.

Whoever stops reading has its requests cancelled, so that nobody writes for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from risen_export.engine.requests import Completion, Finish, Piece, Request, TokenLogprob
from risen_export.engine.settings import BusyError
from risen_export.engine.worker import Worker
from risen_export.serving.refusals import RefusedError
from risen_plugin.errors import RisenError

_Event: TypeAlias = tuple[int, Piece] | BaseException


class Answers:
    """The answers to some requests, as they are written::

        async with Answers(worker, requests) as answers:
            async for index, piece in answers:
                ...

    ``index`` is that of the request. Leaving the block cancels what is not finished.
    """

    def __init__(self, worker: Worker, requests: Sequence[Request]) -> None:
        self._worker = worker
        self._requests = requests
        self._numbers: dict[int, int] = {}
        self._left = {index: request.n for index, request in enumerate(requests)}
        self._events: asyncio.Queue[_Event] = asyncio.Queue()

    @property
    def count(self) -> int:
        """How many are still to come."""
        return sum(left for left in self._left.values() if left > 0)

    async def __aenter__(self) -> Answers:
        """Hand in all requests, or none.

        :raises RefusedError: if the engine refuses one, or has no room for it.
        """
        try:
            for index, request in enumerate(self._requests):
                await self._hand_in(index, request)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _hand_in(self, index: int, request: Request) -> None:
        loop = asyncio.get_running_loop()

        def put(event: _Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        submitted = self._worker.submit(request, lambda piece: put((index, piece)), put)
        # The number is needed to cancel, whatever happens to whoever waits for it.
        submitted.add_done_callback(
            lambda done: None if done.cancelled() or done.exception() else note(done.result())
        )

        def note(number: int) -> None:
            if self._left.get(index, 0) < 0:
                self._worker.cancel(number)
            self._numbers[index] = number

        try:
            await asyncio.shield(asyncio.wrap_future(submitted))
        except asyncio.CancelledError:
            self._left[index] = -1  # whoever asked is gone: the callback cancels it
            if index in self._numbers:
                self._worker.cancel(self._numbers[index])
            raise
        except BusyError as error:
            raise RefusedError(
                str(error), 429, code="busy", retry_after=error.retry_after
            ) from None
        except RisenError as error:
            raise (
                unavailable(error) if not self._worker.alive else RefusedError(str(error))
            ) from None

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End what is not finished; its last pieces still come."""
        for index, number in self._numbers.items():
            if self._left[index] != 0:
                self._worker.cancel(number)

    async def __aiter__(self) -> AsyncIterator[tuple[int, Piece]]:
        while any(left > 0 for left in self._left.values()):
            event = await self._events.get()
            if isinstance(event, BaseException):
                raise unavailable(event)
            index, piece = event
            if piece.finish is not None:
                self._left[index] -= 1
            yield index, piece


def unavailable(error: BaseException) -> RefusedError:
    """What clients are told when the engine has failed."""
    reason = str(error) if isinstance(error, RisenError) else "see the server's log"
    return RefusedError(f"the engine has failed: {reason}", 503, code="engine_failed")


@dataclass
class Gathered:
    """One answer as far as it has come."""

    ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish = "cancelled"

    def add(self, piece: Piece) -> None:
        """Add what has come."""
        self.ids += piece.ids
        self.texts.append(piece.text)
        self.logprobs += piece.logprobs
        self.finish = piece.finish or self.finish

    def completed(self) -> Completion:
        """The whole answer."""
        return Completion(tuple(self.ids), "".join(self.texts), tuple(self.logprobs), self.finish)
