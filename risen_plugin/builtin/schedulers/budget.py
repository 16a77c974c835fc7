"""The scheduler ``budget``: follow another scheduler until its phases have spent a budget."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from risen_plugin.contracts import Decision, PhaseRecord, Progress, Scheduler, Stateful
from risen_plugin.errors import ConfigError
from risen_plugin.kit.checks import check_between, check_whole
from risen_plugin.kit.jsonable import as_number
from risen_plugin.progress import GUARD_S, LOOKS, seconds_of


@dataclass(frozen=True)
class Budget:
    """Follow another scheduler until a budget is spent, then only fine-tune.

    A phase that would cost more than is left is shortened, by the cost of earlier phases per step
    and for measuring them; the first phase is as long as it is asked for. A dropped phase counts
    at its full cost.

    :param scheduler: the scheduler that is followed: an object, a name, or
        ``{use: NAME, options: {...}}``.
    :param seconds: wall-clock seconds of RISEN phases and bursts.
    :param run_seconds: wall-clock seconds of the whole run; no phase begins after them.
    :param rollouts: sampled answers.
    :param tokens: tokens of sampled answers.
    :raises ConfigError: if no limit is given, or one is out of range.
    """

    scheduler: Scheduler
    seconds: float | None = None
    run_seconds: float | None = None
    rollouts: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.scheduler) or isinstance(self.scheduler, type):
            raise ConfigError(
                f"scheduler is {self.scheduler!r:.60}; it is a scheduler, or by name through "
                "use('budget', ...)"
            )
        for name in ("seconds", "run_seconds"):
            value = getattr(self, name)
            if value is not None:
                check_between(name, value, 0.0, math.inf)
        for name in ("rollouts", "tokens"):
            value = getattr(self, name)
            if value is not None:
                check_whole(name, value, 0)
        limits = ("seconds", "run_seconds", "rollouts", "tokens")
        if all(getattr(self, name) is None for name in limits):
            raise ConfigError(f"there is no limit; give one of {', '.join(limits)}")

    def __call__(self, progress: Progress) -> Decision:
        wanted = self.scheduler(progress)
        if not isinstance(wanted, Decision) or wanted.phase == "fine_tune":
            return wanted
        for limit in self._limits(progress):
            if limit.left <= 0:
                return Decision("fine_tune", reason=f"budget: {limit.in_words}; {wanted.reason}")
        steps, shortened = wanted.steps, ""
        for limit in self._limits(progress):
            fits = limit.fits(progress, wanted)
            if fits < steps:
                shortened = f"budget: {limit.in_words}, so {fits} of {wanted.steps} steps; "
                steps = fits
            if not fits:
                shortened = f"budget: {limit.in_words}, less than measuring takes; "
                return Decision("fine_tune", reason=f"{shortened}{wanted.reason}")
        return dataclasses.replace(wanted, steps=steps, reason=f"{shortened}{wanted.reason}")

    def state_dict(self) -> dict[str, Any]:
        """The state of the scheduler that is followed; empty if it has none."""
        return self.scheduler.state_dict() if isinstance(self.scheduler, Stateful) else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hand the state to the scheduler that is followed."""
        if isinstance(self.scheduler, Stateful):
            self.scheduler.load_state_dict(state)

    def _limits(self, progress: Progress) -> list[_Limit]:
        spent_s = sum(seconds_of(phase) for phase in progress.phases if phase.kind != "fine_tune")
        limits = [
            _Limit("s", self.seconds, spent_s, "seconds"),
            _Limit("s of the run", self.run_seconds, progress.elapsed_s, "seconds"),
            _Limit("rollouts", self.rollouts, progress.rollouts, "rollouts"),
            _Limit("tokens", self.tokens, progress.tokens, "tokens"),
        ]
        return [limit for limit in limits if limit.whole is not None]


@dataclass(frozen=True)
class _Limit:
    """One limit: how much there is, and how much is spent."""

    unit: str
    whole: float | None
    spent: float
    cost: str

    @property
    def left(self) -> float:
        return (self.whole or 0.0) - self.spent

    @property
    def in_words(self) -> str:
        whole = f"{self.whole or 0:g} {self.unit}"
        if self.left <= 0:
            return f"{whole} are spent"
        return f"{self.left:.4g} of {whole} left"

    def fits(self, progress: Progress, wanted: Decision) -> int:
        """The number of steps of the wanted phase that fit into the rest, beside measuring it.

        0 where not even measuring fits; else at least one.
        """
        alike = [p for p in progress.phases if p.kind == wanted.phase and p.steps]
        steps = sum(phase.steps for phase in alike)
        cost = sum(_cost(phase, self.cost) for phase in alike)
        if not steps or cost <= 0:
            return wanted.steps
        fixed = sum(_measuring(phase, self.cost) for phase in alike)
        left = self.left - fixed / len(alike)
        if left <= 0:
            return 0
        per_step = (cost - fixed) / steps
        if per_step * wanted.steps <= left:
            return wanted.steps
        return max(1, min(wanted.steps, math.floor(left / per_step)))


def _measuring(phase: PhaseRecord, what: str) -> float:
    """The cost of measuring a phase before and after, however short the phase is.

    Measurements during the phase cost as much each, but grow in number with its steps.
    """
    if what != "seconds":
        return 0.0
    looks = as_number(phase.metrics.get(LOOKS)) or 0.0
    whole = min(as_number(phase.metrics.get(GUARD_S)) or 0.0, seconds_of(phase))
    return whole * 2.0 / (2.0 + looks)


def _cost(phase: PhaseRecord, what: str) -> float:
    if what == "seconds":
        return seconds_of(phase)
    return as_number(phase.metrics.get(what)) or 0.0
