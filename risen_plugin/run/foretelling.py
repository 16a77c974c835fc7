"""Say at the start of a run of one phase how long that phase will take.

The start of a run calls :class:`Foretelling` where a command asked for it. The pace is measured by
``phases.timing``, and ``phases.duration`` makes seconds of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from risen_plugin.config import effective_grpo
from risen_plugin.config.grpo import answers_per_step
from risen_plugin.errors import RisenError, one_line
from risen_plugin.guard.looks import RowPlan, plan_rows
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.duration import Expected, Foretold, Work, expected, work_of
from risen_plugin.phases.timing import timed
from risen_plugin.run.state import RunState

Choose: TypeAlias = Callable[[int, Callable[[int], Expected]], int]
"""The steps of a phase, of those that were asked for and what so many are expected to take."""


@dataclass(frozen=True)
class Foretelling:
    """Foretells the first phase of a run whose scheduler names its steps beforehand.

    Nothing is said of a run of several processes or with vLLM, which are not measured.

    :param choose: chooses the steps of the phase by the time that they take; None leaves them.
    :param own_rows: counts the rows that the model answers for a probe when the run starts.
    """

    run_state: RunState
    own_rows: Callable[[], int] = int
    choose: Choose | None = None

    def __call__(self, context: PhaseContext, folder: Path) -> PhaseContext:
        """Measure, and say one line.

        :param folder: for the files of a sampler.
        """
        steps = getattr(self.run_state.parts.schedule, "steps", None)
        parameters = getattr(self.run_state.parts.schedule, "parameters", None)
        grpo = effective_grpo(context.config.grpo, parameters)
        if not isinstance(steps, int) or context.processes.count > 1 or grpo.get("use_vllm"):
            return context
        try:
            measured = timed(context, grpo, steps, folder)
        except (RisenError, torch.OutOfMemoryError) as error:
            context.say(f"how long it takes is not known: {one_line(error)}")
            return context

        def expect(count: int) -> Expected:
            work = self.work(context, grpo, count)
            return expected(measured.pace, work, context.config.control)

        if self.choose is not None:
            steps = self.choose(steps, expect)
            self.run_state.take_steps(steps)
        told = expect(steps)
        context.say(str(told))
        foretold = Foretold(told, time.perf_counter(), measured.way, measured.reason)
        return replace(context, foretold=foretold)

    def work(self, context: PhaseContext, grpo: Mapping[str, Any], steps: int) -> Work:
        """What a phase of so many steps does."""
        config, held_out = context.config, context.instructions.held_out
        guard, rollout = config.guard, config.rollout
        rows = plan_rows(guard, len(held_out.guard), round(steps * answers_per_step(grpo)))
        if rollout.guard and rollout.is_outside:
            rows = RowPlan((rows.most,))
        beside = len(held_out.report) + len(held_out.unseen)
        beside += sum(len(task.rows) for task in context.tasks)
        own = self.own_rows()
        probe = own or len(context.probe)
        return work_of(
            steps,
            grpo,
            guard,
            rows,
            beside=beside,
            own=own,
            probe=probe,
            anchor=config.anchor,
            mending=config.mending,
        )
