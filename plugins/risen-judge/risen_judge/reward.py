"""The reward ``judge``: each criterion of each answer is one question to a language model.

There are three outcomes: a score, an abstention where a row has no criterion, and ``Failed`` where
the judge gave no verdict. An outage is never a score.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from risen_judge.asking import asked
from risen_judge.cache import Cache, key_of
from risen_judge.messages import messages
from risen_judge.settings import check_criteria, check_extra, check_numbers
from risen_judge.spending import Spending
from risen_judge.verdicts import Verdict, VerdictError, short, verdict_of
from risen_plugin.contracts import Completion, Failed, text_of
from risen_plugin.errors import ConfigError, DataError, near_miss
from risen_plugin.kit.chat_client import (
    AskError,
    ChatClient,
    GarbledError,
    Secret,
    key_in,
    url_of,
)

_TRIES = 2  # requests for a verdict, where a reply is none


@dataclass(frozen=True)
class Judge:
    """Criteria judged one at a time by a language model behind an OpenAI-compatible endpoint.

    A row without criteria gets no score, a blank answer 0.0 without a request. Where the endpoint
    is down, too slow, refuses or answers nonsense, the completion counts as an error.

    :param base_url: the endpoint's address, such as ``http://localhost:8000/v1``.
    :param model: the model's name there.
    :param criteria: one criterion or several, for every row.
    :param column: the column of the rows with a criterion or a list of them, in place of criteria.
    :param api_key_env: the environment variable that holds the key; none for no key.
    :param aggregate: ``mean`` scores the share of criteria met, ``all`` 1.0 if each one is.
    :param request_timeout_s: seconds for one request, to the last byte.
    :param retries: further requests after a failure that may pass.
    :param backoff_s: seconds before the first of them, doubled for each further one.
    :param max_wait_s: the longest wait; an endpoint that asks for a longer one is given up.
    :param concurrency: the most requests under way at once.
    :param budget_calls: the most requests of a run; after them nothing is judged.
    :param budget_tokens: the most tokens of a run; requests under way may go beyond it.
    :param answer_tokens: the most tokens of a verdict.
    :param cache: an SQLite file for verdicts; without one they are held in memory.
    :param extra: further fields of a request; null leaves one of the judge's own out.
    :param seed: of the jitter in the waits.
    """

    base_url: str
    model: str
    criteria: str | Sequence[str] | None = None
    column: str | None = None
    api_key_env: str | None = None
    aggregate: Literal["mean", "all"] = "mean"
    request_timeout_s: float = 30.0
    retries: int = 3
    backoff_s: float = 1.0
    max_wait_s: float = 60.0
    concurrency: int = 8
    budget_calls: int | None = None
    budget_tokens: int | None = None
    answer_tokens: int = 300
    cache: Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    needs: ClassVar[tuple[str, ...]] = ()
    spending: Spending = field(init=False, repr=False, compare=False)
    _verdicts: Cache = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        url_of(self.base_url)
        key_in(self.api_key_env)
        if not self.model.strip():
            raise ConfigError("model must be the name of a model at the endpoint")
        check_criteria(self.criteria, self.column)
        if self.aggregate not in ("mean", "all"):
            raise ConfigError(f"aggregate is 'mean' or 'all', not {self.aggregate!r}")
        check_numbers(
            {
                "request_timeout_s": (self.request_timeout_s, 0.001),
                "retries": (self.retries, 0),
                "backoff_s": (self.backoff_s, 0),
                "max_wait_s": (self.max_wait_s, 0),
                "concurrency": (self.concurrency, 1),
                "budget_calls": (self.budget_calls, 1),
                "budget_tokens": (self.budget_tokens, 1),
                "answer_tokens": (self.answer_tokens, 1),
            }
        )
        check_extra(self.extra)
        spending = Spending(self.budget_calls, self.budget_tokens)
        object.__setattr__(self, "spending", spending)
        object.__setattr__(self, "_verdicts", Cache(self.cache))
        object.__setattr__(self, "needs", (self.column,) if self.column else ())

    async def __call__(
        self, *, prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any
    ) -> list[float | None]:
        """A score, None or ``Failed`` per completion.

        :raises DataError: if the column of criteria is missing or holds something else.
        """
        criteria = self._criteria(columns, len(completions))
        bodies: dict[str, dict[str, Any]] = {}
        keys: list[list[str]] = []
        for prompt, completion, wanted in zip(prompts, completions, criteria, strict=True):
            asked = wanted if text_of(completion).strip() else []
            made = [self._body(prompt, completion, criterion) for criterion in asked]
            keys.append([key_of(body) for body in made])
            bodies.update(zip(keys[-1], made, strict=True))
        verdicts: dict[str, Verdict | Failed] = {**self._verdicts.find(list(bodies))}
        remembered = len(verdicts)
        verdicts |= await self._judged({k: b for k, b in bodies.items() if k not in verdicts})
        scores = [
            self._score([verdicts[key] for key in of_answer]) if wanted else None
            for of_answer, wanted in zip(keys, criteria, strict=True)
        ]
        self._log(columns.get("log_metric"), scores, remembered)
        return scores

    def state_dict(self) -> dict[str, Any]:
        """The requests and tokens spent, so that a resumed run does not get its budget again."""
        return {"calls": self.spending.calls, "tokens": self.spending.tokens}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        self.spending.calls, self.spending.tokens = state["calls"], state["tokens"]

    def _criteria(self, columns: Mapping[str, Any], count: int) -> list[list[str]]:
        if self.column is None:
            return [_texts(self.criteria, "criteria")] * count
        if self.column not in columns:
            raise DataError(
                f"the rows have no column '{self.column}'{near_miss(self.column, columns)}; "
                f"they have: {', '.join(sorted(columns)) or 'none'}"
            )
        return [
            _texts(value, f"row {row} of the batch: column '{self.column}'")
            for row, value in enumerate(columns[self.column], start=1)
        ]

    def _body(self, prompt: Any, completion: Completion, criterion: str) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": messages(prompt, completion, criterion),
            "temperature": 0,
            "max_tokens": self.answer_tokens,
            **self.extra,
        }
        return {name: value for name, value in body.items() if value is not None}

    async def _judged(self, bodies: Mapping[str, dict[str, Any]]) -> dict[str, Verdict | Failed]:
        """A verdict for each body, or why there is none."""
        if not bodies:
            return {}
        try:
            client = self._client(key_in(self.api_key_env))
        except ConfigError as error:  # the key is gone
            return dict.fromkeys(bodies, Failed(" ".join(str(error).split())))
        turns = asyncio.Semaphore(self.concurrency)

        async def judged(key: str, body: dict[str, Any]) -> Verdict | Failed:
            async with turns:
                return await self._verdict(client, key, body)

        verdicts = await asyncio.gather(*(judged(key, body) for key, body in bodies.items()))
        return dict(zip(bodies, verdicts, strict=True))

    async def _verdict(
        self, client: ChatClient, key: str, body: dict[str, Any]
    ) -> Verdict | Failed:
        rng, reason = random.Random(f"judge {self.seed} {key}"), ""
        for _ in range(_TRIES):
            reply = ""
            try:
                reply = await asked(client, body, self.spending, rng)
                verdict = verdict_of(reply)
            except VerdictError:
                reason = f"no verdict: it said {short(client.key.hidden_in(reply))}"
            except GarbledError as error:
                reason = str(error)
            except AskError as error:
                return Failed(str(error))
            else:
                safe_reason = client.key.hidden_in(verdict.reason)
                self._verdicts.save(key, Verdict(verdict.met, safe_reason), self.model)
                return verdict
        return Failed(reason)

    def _client(self, key: Secret) -> ChatClient:
        return ChatClient(
            url_of(self.base_url),
            key,
            request_timeout_s=self.request_timeout_s,
            retries=self.retries,
            backoff_s=self.backoff_s,
            max_wait_s=self.max_wait_s,
        )

    def _score(self, verdicts: Sequence[Verdict | Failed]) -> float:
        met = []
        for number, verdict in enumerate(verdicts, start=1):
            if isinstance(verdict, Failed):
                which = f"criterion {number} of {len(verdicts)}: " if len(verdicts) > 1 else ""
                return Failed(f"{which}{verdict.reason}")
            met.append(verdict.met)
        if not met:  # the answer is blank
            return 0.0
        return sum(met) / len(met) if self.aggregate == "mean" else float(all(met))

    def _log(self, log_metric: Any, scores: Sequence[float | None], remembered: int) -> None:
        if not callable(log_metric):
            return
        failed = sum(isinstance(score, Failed) for score in scores)
        log_metric("judge/calls", float(self.spending.calls))
        log_metric("judge/tokens", float(self.spending.tokens))
        log_metric("judge/from_cache", float(remembered))
        log_metric("judge/errors", float(failed))


def _texts(value: Any, where: str) -> list[str]:
    """The criteria in a cell: a text, a list of texts, or none."""
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where} holds criteria, a text or a list of texts, not {value!r:.60}")
    return [text.strip() for text in texts if text.strip()]
