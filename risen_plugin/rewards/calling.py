"""Call rewards under their names: ``async`` ones side by side, each under its time limit.

A reward is wrapped under its configured name, keeps TRL's call shape, and its scores are checked. A
call that runs past its limit is left behind in a daemon thread, which does not stop the process
from ending, so that none hangs a run.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from risen_plugin.config.choices import Grading
from risen_plugin.contracts import Completion, Failed, Prompt
from risen_plugin.errors import PluginError, boundary, typed_line
from risen_plugin.rewards.scores import Scores, check_scores

Arguments = Mapping[str, Any]
_ANSWERS_S = 0.5  # an event loop that does not react within this is blocked


def call_all(
    rewards: Sequence[NamedReward], arguments: Callable[[NamedReward], Arguments], count: int
) -> dict[str, Scores]:
    """The scores of each reward for ``count`` completions, by its name.

    Plain rewards are called in turn, then the ``async`` ones side by side.

    :param arguments: the arguments to call a reward with.
    :raises RisenError: if a reward that stops on errors raises, is too slow or returns nonsense.
    """
    scores: dict[str, Scores] = {}
    waiting: list[NamedReward] = []
    for reward in rewards:
        if reward.is_async:
            waiting.append(reward)
        else:
            ask = partial(_call, reward, arguments(reward))
            scores[reward.__name__] = _settled(reward, count, ask)
    with _Pending((reward, arguments(reward)) for reward in waiting) as pending:
        for reward in waiting:
            scores[reward.__name__] = _settled(reward, count, partial(pending.wait, reward))
    return {reward.__name__: scores[reward.__name__] for reward in rewards}


def _settled(reward: NamedReward, count: int, ask: Callable[[], Scores]) -> Scores:
    """The reward's scores; an error for each completion if it fails and its errors are skipped."""
    try:
        return ask()
    except Exception as error:  # a reward may raise anything; NamedReward says whose it is
        if reward.grading.on_error == "stop":
            raise
        reason = " ".join(str(error).removeprefix(reward.label).strip(": ").split())
        return [Failed(reason)] * count


def _too_slow(reward: NamedReward) -> PluginError:
    return PluginError(f"{reward.label} took longer than timeout_s = {reward.grading.timeout_s:g}")


# Plain rewards

_busy: WeakKeyDictionary[NamedReward, threading.Thread] = WeakKeyDictionary()
"""The thread of each reward's latest call under a limit; a reward has one at a time."""


def _call(reward: NamedReward, arguments: Arguments) -> Scores:
    if reward.grading.timeout_s is None:
        return reward(**arguments)
    earlier = _busy.get(reward)
    if earlier is not None:
        earlier.join(reward.grading.timeout_s)
        if earlier.is_alive():
            raise PluginError(
                f"{reward.label} is still busy with a call that took longer than "
                f"timeout_s = {reward.grading.timeout_s:g}"
            )
    answer: Future[Scores] = Future()
    thread = threading.Thread(target=_answer, args=(reward, arguments, answer), daemon=True)
    _busy[reward] = thread
    thread.start()
    try:
        return answer.result(reward.grading.timeout_s)
    except TimeoutError as error:
        if answer.done():  # at the last moment
            return answer.result()
        raise _too_slow(reward) from error


def _answer(reward: NamedReward, arguments: Arguments, answer: Future[Scores]) -> None:
    try:
        answer.set_result(reward(**arguments))
    except BaseException as error:  # noqa: BLE001 it is raised again where it is waited for
        answer.set_exception(error)


# Async rewards


class _Pending:
    """Calls of ``async`` rewards under way; those that still run at the end are cancelled."""

    def __init__(self, calls: Iterable[tuple[NamedReward, Arguments]]) -> None:
        self.started = time.monotonic()
        self.futures: dict[str, Future[Scores]] = {}
        for reward, arguments in calls:
            scores: Any = reward(**arguments)  # an async reward returns an awaitable
            pending = asyncio.run_coroutine_threadsafe(scores, _loop.running())
            self.futures[reward.__name__] = pending

    def wait(self, reward: NamedReward) -> Scores:
        future = self.futures[reward.__name__]
        limit = reward.grading.timeout_s
        left_s = None if limit is None else max(0.0, self.started + limit - time.monotonic())
        try:
            return future.result(left_s)
        except TimeoutError as error:
            if future.done():  # at the last moment
                return future.result()
            raise _too_slow(reward) from error
        except CancelledError as error:  # by the reward itself
            raise PluginError(f"{reward.label} cancelled its own call") from error

    def __enter__(self) -> _Pending:
        return self

    def __exit__(self, *exception: object) -> None:
        running = [future for future in self.futures.values() if not future.done()]
        for future in running:
            future.cancel()
        if running:
            _loop.replace_if_blocked()


class _Loop:
    """One event loop for all ``async`` rewards, in a thread of its own.

    It stays the same from call to call, since clients that keep connections are bound to theirs,
    and it works in a notebook, whose own thread runs a loop already.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None

    def running(self) -> asyncio.AbstractEventLoop:
        if self.loop is None or self.thread is None or not self.thread.is_alive():
            self.loop = asyncio.new_event_loop()
            self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
            self.thread.start()
        return self.loop

    def replace_if_blocked(self) -> None:
        """Leave a loop behind that a reward blocks, so that the next call need not wait for it."""
        if self.loop is None:
            return
        reacted = threading.Event()
        self.loop.call_soon_threadsafe(reacted.set)
        if not reacted.wait(_ANSWERS_S):
            self.loop = None


_loop = _Loop()


_FROM_TRL = frozenset(
    ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
)  # TRL hands these to every reward, whatever columns the rows have


class NamedReward:
    """A reward under its configured name; call it as TRL calls a reward function.

    :param label: whose reward it is, for messages.
    :param grading: how it counts; None for the defaults.
    """

    def __init__(
        self, reward: Callable[..., Any], name: str, label: str, grading: Grading | None = None
    ) -> None:
        self.reward = reward
        self.__name__ = name  # TRL logs rewards/<name>
        self.label = label
        self.grading = grading or Grading()

    def limit(self, timeout_s: float) -> None:
        """Give each call from now on so many seconds at the most."""
        self.grading = replace(self.grading, timeout_s=timeout_s)

    is_async = False

    @property
    def weight(self) -> float:
        """The weight in the sum that is reinforced."""
        return self.grading.weight

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that the reward needs: its ``needs``, and its arguments without a default."""
        names = getattr(self.reward, "needs", ())
        named = (names,) if isinstance(names, str) else tuple(names)
        asked = [name for name in _asked_by_name(self.reward) if name not in _FROM_TRL]
        return (*named, *(name for name in asked if name not in named))

    @property
    def takes_ids(self) -> bool:
        """Whether the reward looks at the token ids of answers, by an argument without default."""
        return "completion_ids" in _asked_by_name(self.reward)

    def __call__(
        self, *, prompts: list[Prompt], completions: list[Completion], **columns: Any
    ) -> Scores:
        with _called(self.label):
            scores = self.reward(prompts=prompts, completions=completions, **columns)
            return check_scores(scores, len(completions), self.label)


@contextmanager
def _called(label: str) -> Iterator[None]:
    """A boundary for calls: an interrupt that nobody pressed is an error of the reward."""
    from risen_plugin.kit.foreign import contained

    with (
        boundary(label),
        contained(lambda error: PluginError(f"{label} raised {typed_line(error)}")),
    ):
        yield


def _asked_by_name(reward: Callable[..., Any]) -> list[str]:
    """The arguments without a default that a reward function takes by name."""
    try:
        parameters = inspect.signature(reward).parameters.values()
    except (TypeError, ValueError):  # a callable without a readable signature
        return []
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind in by_name and parameter.default is inspect.Parameter.empty
    ]


class AsyncNamedReward(NamedReward):
    """The same for an ``async`` reward; those are awaited side by side."""

    is_async = True

    async def __call__(  # type: ignore[override]  # TRL asks which kind it is before calling
        self, *, prompts: list[Prompt], completions: list[Completion], **columns: Any
    ) -> Scores:
        with _called(self.label):
            pending: Any = self.reward(prompts=prompts, completions=completions, **columns)
            scores = await pending
            return check_scores(scores, len(completions), self.label)


def wrap(
    reward: Callable[..., Any], name: str, label: str, grading: Grading | None = None
) -> NamedReward:
    """The wrapper that fits a plain or an ``async`` reward."""
    call = getattr(reward, "__call__", reward)  # noqa: B004 the bound method shows if it is async
    is_async = inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(call)
    return (AsyncNamedReward if is_async else NamedReward)(reward, name, label, grading)
