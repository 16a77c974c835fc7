"""What stands before every handler: keys, rates, sizes, hosts; and what is written of a request.

A plain ASGI layer, so that streams pass through it piece by piece.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from risen_export.serving.metrics import Metrics
from risen_export.serving.refusals import RefusedError

_log = logging.getLogger("risen_export.serving")
OPEN = frozenset(("/", "/health", "/ready", "/openapi.json", "/favicon.ico"))
"""Paths that need no key: none of them says what is asked or answered."""
_MOST_CALLERS = 10_000


class Keys:
    """The API keys of a server.

    :param keys: none for a server that asks for none.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, header: str | None) -> None:
        """Refuse a wrong key; each comparison takes the same time, whatever the key.

        :param header: ``Authorization``.
        :raises RefusedError: if it carries none of the keys.
        """
        if not self._digests:
            return
        kind, _, given = (header or "").partition(" ")
        digest = _digest(given.strip().encode())
        found = [hmac.compare_digest(digest, one) for one in self._digests]
        if kind.lower() != "bearer" or not any(found):
            raise RefusedError(
                "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                401,
                code="invalid_api_key",
            )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class Rates:
    """How many requests a caller may make: so many in a minute, and as many at once.

    :param per_minute: None for any number.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._rate = None if per_minute is None else per_minute / 60
        self._most = float(per_minute or 0)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, caller: str, now: float) -> None:
        """Count a request.

        :param now: seconds, by a clock that never goes back.
        :raises RefusedError: if the caller has used up its share.
        """
        if self._rate is None:
            return
        left, since = self._left.pop(caller, (self._most, now))
        left = min(self._most, left + (now - since) * self._rate)
        self._left[caller] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > _MOST_CALLERS:
            self._left.popitem(last=False)
        if left < 1:
            raise RefusedError(
                f"at most {self._most:.0f} requests a minute are answered",
                429,
                code="rate_limit_exceeded",
                retry_after=(1 - left) / self._rate,
            )


class Guard:
    """Lets requests through to ``app`` that may be answered, and writes a line of each.

    :param hosts: names by which the server may be called; None for any.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        keys: Keys,
        rates: Rates,
        most_bytes: int,
        hosts: Sequence[str] | None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._keys = keys
        self._rates = rates
        self._most = most_bytes
        self._hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        told: dict[str, Any] = {}
        scope.setdefault("state", {})["told"] = told
        number = secrets.token_hex(8)
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", number.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            try:
                self._check(scope)
            except RefusedError as error:
                told["refused"] = str(error)
                await refused(error)(scope, receive, noted)
            else:
                await self._app(scope, self._bounded(receive), noted)
        finally:
            seconds = time.perf_counter() - began
            path = scope["state"].get("path", "other")
            self._metrics.requests.labels(path, str(status or 499)).inc()
            self._metrics.seconds.observe(seconds)
            told |= {"status": status or 499, "seconds": round(seconds, 4)}
            line = {"request": number, "method": scope["method"], "path": scope["path"], **told}
            _log.info("%s", json.dumps(line), extra={"request": line})

    def _check(self, scope: Scope) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self._hosts is not None and _host(headers.get(b"host", "")) not in self._hosts:
            raise RefusedError("this server is not called so; --host names where it listens", 403)
        origin = headers.get(b"origin")
        if origin is not None and origin.partition("://")[2] != headers.get(b"host"):
            raise RefusedError("pages of other servers may not ask this one", 403)
        if scope["path"] not in OPEN:
            self._keys.check(headers.get(b"authorization"))
            caller = headers.get(b"authorization") if self._keys else None
            address = (scope.get("client") or ("",))[0]
            self._rates.check(caller or address, time.monotonic())
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self._most:
            raise self._too_long()
        if scope["method"] == "POST" and (scope["path"].startswith("/v1/")):
            kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
            # A page in a browser can send other kinds anywhere without asking first.
            if kind != "application/json":
                raise RefusedError("the Content-Type has to be application/json", 415)

    def _bounded(self, receive: Receive) -> Receive:
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._most:
                    raise self._too_long()
            return message

        return bounded

    def _too_long(self) -> RefusedError:
        return RefusedError(
            f"the request's body is larger than {self._most} bytes", 413, code="request_too_large"
        )


def refused(error: RefusedError) -> JSONResponse:
    """The response to a request that is refused."""
    headers = dict(error.headers)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status == 413:
        headers["connection"] = "close"
    return JSONResponse(error.body, error.status, headers)


def _host(header: str) -> str:
    """The name in a ``Host`` header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0].lower()
