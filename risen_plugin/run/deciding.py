"""The history of a run as a scheduler sees it, and the decision that the scheduler takes by it.

A scheduler is asked after every step, and its answer is held to the contract; its reason says the
same with other numbers most of the time. News are a phase or burst, and each change of the reason
to wait. Pure, but for what the scheduler does itself.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from risen_plugin.contracts import Decision, PhaseKind, PhaseRecord, Progress, Scheduler
from risen_plugin.errors import PluginError, boundary
from risen_plugin.progress import ADHERENCE
from risen_plugin.rewards.batch import PassRates


@dataclass
class History:
    """The events of a run that a scheduler sees; saved in each checkpoint.

    :param counts: further whole numbers of the progress, such as the sizes of the buffers.
    """

    pass_rates: PassRates
    phases: tuple[PhaseRecord, ...] = ()
    train_losses: list[tuple[int, float]] = field(default_factory=list)
    eval_metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    counts: Callable[[], Mapping[str, int]] = dict
    _earlier_s: float = 0.0
    _started: float | None = None

    def start_clock(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Wall-clock seconds since the run began, resumed time included."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self._earlier_s + running

    def present(self, step: int) -> PhaseRecord:
        """The stretch of fine-tuning that the run is in at ``step``."""
        return timeline(self.phases, step)[-1]

    def held_out_adherence(self) -> list[float]:
        """Strict adherence on the guard's rows after each phase that measured it."""
        name = f"{ADHERENCE}_after"
        return [float(phase.metrics[name]) for phase in self.phases if name in phase.metrics]

    def add(self, phase: PhaseRecord) -> None:
        self.phases = (*self.phases, phase)

    def add_losses(self, step: int, logs: Mapping[str, Any]) -> None:
        if isinstance(logs.get("loss"), int | float):
            self.train_losses.append((step, float(logs["loss"])))

    def add_evaluation(self, step: int, metrics: Mapping[str, Any]) -> None:
        numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
        self.eval_metrics.append((step, numbers))

    def progress(self, step: int, max_steps: int) -> Progress:
        """The run as a scheduler sees it at ``step``."""
        return Progress(
            step=step,
            max_steps=max_steps,
            phase="fine_tune",
            phases=timeline(self.phases, step),
            train_losses=tuple(self.train_losses),
            eval_metrics=tuple(self.eval_metrics),
            elapsed_s=self.elapsed_s,
            rollouts=self.pass_rates.rollouts,
            tokens=self.pass_rates.tokens,
            **self.counts(),
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "phases": [dataclasses.asdict(record) for record in self.phases],
            "train_losses": list(self.train_losses),
            "eval_metrics": list(self.eval_metrics),
            "elapsed_s": self.elapsed_s,
            "pass_rates": self.pass_rates.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.phases = tuple(PhaseRecord(**record) for record in state["phases"])
        self.train_losses = [(step, loss) for step, loss in state["train_losses"]]
        self.eval_metrics = [(step, dict(metrics)) for step, metrics in state["eval_metrics"]]
        self.pass_rates.load_state_dict(state["pass_rates"])
        self._earlier_s = state["elapsed_s"]
        self._started = None


def timeline(records: tuple[PhaseRecord, ...], step: int) -> tuple[PhaseRecord, ...]:
    """``records`` with the present fine-tuning stretch, as it is at ``step``, at their end."""
    begun = 0
    if records:
        last = records[-1]
        begun = last.at_step + (last.steps if last.kind == "fine_tune" else 0)
    present = PhaseRecord("fine_tune", step - begun, begun, "the run's own steps")
    return (*records, present)


_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d+)?(?:e[-+]?\d+)?|\bnan\b|\binf\b)%?", re.IGNORECASE)
_NAMES: Mapping[PhaseKind, str] = {
    "fine_tune": "stretch of fine-tuning",
    "risen": "RISEN phase",
    "burst": "burst",
}


def decide(scheduler: Scheduler, progress: Progress, label: str) -> Decision:
    """The scheduler's decision.

    :raises PluginError: naming the scheduler, if it raises or returns no decision.
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


def without_numbers(decision: Decision) -> str:
    """The decision without its numbers, which change from step to step.

    >>> without_numbers(Decision("fine_tune", reason="plateau: eval_loss 1.2 -> 1.19, -0.8%"))
    'fine_tune: plateau: eval_loss # -> #, #'
    """
    return f"{decision.phase}: {_NUMBER.sub('#', decision.reason)}"


@dataclass
class Decisions:
    """Remembers the latest decision; its kind is part of a checkpoint."""

    latest: str = ""
    reason: str = ""

    def is_news(self, decision: Decision) -> bool:
        """Whether the decision is of another kind than the one before; asked once for each.

        A phase or burst is always news.
        """
        before, self.latest = self.latest, without_numbers(decision)
        self.reason = decision.reason
        return decision.phase != "fine_tune" or self.latest != before

    def state_dict(self) -> dict[str, Any]:
        return {"latest": self.latest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.latest = str(state.get("latest", ""))
