"""A request that is refused, in the shape in which clients of the OpenAI API read it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from risen_plugin.errors import RisenError

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


class RefusedError(RisenError):
    """A request is refused.

    :param message: what is wrong and what to do, in one line.
    :param status: of HTTP.
    :param param: the field that is at fault.
    :param code: a word for programs.
    :param retry_after: seconds after which to ask again.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The object that a client gets."""
        kind = KINDS.get(self.status, "invalid_request_error")
        return {
            "error": {
                "message": str(self),
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the response."""
        if self.retry_after is None:
            return {}
        return {"retry-after": str(max(1, round(self.retry_after)))}


class InTime:
    """Within it, what takes too long is refused.

    :param timeout: of ``asyncio``.
    :param message: of the refusal, with the status 504.
    """

    def __init__(self, timeout: asyncio.Timeout, message: str) -> None:
        self._timeout = timeout
        self._message = message

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *about: Any) -> None:
        try:
            await self._timeout.__aexit__(*about)
        except TimeoutError:
            raise RefusedError(self._message, 504, code="timeout") from None
