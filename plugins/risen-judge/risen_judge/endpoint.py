"""Ask an OpenAI-compatible endpoint, again where that may help, and never hang or raise otherwise.

Knows nothing of verdicts: it sends a body and gives back the text of the answer.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from risen_judge.spending import Spending

if TYPE_CHECKING:
    import httpx

_AGAIN = frozenset((408, 409, 425, 429))  # and everything from 500 on
_LARGEST = 1 << 20  # bytes of a response that are read
_LONGEST_TOLD = 200  # characters of an endpoint's own error message
BUDGET_SPENT = "budget spent"


@dataclass(frozen=True)
class Secret:
    """A key that shows itself to nobody."""

    value: str = ""

    def hidden_in(self, text: str) -> str:
        """``text`` without the key."""
        return text.replace(self.value, "***") if self.value else text

    def __repr__(self) -> str:
        return "Secret(***)" if self.value else "Secret()"


class AskError(Exception):
    """No usable answer was had; the message is the reason in one line.

    :param helps: whether asking again may help.
    :param wait_s: seconds to wait before, as the endpoint asked.
    """

    def __init__(self, reason: str, *, helps: bool = False, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.helps = helps
        self.wait_s = wait_s


class GarbledError(AskError):
    """An answer came, but it is not what an endpoint of this kind answers."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how often to ask.

    :param url: of the chat completions.
    :param key: sent as the bearer; it is in no message and no repr.
    :param request_timeout_s: seconds for one request, from connecting to the last byte.
    :param retries: further requests after one that failed and may not fail again.
    :param backoff_s: seconds before the first of them, doubled for each further one.
    :param max_wait_s: the longest wait; an endpoint that asks for a longer one is given up.
    :param sleep: waits for so many seconds.
    :param now: seconds since the epoch.
    """

    url: str
    key: Secret
    request_timeout_s: float = 30.0
    retries: int = 3
    backoff_s: float = 1.0
    max_wait_s: float = 60.0
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    now: Callable[[], float] = time.time

    async def ask(
        self,
        client: httpx.AsyncClient,
        body: Mapping[str, Any],
        spending: Spending,
        rng: random.Random,
    ) -> str:
        """The text that the model answered.

        :param rng: of the jitter.
        :raises GarbledError: when what came is no chat completion.
        :raises AskError: when all requests failed, or the budget is spent.
        """
        for attempt in range(self.retries + 1):
            if not spending.begin_call():
                raise AskError(BUDGET_SPENT)
            try:
                return await self._ask_once(client, body, spending)
            except GarbledError:
                raise
            except AskError as error:
                if not error.helps or attempt == self.retries:
                    tries = f" after {attempt + 1} requests" if attempt else ""
                    raise AskError(f"{error}{tries}") from error
                await self.sleep(self._wait_s(error, attempt, rng))
        raise AssertionError("the last attempt returns or raises")

    def _wait_s(self, error: AskError, attempt: int, rng: random.Random) -> float:
        if error.wait_s is not None:
            if error.wait_s > self.max_wait_s:
                raise AskError(f"{error}, and asks to wait for {error.wait_s:.0f} s") from error
            return error.wait_s
        # Half of it is chance, so that many that failed together do not return together.
        wait_s = min(self.backoff_s * 2.0**attempt, self.max_wait_s)
        return wait_s * rng.uniform(0.5, 1.0)

    async def _ask_once(
        self, client: httpx.AsyncClient, body: Mapping[str, Any], spending: Spending
    ) -> str:
        import httpx

        sent = json.dumps(body).encode("ascii")  # escapes even halves of surrogate pairs
        try:
            async with asyncio.timeout(self.request_timeout_s):
                status, headers, received = await self._exchanged(client, sent)
        except TimeoutError:
            raise AskError(f"no answer within {self.request_timeout_s:g} s", helps=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            told = self._told(f"{type(error).__name__}: {error}".removesuffix(": "))
            raise AskError(f"the endpoint cannot be reached ({told})", helps=True) from None
        data = _json_or_none(received)
        usage = data.get("usage") if isinstance(data, dict) else None
        if status != httpx.codes.OK:
            raise AskError(
                f"HTTP {status}{self._told_in(data)}",
                helps=status in _AGAIN or status >= httpx.codes.INTERNAL_SERVER_ERROR,
                wait_s=self._retry_after_s(headers.get("retry-after")),
            )
        spending.take(usage, len(sent) + len(received))
        return self._content(data)

    async def _exchanged(
        self, client: httpx.AsyncClient, sent: bytes
    ) -> tuple[int, httpx.Headers, bytes]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.key.value:
            headers["Authorization"] = f"Bearer {self.key.value}"
        async with client.stream("POST", self.url, content=sent, headers=headers) as response:
            received = bytearray()
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > _LARGEST:
                    raise GarbledError(f"the response is larger than {_LARGEST} bytes")
            return response.status_code, response.headers, bytes(received)

    def _content(self, data: Any) -> str:
        """The text of the first choice; empty where there is a message without one."""
        try:
            content = data["choices"][0]["message"]["content"]
        except (TypeError, KeyError, IndexError):
            raise GarbledError(f"the response is no chat completion{self._told_in(data)}") from None
        if content is not None and not isinstance(content, str):
            raise GarbledError("the response is no chat completion: its content is no text")
        return content or ""

    def _retry_after_s(self, value: str | None) -> float | None:
        """Seconds to wait: the header holds them, or a date."""
        if value is None:
            return None
        if value.strip().isdecimal():
            return float(value)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - self.now())
        except (ValueError, OverflowError):
            return None

    def _told_in(self, data: Any) -> str:
        error = data.get("error") if isinstance(data, dict) else None
        told = error.get("message") if isinstance(error, dict) else error
        return f" ({self._told(told)})" if isinstance(told, str) and told.strip() else ""

    def _told(self, text: str) -> str:
        """In one short line, without the key, which endpoints like to repeat."""
        return " ".join(self.key.hidden_in(text).split())[:_LONGEST_TOLD]


def _json_or_none(received: bytes) -> Any:
    try:
        return json.loads(received)
    except (ValueError, RecursionError):
        return None
