"""Ask a scheduler, and hold its answer to the contract. Pure but for the scheduler's own doing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from risen_plugin.contracts import Decision, PhaseKind, PhaseRecord, Progress, Scheduler
from risen_plugin.errors import PluginError, boundary

_NAMES: Mapping[PhaseKind, str] = {
    "fine_tune": "stretch of fine-tuning",
    "risen": "RISEN phase",
    "burst": "burst",
}


def decide(scheduler: Scheduler, progress: Progress, label: str) -> Decision:
    """The scheduler's decision.

    :raises PluginError: naming the scheduler, if it raises or returns what is no decision.
    """
    with boundary(label):
        decision: Any = scheduler(progress)
    if not isinstance(decision, Decision):
        raise PluginError(f"{label} returned {type(decision).__name__}, not a Decision")
    if decision.phase not in _NAMES:
        raise PluginError(
            f"{label} chose the phase {decision.phase!r}; there are 'fine_tune', 'risen' and "
            "'burst'"
        )
    if decision.phase != "fine_tune" and (
        not isinstance(decision.steps, int) or decision.steps < 1
    ):
        raise PluginError(
            f"{label} wants a {_NAMES[decision.phase]} of {decision.steps!r} steps; it is a whole "
            "number from 1"
        )
    if not isinstance(decision.parameters, Mapping):
        raise PluginError(f"{label} returned parameters that are no mapping")
    return decision


def timeline(records: tuple[PhaseRecord, ...], step: int) -> tuple[PhaseRecord, ...]:
    """``records`` with the present fine-tuning stretch, as it is at ``step``, at their end."""
    begun = 0
    if records:
        last = records[-1]
        begun = last.at_step + (last.steps if last.kind == "fine_tune" else 0)
    present = PhaseRecord("fine_tune", step - begun, begun, "the run's own steps")
    return (*records, present)
