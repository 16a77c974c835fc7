"""The server as an ASGI application: which path is answered by what."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from risen_export.serving import handlers, page
from risen_export.serving.events import body_of
from risen_export.serving.fields import Fields
from risen_export.serving.guarding import Guard, Keys, Rates, refused
from risen_export.serving.metrics import CONTENT_TYPE
from risen_export.serving.openapi import document
from risen_export.serving.refusals import RefusedError
from risen_export.serving.service import Service
from risen_plugin.errors import RisenError

_log = logging.getLogger("risen_export.serving")
Handler = Callable[[Service, Request], Awaitable[Response]]


def application(service: Service) -> Starlette:
    """The application of a service, whose worker runs."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        service.stopping = True

    settings = service.settings
    guard = Middleware(
        Guard,
        metrics=service.metrics,
        keys=Keys(settings.keys),
        rates=Rates(settings.rate),
        most_bytes=settings.most_bytes,
        hosts=settings.hosts,
    )
    routes = [
        _route("/", _page, "GET", service),
        _route("/health", _health, "GET", service),
        _route("/ready", _ready, "GET", service),
        _route("/metrics", _metrics, "GET", service),
        _route("/openapi.json", _openapi, "GET", service),
        _route("/v1/models", _models, "GET", service),
        _route("/v1/models/{name:path}", _model, "GET", service),
        _route("/v1/chat/completions", handlers.chat, "POST", service),
        _route("/v1/completions", handlers.text, "POST", service),
        _route("/v1/load_lora_adapter", _load, "POST", service),
        _route("/v1/unload_lora_adapter", _unload, "POST", service),
        _route("/pause", _pause, "POST", service),
        _route("/resume", _resume, "POST", service),
        _route("/server_info", _server_info, "GET", service),
    ]
    return Starlette(
        routes=routes,
        middleware=[guard],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )


def _route(path: str, handler: Handler, method: str, service: Service) -> Route:
    async def endpoint(request: Request) -> Response:
        request.scope["state"]["path"] = path
        try:
            return await handler(service, request)
        except RefusedError as error:
            return _told(request, error)
        except RisenError as error:
            return _told(request, RefusedError(str(error)))
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:  # noqa: BLE001 - a bug of ours is still an answer in their shape
            _log.exception("a request to %s failed; this is a bug", path)
            return _told(request, RefusedError("the server has failed; see its log", 500))

    return Route(path, endpoint, methods=[method])


def _told(request: Request, error: RefusedError) -> Response:
    request.scope["state"]["told"]["refused"] = str(error)
    return refused(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """Paths and methods that there are none of."""
    assert isinstance(error, HTTPException)
    return refused(RefusedError(str(error.detail), error.status_code))


# What says how the server is


async def _health(service: Service, request: Request) -> Response:
    service.check_alive()
    return JSONResponse({"status": "ok"})


async def _ready(service: Service, request: Request) -> Response:
    service.check_alive()
    if service.stopping or service.paused:
        why = "stopping" if service.stopping else "paused"
        raise RefusedError(f"the server is {why}", 503, code=why, retry_after=1)
    return JSONResponse({"status": "ready"})


async def _metrics(service: Service, request: Request) -> Response:
    if service.worker.alive:
        stats = service.worker.call(service.worker.engine.stats)
        service.metrics.stats = await asyncio.wrap_future(stats)
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


async def _openapi(service: Service, request: Request) -> Response:
    names = [service.models.base, *service.models.adapters]
    return JSONResponse(document(names, service.worker.engine.context))


async def _page(service: Service, request: Request) -> Response:
    return HTMLResponse(page.html(), headers=page.headers())


# Models and adapters


async def _models(service: Service, request: Request) -> Response:
    return JSONResponse(service.models.data())


async def _model(service: Service, request: Request) -> Response:
    return JSONResponse(service.models.entry(request.path_params["name"]))


async def _load(service: Service, request: Request) -> Response:
    _need_keys(service)
    fields = Fields(await body_of(request))
    name, path = _needed(fields, "lora_name"), _needed(fields, "lora_path")
    replace = fields.flag("load_inplace")
    fields.ignore(("base_model_name", "is_3d_lora_weight"))
    fields.only()
    await service.models.load(name, path, replace=replace)
    return Response(f"Success: LoRA adapter '{name}' added successfully.", media_type="text/plain")


async def _unload(service: Service, request: Request) -> Response:
    _need_keys(service)
    fields = Fields(await body_of(request))
    name = _needed(fields, "lora_name")
    fields.ignore(("lora_int_id",))
    fields.only()
    await service.models.unload(name)
    text = f"Success: LoRA adapter '{name}' removed successfully."
    return Response(text, media_type="text/plain")


async def _pause(service: Service, request: Request) -> Response:
    _need_keys(service)
    mode = request.query_params.get("mode", "abort")
    if mode not in ("abort", "wait", "keep"):
        raise RefusedError("mode is abort, wait or keep", param="mode")
    await service.pause(mode)
    return JSONResponse({"status": "paused"})


async def _resume(service: Service, request: Request) -> Response:
    _need_keys(service)
    service.resume()
    return JSONResponse({"status": "resumed"})


async def _server_info(service: Service, request: Request) -> Response:
    """What clients of vLLM look for before they load adapters."""
    # There are no bounds of ours; clients compare theirs with these.
    lora = {"max_lora_rank": 512, "max_loras": 1024} if service.models.takes_adapters else None
    config = {
        "model_config": {"dtype": "torch.float32", "max_model_len": service.worker.engine.context},
        "parallel_config": {"data_parallel_size": 1},
        "lora_config": lora,
    }
    return JSONResponse({"vllm_config": config})


def _need_keys(service: Service) -> None:
    if not service.settings.keys and not service.settings.is_open:
        raise RefusedError(
            "this changes what the server answers, and needs an API key: start it with --api-key, "
            "or with --open",
            403,
            code="no_api_key",
        )


def _needed(fields: Fields, name: str) -> str:
    value: Any = fields.text(name, 4096)
    if not value:
        raise fields.refused(name, "is missing")
    return str(value)
