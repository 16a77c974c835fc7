"""Ask a model behind an endpoint for many texts: at once, within a budget, with a cache.

The key is read from the environment when a request is made, and is in no message, state or file.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from risen_plugin.errors import ConfigError, DataError, RecordError
from risen_plugin.kit.chat_client import AskError, ChatClient, key_in, url_of
from risen_plugin.kit.files import text_sha256
from risen_plugin.kit.json_lines import read_lines

_MOST_BYTES = 4_000_000  # of an answer
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class NoAnswer:
    """The reason why there is no answer, in one line."""

    reason: str


@dataclass
class Endpoint:
    """A chat model of an OpenAI-compatible endpoint.

    :param base_url: the part before ``/chat/completions``, such as ``http://localhost:8000/v1``.
    :param model: the name of the model there.
    :param api_key_env: the environment variable that holds the key; empty sends none.
    :param request_timeout_s: seconds that one request may take.
    :param retries: further requests after a failure that may pass.
    :param backoff_s: seconds before the first of them, doubled for each further one.
    :param budget: the most requests in all; None sets no limit.
    :param cache: a file of the answers, so that the same question is asked once.
    :param parallel: requests at a time.
    :param sleep: waits so many seconds.
    :param clock: seconds, for the time limit.
    :raises ConfigError: if an option makes no sense, or the variable is not set.
    """

    base_url: str
    model: str
    api_key_env: str = ""
    request_timeout_s: float = 60.0
    retries: int = 2
    backoff_s: float = 1.0
    budget: int | None = None
    cache: str | None = None
    parallel: int = 4
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)
    spent: int = field(default=0, init=False, compare=False)
    _known: dict[str, str] | None = field(default=None, init=False, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        url_of(self.base_url)
        key_in(self.api_key_env or None)
        if self.request_timeout_s <= 0:
            raise ConfigError(f"request_timeout_s must be above 0, not {self.request_timeout_s}")
        for name, least in (("retries", 0), ("parallel", 1), ("budget", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, not {value}")

    def ask(self, bodies: Sequence[Mapping[str, Any]]) -> list[str | NoAnswer]:
        """The answer to each request body, or the reason why there is none.

        When every request of a round of ``parallel`` fails, the rest are not made: an endpoint that
        is down costs one round.
        """
        answers: list[str | NoAnswer] = []
        with ThreadPoolExecutor(self.parallel) as pool:
            for start in range(0, len(bodies), self.parallel):
                some = [{"model": self.model, **body} for body in bodies[start:][: self.parallel]]
                # Granted in order, so that the budget ends at the same question each time.
                known = [self._known_or_granted(body) for body in some]
                answers += pool.map(self._answer, some, known)
                if all(isinstance(answer, NoAnswer) for answer in answers[start:]):
                    left = NoAnswer("not asked, since the requests before failed")
                    return answers + [left] * (len(bodies) - len(answers))
        return answers

    def _known_or_granted(self, body: Mapping[str, Any]) -> str | NoAnswer | None:
        """The cached answer, or why no request may be made; None once one is granted."""
        with self._lock:
            known = self._cached().get(_key(self.base_url, body))
        if known is not None:
            return known
        refusal = self._refused()
        return None if refusal is None else NoAnswer(refusal)

    def _answer(self, body: Mapping[str, Any], known: str | NoAnswer | None) -> str | NoAnswer:
        if known is not None:
            return known
        refusals = itertools.chain([None], iter(self._refused, object()))  # the first was granted
        try:
            text = self._client().ask(body, refused=lambda: next(refusals), sleep=self.sleep)
        except AskError as error:
            return NoAnswer(str(error))
        self._save(_key(self.base_url, body), text)
        return text

    def _client(self) -> ChatClient:
        return ChatClient(
            url_of(self.base_url),
            key_in(self.api_key_env or None),
            request_timeout_s=self.request_timeout_s,
            retries=self.retries,
            backoff_s=self.backoff_s,
            max_wait_s=_LONGEST_PAUSE_S,
            most_bytes=_MOST_BYTES,
            insists=True,
            clock=self.clock,
        )

    def go_on(self, spent: int) -> None:
        """Count on from the requests that were made before."""
        with self._lock:
            self.spent = spent

    def _refused(self) -> str | None:
        """Count one request, or give the reason why it may not be made."""
        with self._lock:
            if self.budget is not None and self.spent >= self.budget:
                return f"the budget of {self.budget} requests is spent"
            self.spent += 1
            return None

    def _cached(self) -> dict[str, str]:
        if self._known is None:
            self._known = {}
            if self.cache is not None and Path(self.cache).is_file():
                for line in read_lines(self.cache):
                    try:
                        entry = line.value()
                        self._known[entry["key"]] = str(entry["text"])
                    except (DataError, TypeError, KeyError):
                        continue  # the last line of a run that was killed
        return self._known

    def _save(self, key: str, text: str) -> None:
        with self._lock:
            self._cached()[key] = text
            if self.cache is None:
                return
            try:
                Path(self.cache).parent.mkdir(parents=True, exist_ok=True)
                with Path(self.cache).open("a", encoding="utf-8") as file:
                    file.write(f"\n{json.dumps({'key': key, 'text': text})}\n")
            except OSError as error:
                raise RecordError(f"cannot write the cache '{self.cache}': {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_known")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _known=None)


def _key(base_url: str, body: Mapping[str, Any]) -> str:
    text = json.dumps([base_url.rstrip("/"), body], sort_keys=True)
    return text_sha256(text)[:32]
