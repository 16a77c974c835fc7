"""A generation batch is one object for all listeners, and nothing is computed twice from it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from risen_plugin import RisenConfig, Weighted
from risen_plugin.config.choices import Grading
from risen_plugin.contracts import Decision, Failed
from risen_plugin.rewards import batch as batch_module
from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.calling import wrap
from risen_plugin.rewards.tripwires import WIRES, watch
from risen_plugin.run.state import RunState

RIGHT = wrap(lambda **_: [], "right", "reward 'right'")
STYLE = wrap(lambda **_: [], "style", "reward 'style'", Grading(graded=False, weight=0.5))


def batch_of(**changes: Any) -> Batch:
    fields: dict[str, Any] = {
        "step": 3,
        "prompts": ["p", "p", "q", "q"],
        "completions": ["a", "b", "c", "[your name] writes"],
        "columns": {"family": ["f", "f", "g", "g"], "completion_ids": [[1], [1, 2], [], [3]]},
        "scores": {"right": [1.0, 0.0, Failed("down"), 1.0], "style": [1.0, None, 1.0, 0.0]},
        "rewards": [RIGHT, STYLE],
        "group": 2,
    }
    return Batch(**fields | changes)


def test_what_follows_from_the_scores_is_read_off_the_batch() -> None:
    batch = batch_of()
    assert batch.verdicts == [True, False, None, True]
    assert batch.totals == [1.5, 0.0, None, 1.0]
    assert batch.groups == [range(2), range(2, 4)]
    assert batch.tokens == 4
    assert batch.rows[2] == {"prompt": "q", "family": "g"}
    assert batch.tripped == [(), (), (), ("placeholders",)]


@pytest.mark.parametrize(
    ("prompts", "groups"),
    [("ppq", [range(2), range(2, 3)]), ("pqp", [range(1), range(1, 2), range(2, 3)]), ("", [])],
)
def test_without_a_size_each_stretch_of_equal_prompts_is_a_group(
    prompts: str, groups: list[range]
) -> None:
    batch = batch_of(prompts=list(prompts), completions=[""] * len(prompts), group=None)
    assert batch.groups == groups


def test_a_batch_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch_of().step = 4  # type: ignore[misc]


def test_the_listeners_of_a_run_have_verdicts_and_totals_computed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        of = getattr(batch_module, name)

        def counted(*arguments: Any) -> Any:
            calls[name] += 1
            return of(*arguments)

        return counted

    for name in ("verdicts", "totals", "tripped"):
        monkeypatch.setattr(batch_module, name, counting(name))

    def half(completions: list[str], **columns: Any) -> list[float]:
        return [float(place % 2) for place in range(len(completions))]

    config = RisenConfig(
        rewards=[Weighted(half)],
        generator=lambda count, seed, **_: [{"prompt": f"p{seed}"}] * count,
        scheduler=lambda progress: Decision("fine_tune"),
    )
    run = RunState(config)
    run.panel.begin(group=2)
    [reward] = run.panel.trl_rewards
    reward(prompts=[*"ppqq"], completions=[*"wxyz"], completion_ids=[[1]] * 4)
    assert calls == {"verdicts": 1, "totals": 1, "tripped": 4}, "each wire once on each answer"
    assert run.pass_rates.rates() == {"all": 0.5}


def test_each_wire_runs_once_on_each_measured_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def wire(answer: Any) -> bool:
        seen.append(answer.answer)
        return bool(answer.answer == "b")

    monkeypatch.setitem(WIRES, "counted", wire)  # type: ignore[arg-type]
    told = watch([{"prompt": "p"}] * 2, ["a", "b"])
    assert seen == ["a", "b"]
    assert (told.rate, list(told.by_answer)) == (0.5, [(), ("counted",)])
