"""Ask a chat model behind an OpenAI-compatible endpoint: again where that may help, never for ever.

Plugins of other distributions may rely on this module. It sends a body and gives back the text of
the answer. A limit holds for a whole request, to its last byte; an answer has a largest size; no
redirect takes the key elsewhere, and the key is in no message.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import queue
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from risen_plugin.errors import ConfigError, printable

PATH = "/chat/completions"
_AGAIN = frozenset((408, 409, 425, 429))  # and everything from 500 on
_SERVER_ERRORS = 500
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_SHOWN = 200  # characters of an endpoint's own error message


@dataclass(frozen=True)
class Secret:
    """A key that shows itself to nobody."""

    value: str = ""

    def hidden_in(self, text: str) -> str:
        """``text`` without the key."""
        return text.replace(self.value, "***") if self.value else text

    def __repr__(self) -> str:
        return "Secret(***)" if self.value else "Secret()"


def url_of(base_url: str) -> str:
    """The address of the endpoint's chat completions.

    :raises ConfigError: if ``base_url`` is no address, or holds more than an address.
    """
    try:
        parts = urlsplit(base_url.strip())
        _ = parts.port  # raises for what is no number
    except ValueError:
        raise ConfigError(
            "base_url is no address; it looks like http://localhost:8000/v1"
        ) from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "base_url holds a user, a password or parameters; give the address alone, and name the "
            "variable with the key in api_key_env"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in base_url.strip():
        raise ConfigError(f"base_url {base_url!r} is no address like http://localhost:8000/v1")
    if parts.path.rstrip("/").endswith(PATH):
        raise ConfigError(f"base_url ends with {PATH}, which is added to it; leave that out")
    return base_url.strip().rstrip("/") + PATH


def key_in(variable: str | None) -> Secret:
    """The key that the environment variable holds; an empty one where none is named.

    :raises ConfigError: if it holds no key, or a text that cannot be a key.
    """
    if variable is None:
        return Secret()
    if not _VARIABLE.fullmatch(variable):
        raise ConfigError("api_key_env is the name of an environment variable, not the key itself")
    named = f"'{variable}'" if variable.isupper() else "of this name"
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"api_key_env: there is no environment variable {named}, or it is empty")
    if not _can_be_a_key(value):
        raise ConfigError(
            f"api_key_env: the environment variable {named} holds what cannot be a key; keys are "
            "printable ASCII without blanks"
        )
    return Secret(value)


def _can_be_a_key(value: str) -> bool:
    """Whether it can stand in a header: what cannot is repeated in an error of ``http.client``."""
    return value.isascii() and value.isprintable() and " " not in value


class AskError(Exception):
    """The endpoint gave no usable answer; the message is the reason in one line.

    :param helps: whether asking again may help.
    :param wait_s: seconds to wait before, as the endpoint asked.
    """

    def __init__(self, reason: str, *, helps: bool = False, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.helps = helps
        self.wait_s = wait_s


class GarbledError(AskError):
    """An answer came that is no chat completion, is too large, or lacks the text it must have."""


@dataclass(frozen=True)
class ChatClient:
    """Where and how often to ask.

    :param url: of the chat completions.
    :param key: sent as the bearer; it is in no message and no repr.
    :param request_timeout_s: seconds for one request, from connecting to the last byte.
    :param retries: further requests after one that failed and may not fail again.
    :param backoff_s: seconds before the first of them, doubled for each further one.
    :param max_wait_s: the longest wait; an endpoint that asks for a longer one is given up.
    :param most_bytes: of a response.
    :param insists: whether an answer without text is an error, and is asked for again as one that
        is no chat completion is.
    :param now: seconds since the epoch.
    :param clock: seconds, for the limit of a request.
    """

    url: str
    key: Secret = Secret()
    request_timeout_s: float = 30.0
    retries: int = 3
    backoff_s: float = 1.0
    max_wait_s: float = 60.0
    most_bytes: int = 1 << 20
    insists: bool = False
    now: Callable[[], float] = field(default=time.time, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        if not _can_be_a_key(self.key.value):
            raise ConfigError("the key cannot be one: keys are printable ASCII without blanks")

    def ask(
        self,
        body: Mapping[str, Any],
        *,
        refused: Callable[[], str | None] = lambda: None,
        used: Callable[[Any, int], None] = lambda usage, characters: None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Any] = time.sleep,
    ) -> str:
        """The text of the model's answer; empty where its message has none.

        :param refused: counts a request that is about to be made, or says why it may not be.
        :param used: gets ``usage`` of a response, and the characters sent and received.
        :param rng: of the jitter in the waits; without one they are exact.
        :raises GarbledError: when the response is no chat completion.
        :raises AskError: when all requests failed, or one is refused.
        """
        for attempt in range(self.retries + 1):
            if (reason := refused()) is not None:
                raise AskError(reason)
            try:
                return self._ask_once(body, used)
            except AskError as error:
                if isinstance(error, GarbledError) and not self.insists:
                    raise
                if not error.helps or attempt == self.retries:
                    tries = f" after {attempt + 1} requests" if attempt else ""
                    raise type(error)(f"{error}{tries}") from error
                sleep(self._wait_s(error, attempt, rng))
        raise AssertionError("the last attempt returns or raises")

    def _wait_s(self, error: AskError, attempt: int, rng: random.Random | None) -> float:
        if error.wait_s is not None:
            if error.wait_s > self.max_wait_s:
                raise AskError(f"{error}, and asks to wait for {error.wait_s:.0f} s") from error
            return error.wait_s
        wait_s = min(self.backoff_s * 2.0**attempt, self.max_wait_s)
        # Half of it is chance, so that many that failed together do not return together.
        return wait_s if rng is None else wait_s * rng.uniform(0.5, 1.0)

    def _ask_once(self, body: Mapping[str, Any], used: Callable[[Any, int], None]) -> str:
        sent = json.dumps(body).encode("ascii")  # escapes even halves of surrogate pairs
        status, headers, received = self._within_limit(lambda: self._exchanged(sent))
        data = _json_or_none(received)
        if status != http.client.OK:
            raise AskError(
                f"HTTP {status}{self._shown_in(data)}",
                helps=status in _AGAIN or status >= _SERVER_ERRORS,
                wait_s=self._retry_after_s(headers.get("retry-after")),
            )
        used(data.get("usage") if isinstance(data, dict) else None, len(sent) + len(received))
        return self._content(data)

    def _within_limit(
        self, exchange: Callable[[], tuple[int, Message, bytes]]
    ) -> tuple[int, Message, bytes]:
        """Exchange in a thread that is left alone when its time is up.

        A socket's own limit is for one read: headers that drip would hold a request for ever.
        """
        done: queue.Queue[tuple[int, Message, bytes] | Exception] = queue.Queue()

        def work() -> None:
            try:
                done.put(exchange())
            except Exception as error:  # noqa: BLE001  raised again where it is waited for
                done.put(error)

        threading.Thread(target=work, daemon=True, name="chat request").start()
        try:
            made = done.get(timeout=self.request_timeout_s)
        except queue.Empty:
            made = TimeoutError()
        if isinstance(made, tuple):
            return made
        reason = made.reason if isinstance(made, urllib.error.URLError) else made
        if isinstance(reason, TimeoutError):
            limit = f"{self.request_timeout_s:g} s"
            raise AskError(f"no answer within {limit}", helps=True) from None
        if isinstance(made, OSError | http.client.HTTPException | ValueError):
            kind = type(reason).__name__ if isinstance(reason, Exception) else "Error"
            shown = self._shown(f"{kind}: {reason}".removesuffix(": "))
            raise AskError(f"the endpoint cannot be reached ({shown})", helps=True) from None
        raise made

    def _exchanged(self, sent: bytes) -> tuple[int, Message, bytes]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.key.value:
            headers["Authorization"] = f"Bearer {self.key.value}"
        request = urllib.request.Request(self.url, sent, headers)
        deadline = self.clock() + self.request_timeout_s
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            response: Any = opener.open(request, timeout=self.request_timeout_s)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return response.status, response.headers, self._read(response, deadline)

    def _read(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        received = bytearray()
        while chunk := response.read1(65536):
            received += chunk
            if self.clock() > deadline:
                raise TimeoutError
            if len(received) > self.most_bytes:
                raise GarbledError(f"the response is larger than {self.most_bytes} bytes")
        return bytes(received)

    def _content(self, data: Any) -> str:
        try:
            content = data["choices"][0]["message"]["content"]
        except (TypeError, KeyError, IndexError):
            raise self._garbled(
                f"the response is no chat completion{self._shown_in(data)}"
            ) from None
        if content is not None and not isinstance(content, str):
            raise self._garbled("the response is no chat completion: its content is no text")
        if self.insists and not (content or "").strip():
            raise self._garbled("the response holds no text")
        return content or ""

    def _garbled(self, reason: str) -> GarbledError:
        return GarbledError(reason, helps=self.insists)

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

    def _shown_in(self, data: object) -> str:
        """The endpoint's message about its error, in brackets."""
        error = data.get("error") if isinstance(data, dict) else None
        message = error.get("message") if isinstance(error, dict) else error
        return f" ({self._shown(message)})" if isinstance(message, str) and message.strip() else ""

    def _shown(self, text: str) -> str:
        """``text`` in one short line, without the key, which endpoints may repeat."""
        return printable(" ".join(self.key.hidden_in(text).split())[:_LONGEST_SHOWN])


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another host."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _json_or_none(received: bytes) -> Any:
    try:
        return json.loads(received)
    except (ValueError, RecursionError):
        return None
