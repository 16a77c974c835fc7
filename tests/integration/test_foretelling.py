"""The start of a run says how long its phase will take, and measuring that leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from risen_plugin import RisenCallback, use
from risen_plugin.config import Weighted
from risen_plugin.phases.context import PhaseContext
from risen_plugin.run.foretelling import Foretelling

from .test_clean_room import same, surroundings, weights

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


@dataclass
class Counting:
    """A reward with a state: every answer that it has seen."""

    seen: int = 0

    def __call__(self, *, completions: list[Any], **columns: Any) -> list[float | None]:
        self.seen += len(completions)
        return [float(place % 2) for place in range(len(completions))]

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def broken(completions: list[Any], **columns: Any) -> list[float | None]:
    """A reward that fails as soon as it is asked."""
    raise RuntimeError("out of order")


class _StartedError(Exception):
    """The run has been foretold; nothing more is asked of it."""


def started(trainer: Any, config: Any) -> tuple[list[str], PhaseContext]:
    """The lines of a run whose start foretells, and the context that its phases would get.

    Fails if anything else than the lines remains of it.
    """
    lines: list[str] = []
    contexts: list[PhaseContext] = []
    callback = RisenCallback(config)
    tell = Foretelling(callback.run_state)

    def at_start(context: PhaseContext, folder: Path) -> PhaseContext:
        before = (weights(context.model), surroundings(context.model, context.tokenizer))
        contexts.append(tell(replace(context, say=lines.append), folder))
        assert same(before[0], weights(context.model))
        assert before[1] == surroundings(context.model, context.tokenizer)
        raise _StartedError

    callback.run_state.at_start = at_start
    callback.attach(trainer)
    with pytest.raises(_StartedError):
        trainer.train()
    return lines, contexts[0]


def test_a_run_says_how_long_its_phase_takes_and_is_as_before(
    make_model: Make, make_trainer: Make, config: Any
) -> None:
    adapted = get_peft_model(make_model(attention_dropout=0.1), LoraConfig(r=2), "mine")
    reward = Counting()
    made = config(
        scheduler=use("after", steps=50),
        rewards=[Weighted(reward)],
        grpo={"gradient_accumulation_steps": 2},
    )
    lines, told = started(make_trainer(adapted, max_steps=1), made)
    assert reward.seen == 0
    assert len(lines) == 1
    assert ": 50 steps of 16 answers (" in lines[0]
    assert told.foretold is not None
    assert told.foretold.expected.work.passes == 100
    assert told.foretold.way == "transformers"


def test_a_schedule_without_steps_is_not_foretold(
    make_model: Make, make_trainer: Make, config: Any
) -> None:
    lines, told = started(make_trainer(make_model(), max_steps=1), config())
    assert lines == []
    assert told.foretold is None


def test_what_cannot_be_measured_is_said_and_stops_no_run(
    make_model: Make, make_trainer: Make, config: Any
) -> None:
    made = config(scheduler=use("after", steps=2), rewards=[Weighted(broken, passes_at=0.5)])
    lines, told = started(make_trainer(make_model(), max_steps=1), made)
    assert len(lines) == 1
    assert lines[0].startswith("how long it takes is not known: reward 'broken'")
    assert told.foretold is None
