"""The measurements that a replayed phase is assumed to have: those of a recorded one. Pure.

The n-th RISEN phase makes the changes of the run's n-th. These are assumptions, since no record
shows how another order would have measured; a replay in the run's own order needs none.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from risen_plugin.commands.simulate.trace import Trace
from risen_plugin.contracts import Decision, PhaseRecord
from risen_plugin.kit.jsonable import as_count, as_number, as_seconds
from risen_plugin.progress import GUARD_S, SECONDS, held_by_model, seconds_of

COUNTED = ("rollouts", "tokens")
"""Metrics that grow with the steps of a phase."""


def measured(
    trace: Trace, past: list[PhaseRecord], decision: Decision, step: int
) -> tuple[PhaseRecord, int | None]:
    """The phase that was decided on, with the measurements of a recorded one, and its number."""
    recorded = trace.of_kind(decision.phase)
    done = sum(phase.kind == decision.phase for phase in past)
    bare = PhaseRecord(decision.phase, decision.steps, step, decision.reason)
    if not recorded:
        accepted = True if decision.phase == "risen" else None
        seconds = trace.fine_tune_seconds(step) * decision.steps / step
        alone = {SECONDS: seconds} if decision.phase == "burst" else {}
        return dataclasses.replace(bare, accepted=accepted, metrics=alone), None
    number = min(done, len(recorded) - 1)
    like = recorded[number]
    factor = decision.steps / max(like.steps, 1)
    metrics = _scaled(like, factor)
    if decision.phase == "risen":
        earlier = [phase for phase in past if phase.kind == "risen"]
        metrics |= _levels(recorded, earlier, number, step=step, factor=factor)
    return dataclasses.replace(bare, accepted=like.accepted, metrics=metrics), (
        number + 1 if done == number else None
    )


def _scaled(like: PhaseRecord, factor: float) -> dict[str, Any]:
    """The metrics of a recorded phase, those that grow with its steps multiplied by ``factor``.

    The seconds of measuring before and after stay; the other seconds grow.
    """
    metrics = {**like.metrics, SECONDS: seconds_of(like)}
    measuring = min(as_seconds(like.metrics.get(GUARD_S)) or 0.0, metrics[SECONDS])
    metrics[SECONDS] = measuring + factor * (metrics[SECONDS] - measuring)
    for name in COUNTED:
        value = as_count(like.metrics.get(name))
        if value is not None:
            metrics[name] = round(factor * value)
    return metrics


def _levels(
    recorded: list[PhaseRecord],
    earlier: list[PhaseRecord],
    number: int,
    *,
    step: int,
    factor: float,
) -> dict[str, float]:
    """The measurements before and after the next phase, by the changes of the recorded one.

    Where the replay follows the run, these are the run's own numbers. The fine-tuning before
    the phase changes as much per step as it did in the run, and no more in all; a shorter phase
    gains its share, a longer one no more. After the last recorded phase nothing more is gained.
    """
    like = recorded[number]
    levels = {}
    for name in (key.removesuffix("_before") for key in like.metrics if key.endswith("_before")):
        before = as_number(like.metrics[f"{name}_before"])
        if before is None:
            continue
        after = as_number(like.metrics.get(f"{name}_after"))
        gain = 0.0 if after is None else min(factor, 1.0) * (after - before)
        if earlier:
            left = held_by_model(earlier[-1], name)
            if len(earlier) > number:
                before, gain = before if left is None else left, 0.0
            else:
                as_run = held_by_model(recorded[number - 1], name)
                share = (step - earlier[-1].at_step) / max(
                    like.at_step - recorded[number - 1].at_step, 1
                )
                if left is not None and as_run is not None:
                    before = left + min(share, 1.0) * (before - as_run)
        levels[f"{name}_before"] = _possible(name, before, like)
        if after is not None:
            levels[f"{name}_after"] = _possible(name, before + gain, like)
    return levels


def _possible(name: str, value: float, like: PhaseRecord) -> float:
    """``value`` as a share if it is an adherence; the recorded number if only rounding differs."""
    for when in ("before", "after"):
        recorded = as_number(like.metrics.get(f"{name}_{when}"))
        if recorded is not None and math.isclose(value, recorded, rel_tol=1e-9, abs_tol=1e-12):
            return recorded
    return min(max(value, 0.0), 1.0) if "adherence" in name else value
