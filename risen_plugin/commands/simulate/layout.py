"""Lay the phases of a run out on its clock. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from risen_plugin.commands.simulate.trace import Trace
from risen_plugin.contracts import PhaseRecord
from risen_plugin.progress import seconds_of


@dataclass(frozen=True)
class Stretch:
    """A part of a run on its clock: ``seconds`` from ``begin``, between two outer steps."""

    kind: str
    accepted: bool | None
    at_step: int
    steps: int
    begin: float
    seconds: float


def stretches(trace: Trace, phases: tuple[PhaseRecord, ...]) -> tuple[Stretch, ...]:
    """A run with these phases on its clock, fine-tuning between them."""
    drawn: list[Stretch] = []
    at, spent = 0, 0.0

    def fine_tune(until: int) -> None:
        nonlocal at
        if until > at:
            begin = trace.fine_tune_seconds(at)
            seconds = trace.fine_tune_seconds(until) - begin
            drawn.append(Stretch("fine_tune", None, at, until - at, begin + spent, seconds))
            at = until

    for phase in phases:
        fine_tune(phase.at_step)
        begin = trace.fine_tune_seconds(at) + spent
        seconds = seconds_of(phase)
        drawn.append(
            Stretch(phase.kind, phase.accepted, phase.at_step, phase.steps, begin, seconds)
        )
        spent += seconds
    fine_tune(trace.max_steps)
    return tuple(drawn)


def totals(drawn: tuple[Stretch, ...]) -> dict[str, float]:
    """Seconds of each kind of phase, and of all."""
    kinds = ("fine_tune", "risen", "burst")
    sums = {kind: sum(s.seconds for s in drawn if s.kind == kind) for kind in kinds}
    return {kind: round(value, 3) for kind, value in {**sums, "all": sum(sums.values())}.items()}
