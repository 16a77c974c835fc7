"""``after`` and ``alternate``: RISEN phases at steps that are fixed in advance.

Pure functions of the progress: they read earlier phases from it, so that a resumed run decides as
an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from risen_plugin.contracts import Decision, PhaseRecord, Progress


@dataclass(frozen=True)
class After:
    """Fine-tune, then RISEN.

    The first RISEN phase comes once the outer run has done ``at``. More of them are spread evenly
    over the rest of the run, the last one at its end. A rolled-back phase counts as done. Where
    the rest of the run has fewer steps than phases, one comes after each step.

    :param steps: GRPO optimizer steps of each RISEN phase.
    :param at: a share of the run's steps in (0, 1] if it is a float, else an optimizer step; a
        step past the end means the end.
    :param phases: the number of RISEN phases.
    :param parameters: fields of TRL's ``GRPOConfig`` for these phases alone.
    :raises ValueError: if a number is out of range.
    """

    steps: int
    at: float | int = 1.0
    phases: int = 1
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least_one(steps=self.steps, phases=self.phases)
        if isinstance(self.at, float):
            if not 0.0 < self.at <= 1.0:
                raise ValueError(
                    f"at must be a share of the run in (0, 1] or a whole step, not {self.at}"
                )
        else:
            _at_least_one(at=self.at)
        if self.at == 1.0 and isinstance(self.at, float) and self.phases > 1:
            raise ValueError(f"{self.phases} phases need an at below 1.0: the end has room for one")

    def __call__(self, progress: Progress) -> Decision:
        points = self._points(progress.max_steps)
        done = _risen(progress)
        due = sum(point <= progress.step for point in points)
        if _just_done(progress) or len(done) >= due:
            return Decision("fine_tune", reason=self._waiting(points, len(done)))
        reason = f"after: step {points[len(done)]} reached, phase {len(done) + 1} of {len(points)}"
        return Decision("risen", self.steps, self.parameters, reason)

    def _points(self, max_steps: int) -> list[int]:
        """The outer steps after which a RISEN phase is due, in order and each once."""
        at = round(self.at * max_steps) if isinstance(self.at, float) else self.at
        first = min(max(at, 1), max_steps)
        gaps = max(self.phases - 1, 1)
        points = {first + round(i * (max_steps - first) / gaps) for i in range(self.phases)}
        return sorted(points)

    def _waiting(self, points: list[int], done: int) -> str:
        if done >= len(points):
            return f"after: {done} of {len(points)} phases done"
        return f"after: phase {done + 1} of {len(points)} is due at step {points[done]}"


@dataclass(frozen=True)
class Alternate:
    """Fine-tuning and RISEN in turns.

    A RISEN phase comes after each ``fine_tune`` steps of the outer run, and at its end if at least
    half as many have been taken since the one before. A rolled-back phase counts as one.

    :param fine_tune: optimizer steps of the outer run between RISEN phases.
    :param risen: GRPO optimizer steps of each RISEN phase.
    :param parameters: fields of TRL's ``GRPOConfig`` for these phases alone.
    :raises ValueError: if a number is below 1.
    """

    fine_tune: int
    risen: int
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least_one(fine_tune=self.fine_tune, risen=self.risen)

    def __call__(self, progress: Progress) -> Decision:
        last = max((phase.at_step for phase in _risen(progress)), default=0)
        done = progress.step - last
        at_end = progress.step >= progress.max_steps
        if done >= self.fine_tune:
            reason = f"alternate: {done} fine-tune steps done"
        elif at_end and done > 0 and 2 * done >= self.fine_tune:
            reason = f"alternate: the run ends after {done} of {self.fine_tune} fine-tune steps"
        else:
            waiting = f"alternate: {done} of {self.fine_tune} fine-tune steps done"
            return Decision("fine_tune", reason=waiting)
        return Decision("risen", self.risen, self.parameters, reason)


def _risen(progress: Progress) -> list[PhaseRecord]:
    return [phase for phase in progress.phases if phase.kind == "risen"]


def _just_done(progress: Progress) -> bool:
    return any(phase.at_step >= progress.step for phase in _risen(progress))


def _at_least_one(**numbers: Any) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1, not {value!r}")
