"""Run the server until it is asked to stop, and let it finish what it has begun."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from risen_export.engine.engine import Engine
from risen_export.engine.worker import Worker
from risen_export.serving.app import application
from risen_export.serving.front import Front
from risen_export.serving.judging import Judges
from risen_export.serving.models import Models
from risen_export.serving.service import ServeSettings, Service
from risen_export.serving.traffic import TrafficLog
from risen_plugin.errors import ConfigError, printable

_log = logging.getLogger("risen_export.serving")
# Seconds after which the engine's thread lets the loop run. With Python's own 5 ms, a tiny model
# gave 66 and 50 answers a second in two rounds on two busy cores, with this one 117 and 84.
_SWITCH = 0.0005


def make_service(
    engine: Engine,
    settings: ServeSettings,
    *,
    name: str,
    rewards: Mapping[str, Mapping[str, Any]] | None = None,
) -> Service:
    """A service over an opened engine, whose thread runs from now on.

    :param name: of the base among models, unless the settings have one.
    :param rewards: options of rewards, by the reward's name.
    :raises ConfigError: if the log of traffic cannot be written.
    """
    log = None
    if settings.log_requests is not None:
        log = TrafficLog(settings.log_requests, settings.log_bytes, settings.redact)
    worker = Worker(engine)
    worker.start()
    models = Models(worker, settings.name or name, settings.adapters)
    return Service(worker, settings, models, Judges(rewards), log=log)


def listen(host: str, port: int) -> socket.socket:
    """A socket at the place where the server will listen.

    :raises ConfigError: if the place is taken or there is none of that name.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return made


class Server(uvicorn.Server):
    """uvicorn, which says what it still finishes when it is asked to stop."""

    def __init__(self, service: Service | Front, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=max(1, round(service.settings.grace)),
                timeout_keep_alive=30,
                h11_max_incomplete_event_size=64 * 1024,
            )
        )
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at the second Ctrl-C, stop at once."""
        if not self.should_exit:
            count = len(self._service.active)
            _log.info(
                "%s: no more requests are taken; %d under way are finished, within %g s",
                signal.Signals(sig).name,
                count,
                self._service.settings.grace,
            )
        self._service.stopping = True
        if self._service.paused:
            self._service.resume()
        super().handle_exit(sig, frame)


def run_server(server: Server, listening: socket.socket) -> None:
    """Answer until a signal asks to stop, and return."""
    before = _harmless_signals()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        server.run(sockets=[listening])
    finally:
        sys.setswitchinterval(interval)
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(service: Service, listening: socket.socket) -> None:
    """Answer until a signal asks to stop; then what was begun is finished, if it can be in time."""
    server = Server(service, application(service))
    try:
        run_server(server, listening)
    finally:
        left = len(service.active)
        ended = service.worker.stop(drain=not left, timeout=5.0)
        if service.log is not None:
            service.log.close()
        if left:
            _log.warning("stopped; %d requests were cut off", left)
        elif ended:
            _log.info("stopped; every request that was begun has been answered")


def _harmless_signals() -> dict[int, Any]:
    """Let uvicorn raise the signal that ended it once more, without ending what comes after it."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }


def log_to_stderr(*, as_json: bool) -> None:
    """Write what the server says to standard error, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(as_json=as_json))
    for name in ("risen_export.serving", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
    logging.getLogger("risen_export.serving").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class _Lines(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        about: dict[str, Any] | None = getattr(record, "request", None)
        if not self._as_json:
            if about is not None:
                words = [f"{key}={value}" for key, value in about.items() if key not in _SAID]
                line = f"{about['method']} {about['path']} {about['status']} {' '.join(words)}"
                return f"{self.formatTime(record, self.datefmt)} {printable(line)}"
            return super().format(record)
        time = self.formatTime(record, self.datefmt)
        said: dict[str, Any] = {"time": time, "level": record.levelname.lower()}
        said |= about if about is not None else {"message": record.getMessage()}
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


_SAID = ("method", "path", "status")


def keys_of(file: Path) -> tuple[str, ...]:
    """The API keys in a file, one a line.

    :raises ConfigError: if it cannot be read, or has none.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the API keys in {file} cannot be read: {error}") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise ConfigError(f"{file} has no API key; write one a line")
    return keys
