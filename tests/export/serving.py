"""A server in a thread of the tests, on a port of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_export.engine.engine import Engine
from risen_export.engine.settings import EngineSettings
from risen_export.serving.app import application
from risen_export.serving.running import Server, listen, make_service
from risen_export.serving.service import ServeSettings, Service

KEY = "a-key-of-the-tests"
_READY = 30.0  # seconds


@dataclass
class Running:
    """A server that runs.

    :param url: its address.
    """

    url: str
    service: Service
    server: Server

    def idle(self) -> bool:
        """Whether its engine has nothing to do."""
        worker = self.service.worker
        return not worker.call(lambda: worker.engine.busy).result(10)

    def wait_idle(self, seconds: float = 10.0) -> None:
        """Return when the engine has nothing to do; fail if it goes on."""
        until(self.idle, seconds)


def until(holds: Any, seconds: float = 10.0) -> None:
    """Return once something holds; fail if it never does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def running(
    bundle: Path, engine: EngineSettings | None = None, **settings: Any
) -> Iterator[Running]:
    """Serve ``bundle`` until the block is left."""
    opened = Engine.open(bundle, settings=engine or EngineSettings(rows=4))
    service = make_service(opened, ServeSettings(**{"grace": 1.0, **settings}), name="tiny")
    listening = listen("127.0.0.1", 0)
    server = Server(service, application(service))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        until(lambda: server.started, _READY)
        yield Running(f"http://127.0.0.1:{listening.getsockname()[1]}", service, server)
    finally:
        server.should_exit = True
        thread.join(10)
        service.worker.stop(drain=False, timeout=10)
        listening.close()
