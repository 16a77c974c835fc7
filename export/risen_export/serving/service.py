"""What a server is made of, and what it has under way. The handlers of requests share one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from risen_export.engine.worker import Worker
from risen_export.serving.answering import Answers, unavailable
from risen_export.serving.judging import Judges
from risen_export.serving.metrics import Metrics
from risen_export.serving.models import Models
from risen_export.serving.refusals import RefusedError
from risen_export.serving.traffic import TrafficLog
from risen_plugin.errors import ConfigError

_POLL = 0.02  # seconds


@dataclass(frozen=True)
class ServeSettings:
    """How a server is set up.

    :param name: of the base among models; the bundle folder's name if None.
    :param keys: one of which a request has to carry; none are asked for if there are none.
    :param is_open: whether it may be changed without a key: adapters loaded, answers paused.
    :param adapters: a folder under which adapters may be loaded from by request.
    :param most_bytes: of a request's body.
    :param timeout: seconds that a request may take.
    :param grace: seconds in which what was begun may finish when the server is asked to stop.
    :param rate: requests of one key, or of one address, in a minute; None for any number.
    :param hosts: names by which the server may be called; None for any.
    :param log_requests: a file that requests and answers are written to.
    :param log_bytes: the most that this file, and the one before it, may each have.
    :param redact: regular expressions of what is not written there, beside the usual ones.
    """

    name: str | None = None
    keys: tuple[str, ...] = ()
    is_open: bool = False
    adapters: Path | None = None
    most_bytes: int = 2 * 1024**2
    timeout: float = 600.0
    grace: float = 30.0
    rate: int | None = None
    hosts: tuple[str, ...] | None = None
    log_requests: Path | None = None
    log_bytes: int = 64 * 1024**2
    redact: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no setting.

        :raises ConfigError: with the setting's name.
        """
        for name in ("most_bytes", "timeout", "grace", "rate", "log_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value}, and has to be more than 0")
        if any(len(key) < 8 for key in self.keys):
            raise ConfigError("an API key has to have at least 8 characters")


@dataclass
class Service:
    """One server's parts.

    ``gate`` is shut while requests have to wait for :meth:`resume`. ``compiling`` is the one thread
    that reads grammars: one that takes long holds up those with grammars alone.
    """

    worker: Worker
    settings: ServeSettings
    models: Models
    judges: Judges = field(default_factory=Judges)
    metrics: Metrics = field(default_factory=Metrics)
    log: TrafficLog | None = None
    stopping: bool = False
    paused: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    active: set[Answers] = field(default_factory=set)
    compiling: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "risen-grammars"))

    def __post_init__(self) -> None:
        """Open the gate."""
        self.gate.set()

    def check_alive(self) -> None:
        """Refuse where no engine answers.

        :raises RefusedError: if it has failed or ended.
        """
        if self.worker.failure is not None:
            raise unavailable(self.worker.failure)
        if not self.worker.alive:
            raise RefusedError("the engine has ended", 503, code="stopping", retry_after=5)

    def check_room(self) -> None:
        """Refuse at once where the engine would: a server that has too much to do reads no more.

        :raises RefusedError: if as many answers are under way as may wait and be written.
        """
        bounds = self.worker.engine.settings
        under_way = sum(answers.count for answers in self.active)
        if under_way >= bounds.rows + bounds.waiting:
            raise RefusedError(
                f"{under_way} answers are waited for; try again later",
                429,
                code="busy",
                retry_after=max(1.0, under_way / bounds.rows),
            )

    @asynccontextmanager
    async def admitted(self, answers: Answers) -> AsyncIterator[Answers]:
        """Hand in requests once the gate is open.

        :raises RefusedError: as ``Answers`` does.
        """
        await self.gate.wait()
        self.check_alive()
        async with answers:
            self.active.add(answers)
            try:
                yield answers
            finally:
                self.active.discard(answers)

    async def pause(self, mode: str) -> None:
        """Stop writing answers.

        :param mode: ``keep`` freezes what is being written, ``wait`` lets it finish first,
            ``abort`` ends it.
        """
        self.gate.clear()
        try:
            if mode == "abort":
                for answers in list(self.active):
                    answers.cancel()
            while mode != "keep" and self.active:
                await asyncio.sleep(_POLL)
            self.worker.pause()
            self.paused = True
        finally:
            self.gate.set()

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self.worker.resume()
        self.paused = False
