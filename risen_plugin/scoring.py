"""Call rewards as TRL does, hold them to their contract, and count what passed.

A reward keeps TRL's call shape; the wrapper only adds its configured name (which TRL logs), says
whose it is when it fails, and refuses scores that would train silently on nonsense.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import reprlib
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Real
from typing import Any

from risen_plugin.contracts import Row
from risen_plugin.errors import PluginError, boundary

Scores = list[float | None]
Listener = Callable[[str, Scores, Mapping[str, Any]], None]
OnAnswers = Callable[[Mapping[str, Any], Sequence[bool | None], Sequence[float | None]], None]
"""Told of each batch of rollouts: its columns, with ``prompts`` and ``completions``, whether each
answer passed, and its weighted score."""
NO_FAMILY = "all"
_GIVEN = frozenset(
    ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
)  # what TRL hands to every reward, whatever columns the rows have
_NO_LISTS = (str, bytes, Mapping, set, frozenset)  # a set forgets which score is whose


def check_scores(scores: Any, expected: int, label: str) -> Scores:
    """The scores as plain floats and Nones.

    :raises PluginError: for a wrong number of scores, NaN, infinity, or what is no number.
    """
    try:
        if isinstance(scores, _NO_LISTS):
            raise TypeError
        count = len(scores)
    except TypeError:  # what has no length, and also a tensor or array without dimensions
        raise PluginError(
            f"{label} returned {type(scores).__name__}, not a list of scores"
        ) from None
    if count != expected:
        raise PluginError(
            f"{label} returned {count} scores for {expected} completions; "
            "it must return one per completion (None to abstain)"
        )
    return [_number(score, index, label) for index, score in enumerate(scores)]


def _number(score: Any, index: int, label: str) -> float | None:
    if score is None:
        return None
    given = score
    if hasattr(score, "item"):  # numpy and torch scalars
        with contextlib.suppress(ValueError, RuntimeError):  # several scores in place of one
            score = score.item()
    if not isinstance(score, Real):
        told = " ".join(reprlib.repr(given).split())
        raise PluginError(
            f"{label} returned {told} for completion {index}; a score is a number or None"
        )
    try:
        number = float(score)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PluginError(
            f"{label} returned {number} for completion {index}; "
            "a score is finite, and None means that the reward abstains"
        )
    return number


class NamedReward:
    """A reward under its configured name; call it as TRL calls a reward function."""

    def __init__(
        self,
        reward: Callable[..., Any],
        name: str,
        label: str,
        *,
        weight: float = 1.0,
        passes_at: float = 1.0,
        graded: bool = True,
    ) -> None:
        self.reward = reward
        self.__name__ = name  # TRL logs rewards/<name>
        self.label = label
        self.weight = weight
        self.passes_at = passes_at
        self.graded = graded
        self.listener: Listener | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns that the reward cannot do without: its ``needs``, and what it asks by name."""
        names = getattr(self.reward, "needs", ())
        named = (names,) if isinstance(names, str) else tuple(names)
        return (*named, *(name for name in _asked_by_name(self.reward) if name not in named))

    def __call__(self, *, prompts: list[Any], completions: list[Any], **columns: Any) -> Scores:
        with boundary(self.label):
            scores = self.reward(prompts=prompts, completions=completions, **columns)
        return self._settle(
            scores, completions, {**columns, "prompts": prompts, "completions": completions}
        )

    def _settle(self, scores: Any, completions: list[Any], columns: Mapping[str, Any]) -> Scores:
        checked = check_scores(scores, len(completions), self.label)
        if self.listener is not None:
            self.listener(self.__name__, checked, columns)
        return checked


def _asked_by_name(reward: Callable[..., Any]) -> list[str]:
    """The columns that a reward function takes as arguments without a default."""
    try:
        parameters = inspect.signature(reward).parameters.values()
    except (TypeError, ValueError):  # a callable without a readable signature
        return []
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind in by_name
        and parameter.default is inspect.Parameter.empty
        and parameter.name not in _GIVEN
    ]


class AsyncNamedReward(NamedReward):
    """The same for an ``async`` reward; TRL awaits those side by side."""

    async def __call__(  # type: ignore[override]  # TRL asks which kind it is before calling
        self, *, prompts: list[Any], completions: list[Any], **columns: Any
    ) -> Scores:
        with boundary(self.label):
            pending: Any = self.reward(prompts=prompts, completions=completions, **columns)
            scores = await pending
        return self._settle(
            scores, completions, {**columns, "prompts": prompts, "completions": completions}
        )


def wrap(
    reward: Callable[..., Any],
    name: str,
    label: str,
    *,
    weight: float = 1.0,
    passes_at: float = 1.0,
    graded: bool = True,
) -> NamedReward:
    """The wrapper that fits a plain or an ``async`` reward."""
    call = getattr(reward, "__call__", reward)  # noqa: B004 the bound method tells if it is async
    is_async = inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(call)
    kind = AsyncNamedReward if is_async else NamedReward
    return kind(reward, name, label, weight=weight, passes_at=passes_at, graded=graded)


@dataclass(frozen=True)
class Adherence:
    """How well answers follow their instructions.

    :param strict: share of answers that every graded reward passes.
    :param soft: mean score over graded rewards and answers.
    :param rows: answers that at least one graded reward scored.
    """

    strict: float
    soft: float
    rows: int


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The rows' other columns as TRL hands them to a reward: one list per column."""
    names = {name for row in rows for name in row if name not in ("prompt", "completion")}
    return {name: [row.get(name) for row in rows] for name in sorted(names)}


def grade(
    rewards: Sequence[NamedReward], rows: Sequence[Row], completions: Sequence[Any]
) -> dict[str, Scores]:
    """The scores of every graded reward for answers to ``rows``, outside of any training."""
    results: dict[str, Scores] = {}
    prompts = [row["prompt"] for row in rows]
    for reward in rewards:
        if not reward.graded:
            continue
        columns: dict[str, Any] = columns_of(rows) | {
            "completion_ids": [[] for _ in rows],
            "trainer_state": None,
            "log_extra": lambda *args, **kwargs: None,
            "log_metric": lambda *args, **kwargs: None,
        }
        listener, reward.listener = reward.listener, None  # a measurement is not a rollout
        try:
            scores: Any = reward(prompts=prompts, completions=list(completions), **columns)
            if inspect.iscoroutine(scores):
                scores = _finish(scores)
            results[reward.__name__] = scores
        finally:
            reward.listener = listener
    return results


def _finish(scores: Coroutine[Any, Any, Scores]) -> Scores:
    """Wait for an ``async`` reward, in a notebook too, whose thread runs an event loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, scores).result()


def verdicts(rewards: Sequence[NamedReward], scores: Mapping[str, Scores]) -> list[bool | None]:
    """For each answer, whether every graded reward that scored passes it; None where none did."""
    bars = {reward.__name__: reward.passes_at for reward in rewards if reward.graded}
    found: list[bool | None] = []
    for row in zip(*(scores[name] for name in bars), strict=True):
        given = [
            score >= bar for score, bar in zip(row, bars.values(), strict=True) if score is not None
        ]
        found.append(all(given) if given else None)
    return found


def adherence(rewards: Sequence[NamedReward], scores: Mapping[str, Scores]) -> Adherence:
    """Strict and soft adherence from each graded reward's scores; abstentions do not count."""
    bars = {reward.__name__: reward.passes_at for reward in rewards if reward.graded}
    passed: list[bool] = []
    values: list[float] = []
    for row in zip(*(scores[name] for name in bars), strict=True):
        given = [
            (score, bar) for score, bar in zip(row, bars.values(), strict=True) if score is not None
        ]
        if given:
            passed.append(all(score >= bar for score, bar in given))
            values.append(sum(score for score, _ in given) / len(given))
    count = len(passed)
    if not count:
        return Adherence(0.0, 0.0, 0)
    return Adherence(sum(passed) / count, sum(values) / count, count)


class PassRates:
    """The share of passed answers per family, over the latest answers of each.

    Rewards report through :meth:`take`; a batch counts once all of them have.
    """

    def __init__(self, rewards: Sequence[NamedReward], window: int = 256) -> None:
        self.rewards = [reward for reward in rewards if reward.graded]
        self.window = window
        self.answers: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=window))
        self.rollouts = 0
        self.tokens = 0
        self.on_answers: OnAnswers | None = None
        self._pending: dict[str, Scores] = {}
        for reward in self.rewards:
            reward.listener = self.take

    def take(self, name: str, scores: Scores, columns: Mapping[str, Any]) -> None:
        """Receive one reward's scores for a batch of rollouts."""
        self._pending[name] = scores
        if len(self._pending) < len(self.rewards):
            return
        families = columns.get("family") or [None] * len(scores)
        bars = {reward.__name__: reward.passes_at for reward in self.rewards}
        verdicts: list[bool | None] = []
        for index, family in enumerate(families):
            given = [(self._pending[n][index], bar) for n, bar in bars.items()]
            if all(score is None for score, _ in given):
                verdicts.append(None)
                continue
            passed = all(score >= bar for score, bar in given if score is not None)
            verdicts.append(passed)
            self.answers[NO_FAMILY if family in (None, "") else str(family)].append(passed)
        if self.on_answers is not None:
            self.on_answers(columns, verdicts, self._sums(len(scores)))
        self.rollouts += len(scores)
        self.tokens += sum(len(ids) for ids in columns.get("completion_ids", ()))
        self._pending = {}

    def _sums(self, count: int) -> list[float | None]:
        """The weighted scores of a batch, over the graded rewards that scored."""
        weights = {reward.__name__: reward.weight for reward in self.rewards}
        sums: list[float | None] = []
        for index in range(count):
            given = [
                weight * score
                for name, weight in weights.items()
                if (score := self._pending[name][index]) is not None
            ]
            sums.append(sum(given) if given else None)
        return sums

    def rates(self) -> dict[str, float]:
        """The pass rate of every family that has been answered."""
        return {family: sum(seen) / len(seen) for family, seen in self.answers.items() if seen}

    def state_dict(self) -> dict[str, Any]:
        answers = {
            family: [int(passed) for passed in seen] for family, seen in self.answers.items()
        }
        return {"answers": answers, "rollouts": self.rollouts, "tokens": self.tokens}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.answers.clear()
        for family, seen in state["answers"].items():
            self.answers[family].extend(map(bool, seen))
        self.rollouts = state["rollouts"]
        self.tokens = state["tokens"]
