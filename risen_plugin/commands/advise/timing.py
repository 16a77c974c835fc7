"""Listeners that count answers and time steps, and end a phase or training when time is up."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.scores import OutageError


class Seen:
    """Listens to a phase's answers until its time is up, then ends it."""

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.times: list[float] = []
        self.groups: list[tuple[list[bool], bool]] = []
        self.tokens = 0
        self.k = 0

    def take(self, batch: Batch) -> None:
        """Count a batch.

        :raises OutageError: to end the phase, once its time is up and two batches were counted.
        """
        self.times.append(time.perf_counter())
        self.k = batch.group or self.k
        self.tokens += batch.tokens
        for group in batch.groups:
            judged = [p for index in group if (p := batch.verdicts[index]) is not None]
            worth = {round(r, 6) for index in group if (r := batch.totals[index]) is not None}
            if judged:
                self.groups.append((judged, len(worth) <= 1))
        if len(self.times) >= 2:
            last = self.times[-1] - self.times[-2]
            if self.times[-1] + last > self.ends:
                raise OutageError("all that there was time for has been measured")

    @property
    def pass_at_1(self) -> float:
        every = [passed for judged, _ in self.groups for passed in judged]
        return sum(every) / len(every) if every else 0.0

    @property
    def pass_at_k(self) -> float:
        return statistics.fmean([any(judged) for judged, _ in self.groups] or [0.0])

    @property
    def zero_variance(self) -> float:
        return statistics.fmean([same for _, same in self.groups] or [1.0])

    def step_s(self, otherwise: float) -> float:
        """Seconds from one batch to the next; the mean of all but the first, which warms up."""
        gaps = [b - a for a, b in itertools.pairwise(self.times)]
        return statistics.fmean(gaps[1:] or gaps) if gaps else otherwise


class StopAt(TrainerCallback):
    """Records when each step ends, and ends training when its time is up."""

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.times: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) >= 2 and self.times[-1] * 2 - self.times[-2] > self.ends:
            control.should_training_stop = True

    @property
    def step_s(self) -> float:
        gaps = [b - a for a, b in itertools.pairwise(self.times)]
        return statistics.fmean(gaps)
