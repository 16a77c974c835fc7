"""Call rewards: ``async`` ones side by side, each under its time limit, so that none hangs a run.

A call that runs past its limit is left behind in a daemon thread, which does not stop the process
from ending. Judging the scores is left to ``scores``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from risen_plugin.contracts import Failed
from risen_plugin.errors import PluginError
from risen_plugin.rewards.named import NamedReward
from risen_plugin.rewards.scores import Scores

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
