"""Rewards are called side by side where they can be, and none keeps a run waiting."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from risen_plugin import Failed
from risen_plugin.config.choices import Grading
from risen_plugin.errors import DataError, PluginError
from risen_plugin.rewards.calling import NamedReward, call_all, wrap
from risen_plugin.rewards.scores import Scores

LONG = 30.0  # seconds that no test ever waits
SHORT = 0.05


def named(reward: Callable[..., Any], name: str = "mine", **settings: Any) -> NamedReward:
    return wrap(reward, name, f"reward '{name}'", Grading(**settings))


def called(*rewards: NamedReward, count: int = 2) -> dict[str, Scores]:
    answers = ["x"] * count
    return call_all(rewards, lambda reward: {"prompts": answers, "completions": answers}, count)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def test_results_come_in_the_order_of_the_rewards() -> None:
    async def later(**columns: Any) -> list[float]:
        return [2.0, 2.0]

    found = called(named(later, "a"), named(lambda **columns: [1.0, None], "b"))
    assert list(found.items()) == [("a", [2.0, 2.0]), ("b", [1.0, None])]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_reward_that_raises_what_ends_programs_is_an_error_of_its_own(
    kind: type[BaseException],
) -> None:
    def ending(**columns: Any) -> list[float]:
        raise kind

    async def ending_later(**columns: Any) -> list[float]:
        raise kind

    for reward in (named(ending), named(ending_later)):
        with pytest.raises(PluginError, match=f"reward 'mine' raised {kind.__name__}"):
            called(reward)


def test_async_rewards_run_side_by_side() -> None:
    met: list[asyncio.Event] = []

    def meeting(name: str) -> NamedReward:
        """Returns once the other one has come to the same place."""

        async def meet(**columns: Any) -> list[float]:
            if not met:
                met.append(asyncio.Event())
                await asyncio.wait_for(met[0].wait(), LONG)
            else:
                met[0].set()
            return [1.0, 1.0]

        return named(meet, name)

    assert called(meeting("a"), meeting("b")) == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_an_async_reward_meets_the_same_event_loop_at_each_call() -> None:
    loops: set[int] = set()

    async def where(**columns: Any) -> list[float]:
        loops.add(id(asyncio.get_running_loop()))
        return [1.0, 1.0]

    reward = named(where)
    called(reward)
    called(reward)
    assert len(loops) == 1


def raising(**columns: Any) -> list[float]:
    raise DataError("row 3 is odd")


async def raising_later(**columns: Any) -> list[float]:
    raise TimeoutError("the endpoint")


@pytest.mark.parametrize(
    ("reward", "reason"),
    [
        (raising, "row 3 is odd"),
        (raising_later, "raised TimeoutError: the endpoint"),
        (lambda **columns: [1.0], "returned 1 scores for 2 completions; it must return one per"),
        (lambda **columns: [1.0, float("nan")], "returned nan for completion 1"),
        (lambda **columns: None, "returned NoneType, not a list of scores"),
    ],
)
@pytest.mark.parametrize("timeout_s", [None, LONG])
def test_a_reward_that_fails_stops_the_run_or_is_an_error_on_each_completion(
    reward: Callable[..., Any], reason: str, timeout_s: float | None
) -> None:
    with pytest.raises((PluginError, DataError)) as caught:
        called(named(reward, timeout_s=timeout_s))
    assert str(caught.value).startswith("reward 'mine'")
    assert reason in str(caught.value)
    found = called(named(reward, timeout_s=timeout_s, on_error="skip"))["mine"]
    assert [isinstance(score, Failed) for score in found] == [True, True]
    assert isinstance(found[0], Failed)
    assert found[0].reason.startswith(reason)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_rewards_own_word_that_it_failed_concerns_one_completion(on_error: Any) -> None:
    own = Failed("unreadable verdict")
    assert called(named(lambda **columns: [own, 1.0], on_error=on_error))["mine"] == [own, 1.0]


def test_a_reward_in_a_thread_has_its_scores_within_the_limit() -> None:
    where: list[threading.Thread] = []

    def mine(**columns: Any) -> list[float]:
        where.append(threading.current_thread())
        return [1.0, 0.0]

    assert called(named(mine, timeout_s=LONG)) == {"mine": [1.0, 0.0]}
    assert where[0] is not threading.main_thread()
    called(named(mine))
    assert where[1] is threading.current_thread()


def test_a_reward_that_takes_too_long_is_an_error_and_is_not_called_twice_at_a_time(
    gate: threading.Event,
) -> None:
    calls: list[int] = []
    ended = threading.Event()

    def slow(**columns: Any) -> list[float]:
        calls.append(1)
        gate.wait(LONG)
        ended.set()
        return [1.0, 1.0]

    skipped = named(slow, timeout_s=SHORT, on_error="skip")
    for reason in ("took longer than timeout_s = 0.05", "is still busy with a call that took"):
        failed = called(skipped)["mine"][0]
        assert isinstance(failed, Failed)
        assert failed.reason.startswith(reason)
    assert len(calls) == 1
    gate.set()
    assert ended.wait(LONG)
    assert called(skipped) == {"mine": [1.0, 1.0]}


def test_a_slow_reward_that_stops_on_errors_is_named_with_its_limit(gate: threading.Event) -> None:
    def slow(**columns: Any) -> list[float]:
        gate.wait(LONG)
        return [1.0, 1.0]

    with pytest.raises(PluginError, match=r"^reward 'mine' took longer than timeout_s = 0\.05$"):
        called(named(slow, timeout_s=SHORT))


def test_a_slow_async_reward_is_given_up_and_the_others_keep_their_scores() -> None:
    given_up = threading.Event()

    async def slow(**columns: Any) -> list[float]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.set()
            raise
        return [1.0, 1.0]

    async def quick(**columns: Any) -> list[float]:
        return [0.0, 1.0]

    found = called(named(slow, "slow", timeout_s=SHORT, on_error="skip"), named(quick, "quick"))
    assert [isinstance(score, Failed) for score in found["slow"]] == [True, True]
    assert found["quick"] == [0.0, 1.0]
    assert given_up.wait(LONG)


def test_an_async_reward_that_blocks_its_loop_keeps_only_its_own_call_waiting(
    gate: threading.Event,
) -> None:
    async def blocks(**columns: Any) -> list[float]:
        gate.wait(LONG)
        return [1.0, 1.0]

    async def quick(**columns: Any) -> list[float]:
        return [0.0, 1.0]

    found = called(named(blocks, timeout_s=SHORT, on_error="skip"))
    assert isinstance(found["mine"][0], Failed)
    assert called(named(quick, timeout_s=LONG)) == {"mine": [0.0, 1.0]}


def test_a_reward_that_stops_the_run_takes_the_async_ones_with_it() -> None:
    given_up = threading.Event()

    async def fails(**columns: Any) -> list[float]:
        raise ValueError("down")

    async def waits(**columns: Any) -> list[float]:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return [1.0, 1.0]

    with pytest.raises(PluginError, match="reward 'a' raised ValueError: down"):
        called(named(fails, "a"), named(waits, "b"))
    assert given_up.wait(LONG)


def test_a_call_that_never_ends_does_not_keep_the_process_from_ending() -> None:
    code = """
        import asyncio, threading
        from risen_plugin.config.choices import Grading
        from risen_plugin.rewards.calling import call_all
        from risen_plugin.rewards.calling import wrap

        def stuck(**columns):
            threading.Event().wait()

        async def stuck_later(**columns):
            threading.Event().wait()

        rewards = [
            wrap(reward, name, name, Grading(timeout_s=0.05, on_error="skip"))
            for name, reward in (("plain", stuck), ("async", stuck_later))
        ]
        found = call_all(rewards, lambda reward: {"prompts": ["p"], "completions": ["c"]}, 1)
        print({name: scores[0].reason for name, scores in found.items()})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    too_slow = "took longer than timeout_s = 0.05"
    assert done.stdout.strip() == str({"plain": too_slow, "async": too_slow})
    assert done.stderr == ""
