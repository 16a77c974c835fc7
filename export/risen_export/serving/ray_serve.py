"""Replicas of a server on Ray Serve: each opens its own engine, on whatever machine Ray puts it.

What Ray's own proxy does with a request whose replica dies is to answer 500; so the front of
:mod:`risen_export.serving.front` stands before the replicas, in the process that was started.
"""

# pyright: reportMissingImports=false
# (ray is an extra, and large)

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.types import Message

from risen_export.engine.settings import EngineSettings
from risen_export.serving import inside
from risen_export.serving.app import application
from risen_export.serving.front import Front, LostError
from risen_export.serving.front import application as front_application
from risen_export.serving.inside import Answered, Asked
from risen_export.serving.refusals import RefusedError
from risen_export.serving.running import Server, make_service, run_server
from risen_export.serving.service import ServeSettings
from risen_plugin.errors import ConfigError, ExportError

_log = logging.getLogger("risen_export.serving")
_DIED = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError)


@dataclass(frozen=True)
class Plan:
    """What each replica opens, and how many there are.

    :param bundle: its folder, which every machine has at the same place.
    :param least: replicas that are kept; ``most``: that there may be when much is asked.
    :param on_gpu: whether Ray has to reserve one for each.
    """

    bundle: Path
    name: str
    precision: str | None = None
    engine: EngineSettings = field(default_factory=EngineSettings)
    settings: ServeSettings = field(default_factory=ServeSettings)
    rewards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    check_hashes: bool = True
    least: int = 1
    most: int = 1
    on_gpu: bool = False


class Replica:
    """One engine with its application, asked by method calls."""

    def __init__(self, plan: Plan) -> None:
        from risen_export.engine.engine import Engine

        engine = Engine.open(
            plan.bundle, plan.precision, plan.engine, check_hashes=plan.check_hashes
        )
        settings = _of_replica(plan.settings, serve.get_replica_context().replica_id.unique_id)
        self._service = make_service(engine, settings, name=plan.name, rewards=plan.rewards)
        self._app = application(self._service)

    async def whole(self, asked: Asked) -> Answered:
        """The response, once it is whole."""
        return await inside.whole(self._app, asked)

    async def stream(self, asked: Asked) -> AsyncGenerator[Message, None]:
        """The response as it comes."""
        async for message in inside.messages(self._app, asked):
            yield message

    def check_health(self) -> None:
        """Have Ray start another replica in place of one whose engine has failed."""
        if not self._service.worker.alive:
            raise ExportError("the engine has failed") from self._service.worker.failure


def _of_replica(settings: ServeSettings, who: str) -> ServeSettings:
    """The front counts rates and knows hosts; each replica has its own log."""
    log = settings.log_requests
    return replace(
        settings,
        rate=None,
        hosts=None,
        log_requests=None if log is None else log.with_stem(f"{log.stem}-{who}"),
    )


class Handles:
    """The replicas, by Ray's handle of their deployment."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def whole(self, asked: Asked) -> Answered:
        """The response of one of them.

        :raises LostError: if it dies.
        :raises RefusedError: if they have too much to do, or there will be none.
        """
        response = self._handle.whole.remote(asked)
        try:
            answered: Answered = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except Exception as error:
            raise _told(error) from error
        return answered

    async def stream(self, asked: Asked) -> AsyncGenerator[Message, None]:
        """The same as it comes."""
        response = self._handle.options(stream=True).stream.remote(asked)
        try:
            async for message in response:
                yield message
        except (asyncio.CancelledError, GeneratorExit):
            response.cancel()
            raise
        except Exception as error:
            raise _told(error) from error


def _told(error: Exception) -> Exception:
    """What an error of Ray's means to whoever asks."""
    if isinstance(error, _DIED):
        return LostError("a replica has died")
    if isinstance(error, BackPressureError):
        return RefusedError(
            "every replica has as much to do as it may have; try again later",
            429,
            code="busy",
            retry_after=1,
        )
    if isinstance(error, DeploymentUnavailableError):
        return RefusedError("no replica can be started; see the server's log", 503)
    return error


def start(plan: Plan) -> Front:
    """Start the replicas, on the cluster that ``RAY_ADDRESS`` names or on this machine.

    :raises ConfigError: if Ray cannot be reached, or no replica can be started.
    """
    try:
        ray.init(log_to_driver=True, logging_level=logging.WARNING, ignore_reinit_error=True)
        # Nobody listens but the front.
        serve.start(proxy_location="Disabled")
        handle = serve.run(deployment(plan), name=f"risen-{plan.name}", route_prefix=None)
    except (ConnectionError, RuntimeError) as error:
        line = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ConfigError(f"Ray has not started the replicas: {line}") from error
    return Front(Handles(handle), plan.settings)


def deployment(plan: Plan) -> Any:
    """The deployment of a plan, for ``serve.run``."""
    most_each = plan.engine.rows + plan.engine.waiting
    options: dict[str, Any] = {
        "name": "engine",
        "max_ongoing_requests": most_each,
        "max_queued_requests": most_each * plan.most,
        "graceful_shutdown_timeout_s": plan.settings.grace,
        "ray_actor_options": {
            "num_cpus": plan.engine.threads or 1,
            "num_gpus": 1 if plan.on_gpu else 0,
        },
    }
    if plan.least == plan.most:
        options["num_replicas"] = plan.most
    else:
        # A replica writes so many answers at once: more are better written by another.
        options["autoscaling_config"] = {
            "min_replicas": plan.least,
            "max_replicas": plan.most,
            "target_ongoing_requests": plan.engine.rows,
        }
    return serve.deployment(**options)(Replica).bind(plan)


def serve_front(front: Front, listening: socket.socket, name: str) -> None:
    """Answer until a signal asks to stop; then end the replicas."""
    server = Server(front, front_application(front))
    try:
        run_server(server, listening)
    finally:
        if front.active:
            _log.warning("stopped; %d requests were cut off", len(front.active))
        else:
            _log.info("stopped; every request that was begun has been answered")
        serve.delete(f"risen-{name}")
