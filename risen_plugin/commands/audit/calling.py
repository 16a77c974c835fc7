"""Call a reward as TRL does, and record its scores, faults and times.

Decides nothing: an exception, a wrong number of scores or a score that is no number becomes a fault
of the answers that it concerns.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from risen_plugin.contracts import Failed, Row
from risen_plugin.errors import PluginError, typed_line
from risen_plugin.kit.foreign import interrupts_noted
from risen_plugin.kit.time_limit import limited
from risen_plugin.rewards.adherence import TrainingState
from risen_plugin.rewards.scores import check_scores

Form: TypeAlias = Literal["plain", "chat"]
Clock: TypeAlias = Callable[[], float]
BATCH = 64
_EXTRAS: Mapping[str, Any] = {
    "trainer_state": TrainingState(),
    "log_extra": lambda *args, **kwargs: None,
    "log_metric": lambda *args, **kwargs: None,
}


@dataclass(frozen=True)
class Item:
    """One answer to one instruction.

    :param row: the instruction: ``prompt`` and the columns that the reward reads.
    """

    row: Row
    answer: str


@dataclass(frozen=True)
class CallResult:
    """The score or fault of a reward for one answer.

    :param score: a finite number; None for an abstention and for a fault.
    :param fault: the kind of fault: ``crash``, ``count``, ``number``, or ``declined`` where the
        reward itself says that it could not judge; None if there was none.
    :param why: the fault, in one line.
    :param raw: the value that the reward returned.
    """

    score: float | None
    fault: str | None = None
    why: str = ""
    raw: object = None

    @property
    def abstained(self) -> bool:
        """Whether the reward had no opinion."""
        return self.score is None and self.fault is None


@dataclass
class Caller:
    """Calls one reward and remembers its results.

    :param form: whether prompts and answers are passed as text or as chat messages.
    :param clock: seconds, read before and after each call.
    :param limit_s: seconds after which one call is given up, where the platform can do so.
    """

    reward: Callable[..., Any]
    form: Form = "plain"
    clock: Clock = time.perf_counter
    limit_s: float = 10.0
    seen: list[tuple[Item, CallResult]] = field(default_factory=list)
    scored: int = 0
    per_answer_s: list[float] = field(default_factory=list)

    def choose_form(self, items: Sequence[Item]) -> str | None:
        """Pass text from here on, or chat messages where the reward cannot take text.

        :returns: why the reward takes neither; None where it takes one.
        """
        outcomes = self.outcomes(items)
        if any(outcome.fault != "crash" for outcome in outcomes):
            return None
        self.form = "chat"
        if any(outcome.fault != "crash" for outcome in self.outcomes(items)):
            self.seen.clear()
            return None
        return outcomes[0].why

    def raw(self, items: Sequence[Item], form: Form | None = None, **extra: Any) -> object:
        """The reward's return value for a batch; its exceptions pass through."""
        return self.pass_on(arguments(items, form or self.form) | extra)

    def pass_on(self, passed: Mapping[str, Any]) -> object:
        """The reward's return value for these arguments, awaited if need be."""
        count = len(passed["completions"])
        began = self.clock()
        pressed: list[int] = []
        try:
            with interrupts_noted() as pressed, limited(self.limit_s):
                result = self.reward(**passed)
                if inspect.isawaitable(result):
                    result = _finish(result)
        except SystemExit as error:  # else it would end the audit, and leave it looking clean
            raise RuntimeError(f"it ended the program: SystemExit({error.code!r})") from error
        except KeyboardInterrupt as error:
            if pressed:
                raise
            raise RuntimeError("it raised KeyboardInterrupt, which nobody pressed") from error
        except Exception:
            raise
        except BaseException as error:  # GeneratorExit, CancelledError: as above
            raise RuntimeError(typed_line(error)) from error
        self.scored += count
        if count:
            self.per_answer_s.append((self.clock() - began) / count)
        return result

    def outcomes(self, items: Sequence[Item], form: Form | None = None) -> list[CallResult]:
        """One outcome per item; after a fault in a batch its items are tried one at a time."""
        results: list[CallResult] = []
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            made = self._batch(batch, form)
            if len(batch) > 1 and any(outcome.fault in ("crash", "count") for outcome in made):
                alone = [self._batch([item], form)[0] for item in batch]
                if any(outcome.fault is None for outcome in alone):
                    made = alone
            results += made
        self.seen += zip(items, results, strict=True)
        return results

    def _batch(self, batch: Sequence[Item], form: Form | None) -> list[CallResult]:
        try:
            return read(self.raw(batch, form), len(batch))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  a stranger's reward may raise anything
            return [CallResult(None, "crash", typed_line(error))] * len(batch)


def read(scores: object, expected: int) -> list[CallResult]:
    """The results in a reward's return value for ``expected`` answers, one per answer."""
    try:
        if isinstance(scores, list | tuple) and len(scores) == expected:
            return [_one(score) for score in scores]
        return [
            CallResult(score, raw=score) for score in check_scores(scores, expected, "the reward")
        ]
    except PluginError as error:
        return [CallResult(None, "count", str(error), scores)] * expected


def _one(score: object) -> CallResult:
    if isinstance(score, Failed):
        return CallResult(None, "declined", score.reason, score)
    try:
        return CallResult(check_scores([score], 1, "the reward")[0], raw=score)
    except PluginError as error:
        return CallResult(None, "number", str(error), score)


def arguments(items: Sequence[Item], form: Form) -> dict[str, Any]:
    """The keyword arguments that TRL passes for these answers, made anew."""
    rows = [copy.deepcopy(dict(item.row)) for item in items]
    names = {name for row in rows for name in row if name not in ("prompt", "completion")}
    return {
        "prompts": [_as(form, "user", row.get("prompt", "")) for row in rows],
        "completions": [_as(form, "assistant", item.answer) for item in items],
        **{name: [row.get(name) for row in rows] for name in sorted(names)},
        "completion_ids": [list(_ids(item.answer)) for item in items],
        **_EXTRAS,
    }


@functools.lru_cache(maxsize=1024)  # so that the reward is timed, and not this
def _ids(answer: str) -> tuple[int, ...]:
    """Token ids of an answer: a word or mark is a token, and the end is one.

    No tokenizer is at hand; rewards by token ids count them, or compare them with each other.
    """
    words = re.findall(r"\w+|[^\w\s]", answer)
    return (*(1 + zlib.crc32(word.encode(errors="replace")) % 32_000 for word in words), 0)


def _as(form: Form, role: str, text: object) -> object:
    if form == "plain" or not isinstance(text, str):
        return text
    return [{"role": role, "content": text}]


def _finish(result: Awaitable[object]) -> object:
    """Wait for an ``async`` reward, also where an event loop runs already."""

    async def awaited() -> object:
        return await result

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, awaited()).result()
