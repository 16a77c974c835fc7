"""Give an engine a thread of its own, so that many others may ask it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from risen_export.engine.engine import Engine
from risen_export.engine.requests import Piece, Request
from risen_plugin.errors import ExportError

_T = TypeVar("_T")
OnPiece = Callable[[Piece], None]
"""Gets each piece of an answer, in the engine's thread: it must not wait for anything."""
OnError = Callable[[BaseException], None]


class Worker:
    """An engine in its own thread.

    Everything that touches the engine runs there, between two steps. If a step fails, everyone who
    waits for pieces is told through ``on_error``, and :attr:`failure` says why.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._listeners: dict[int, tuple[OnPiece, OnError | None, int]] = {}
        self._thread = threading.Thread(target=self._run, name="risen-engine", daemon=True)
        self._ends = False
        self._paused = False
        self.failure: BaseException | None = None

    @property
    def engine(self) -> Engine:
        """The engine; only what never changes may be read from another thread."""
        return self._engine

    @property
    def alive(self) -> bool:
        """Whether it runs and answers."""
        return self._thread.is_alive() and self.failure is None

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def submit(
        self, request: Request, on_piece: OnPiece, on_error: OnError | None = None
    ) -> Future[int]:
        """Hand in a request; its number, or why it was refused.

        :param on_error: told if the engine fails before the answer ends.
        """

        def take() -> int:
            number = self._engine.submit(request)
            self._listeners[number] = (on_piece, on_error, request.n)
            return number

        return self.call(take)

    def cancel(self, number: int) -> None:
        """End a request; unknown numbers are ignored."""
        self._calls.put(lambda: self._engine.cancel(number))

    def pause(self) -> None:
        """Take no steps until :meth:`resume`; requests are still taken."""
        self._calls.put(lambda: setattr(self, "_paused", True))

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self._calls.put(lambda: setattr(self, "_paused", False))

    def call(self, what: Callable[[], _T]) -> Future[_T]:
        """Run something in the engine's thread, between two steps."""
        future: Future[_T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(what())
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is read
                future.set_exception(error)

        if self.failure is not None or self._ends:
            future.set_exception(ExportError("the engine has stopped and takes no requests"))
        else:
            self._calls.put(run)
        return future

    def stop(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """End the thread; whether it has ended in time.

        :param drain: finish what was begun; else it is cancelled.
        """
        if not drain:
            self._calls.put(self._cancel_all)
        self._ends = True
        self._calls.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _cancel_all(self) -> None:
        for number in self._listeners:
            self._engine.cancel(number)

    def _run(self) -> None:
        try:
            while self._do_calls():
                if self._engine.busy and not self._paused:
                    for piece in self._engine.step():
                        self._hand_out(piece)
        except BaseException as error:  # noqa: BLE001 - whoever waits has to be told
            self.failure = error
            for _, on_error, _ in self._listeners.values():
                if on_error is not None:
                    on_error(error)
            self._refuse_the_rest()

    def _do_calls(self) -> bool:
        """Do what others asked for; wait where there is nothing else to do. False at the end."""
        while True:
            idle = not self._engine.busy or self._paused
            if idle and self._ends and self._calls.empty():
                return False
            try:
                call = self._calls.get(block=idle)
            except queue.Empty:
                return True
            if call is not None:
                call()

    def _refuse_the_rest(self) -> None:
        while not self._calls.empty():
            call = self._calls.get()
            if call is not None:
                call()

    def _hand_out(self, piece: Piece) -> None:
        found = self._listeners.get(piece.request)
        if found is None:
            return
        on_piece, on_error, left = found
        if piece.finish is not None:
            left -= 1
            self._listeners[piece.request] = (on_piece, on_error, left)
            if left == 0:
                del self._listeners[piece.request]
        on_piece(piece)
