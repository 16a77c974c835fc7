"""What has happened in a run so far: its phases, losses, evaluations and time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from risen_plugin.contracts import PhaseRecord, Progress
from risen_plugin.progress import ADHERENCE
from risen_plugin.rewards.pass_rates import PassRates


@dataclass
class History:
    """Grows with the run, is saved in each checkpoint, and is what a scheduler sees.

    :param counts: further whole numbers of the progress, such as what the buffers hold.
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
