"""What several processes tell each other; here they are threads that meet at a barrier."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from risen_plugin.config.choices import Grading
from risen_plugin.config.grpo import rows_per_batch
from risen_plugin.errors import ConfigError, PluginError, RisenError
from risen_plugin.kit.processes import ALONE, OtherProcessError, Processes, is_everywhere
from risen_plugin.rewards.calling import wrap
from risen_plugin.rewards.panel import Panel
from risen_plugin.run.fitness import limit_rewards


class Threads(Processes):
    """Two or more processes, each in a thread of its own."""

    def __init__(self, rank: int, board: list[bytes], barrier: threading.Barrier) -> None:
        super().__init__(rank, len(board))
        self.board = board
        self.barrier = barrier

    def exchange(self, value: bytes) -> list[bytes]:
        self.board[self.rank] = value
        self.barrier.wait()
        received = list(self.board)
        self.barrier.wait()
        return received


def side_by_side(work: Callable[[Processes], Any], count: int = 2) -> list[Any]:
    """What ``work`` returns or raises in each process."""
    board = [b""] * count
    barrier = threading.Barrier(count, timeout=30)
    found: list[Any] = [None] * count

    def run(rank: int) -> None:
        try:
            found[rank] = work(Threads(rank, board, barrier))
        except Exception as error:  # noqa: BLE001 what each process raises is what is tested
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_every_process_gets_the_results_of_all_in_order() -> None:
    assert side_by_side(lambda p: p.gather(lambda: p.rank * 10), 3) == [[0, 10, 20]] * 3


def test_the_main_process_works_for_all_and_its_value_is_agreed_on() -> None:
    asked: list[int] = []

    def work(processes: Processes) -> Any:
        done = processes.main(lambda: asked.append(processes.rank) or "done")
        return done, processes.agree(f"clock {processes.rank}")

    assert side_by_side(work) == [("done", "clock 0")] * 2
    assert asked == [0]


def test_rows_are_shared_out_and_joined_in_their_order() -> None:
    rows = list(range(7))

    def work(processes: Processes) -> Any:
        return processes.joined(processes.gather(lambda: processes.share(rows)))

    for count in (2, 3, 8):
        assert side_by_side(work, count) == [rows] * count


@pytest.mark.parametrize("failing", [{0}, {1}, {0, 1}])
def test_an_error_of_one_process_is_raised_in_all_and_says_whose_it_is(failing: set[int]) -> None:
    def work(processes: Processes) -> Any:
        def score() -> None:
            if processes.rank in failing:
                raise PluginError("reward 'x' is down")

        return processes.gather(score)

    for error in side_by_side(work):
        assert type(error) is PluginError
        assert str(error) == f"reward 'x' is down (in process {min(failing)})"
        assert is_everywhere(error)


def test_what_does_not_travel_is_made_in_each_process_or_in_none() -> None:
    made = side_by_side(lambda processes: processes.together(lambda: lambda: processes.rank))
    assert [made_here() for made_here in made] == [0, 1]

    def work(processes: Processes) -> Any:
        return processes.together(lambda: 1 // processes.rank)

    assert [type(error) for error in side_by_side(work)] == [ZeroDivisionError, OtherProcessError]


def test_a_bug_keeps_its_kind_where_it_happened_and_is_told_elsewhere() -> None:
    def work(processes: Processes) -> Any:
        return processes.main(lambda: 1 // 0)

    first, second = side_by_side(work)
    assert isinstance(first, ZeroDivisionError)
    assert isinstance(second, OtherProcessError)
    assert str(second) == "process 0 stopped: ZeroDivisionError: integer division or modulo by zero"
    assert not isinstance(second, RisenError)


def test_what_cannot_travel_stops_all_instead_of_leaving_them_waiting() -> None:
    def work(processes: Processes) -> Any:
        return processes.agree(lambda: None)

    assert all(isinstance(error, Exception) for error in side_by_side(work))


def test_alone_nothing_travels_and_errors_are_as_they_were() -> None:
    held = object()
    assert ALONE.agree(held) is held
    with pytest.raises(PluginError) as caught:
        ALONE.gather(lambda: _raise(PluginError("down")))
    assert str(caught.value) == "down"
    assert not is_everywhere(caught.value)


def _raise(error: Exception) -> None:
    raise error


def test_a_group_that_is_spread_over_processes_is_judged_as_one() -> None:
    """Two answers in each process, four to a group; the one that abstains leaves the reward out."""

    def work(processes: Processes) -> Any:
        def score(completions: list[str], **columns: Any) -> list[float | None]:
            return [None if text == "c" else float(ord(text)) for text in completions]

        heard: list[Any] = []
        other = wrap(lambda completions, **_: [1.0] * len(completions), "other", "reward 'other'")
        panel = Panel([wrap(score, "score", "reward 'score'"), other], listeners=[heard.append])
        panel.begin(group=4, processes=processes)
        mine = ["ab", "cd"][processes.rank]
        given = {"prompts": ["p", "p"], "completions": list(mine), "family": list(mine)}
        values = [column(**given) for column in panel.trl_rewards]
        return values, [(batch.completions, batch.columns["family"]) for batch in heard]

    for values, heard in side_by_side(work):
        assert values == [[None, None], [1.0, 1.0]]
        assert heard == [(list("abcd"), list("abcd"))]


def test_the_rows_of_a_generation_batch_are_those_of_all_processes() -> None:
    settings = {"per_device_train_batch_size": 8, "num_generations": 4}
    assert rows_per_batch(settings) == 2
    assert rows_per_batch(settings, 3) == 6
    assert rows_per_batch({**settings, "steps_per_generation": 2}, 2) == 8
    assert rows_per_batch({**settings, "generation_batch_size": 16}, 2) == 4


def test_a_reward_that_others_wait_for_has_a_time_limit() -> None:
    free = wrap(lambda **_: [], "free", "reward 'free'")
    own = wrap(lambda **_: [], "own", "reward 'own'", Grading(timeout_s=30.0))
    limit_rewards([free, own], 1800.0, 1)
    assert free.grading.timeout_s is None
    limit_rewards([free, own], 1800.0, 2)
    assert (free.grading.timeout_s, own.grading.timeout_s) == (900.0, 30.0)
    with pytest.raises(ConfigError, match="reward 'own' has timeout_s = 30, but the other proc"):
        limit_rewards([own], 30.0, 2)
