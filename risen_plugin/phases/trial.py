"""One trial of a change to the model: measured, trained, measured again, then kept or dropped.

The frame that a RISEN phase and a burst have in common. Runs inside the clean room. On a plain
model it trains a temporary adapter, which is merged into the weights before it is measured; on a
user's PeftModel it trains their adapter. Where the trial does not pay or fails, a snapshot puts the
weights back.
"""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from risen_plugin.config.grpo import answers_per_step
from risen_plugin.contracts import Decision, PhaseKind, PhaseRecord
from risen_plugin.guard.changes import Changes
from risen_plugin.guard.looks import RowPlan, plan_rows, share_met
from risen_plugin.guard.verdicts import Verdict
from risen_plugin.kit.files import write_json
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.measuring import (
    LossesOf,
    Measurement,
    MoreRows,
    measure,
    measure_losses,
    measure_more,
)
from risen_plugin.progress import (
    CHECKS,
    GAP,
    GUARD_S,
    LEAVE_S,
    OF_DOMAIN,
    OF_TASK,
    OF_THE_GUARD,
    REPORTED_ADHERENCE,
    REPORTED_SOFTLY,
    TRIP_WIRE_RATE,
    TRIP_WIRE_RISE,
    TRIP_WIRES,
    UNSEEN_ADHERENCE,
    UNSEEN_SOFTLY,
)
from risen_plugin.record.answered import ANSWERS, pairs_as_json
from risen_plugin.record.run_record import PHASE
from risen_plugin.training.adapters import Snapshot, save_adapter
from risen_plugin.training.answering import Encoded
from risen_plugin.training.asking import Asking, precision_of
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.outside import Outside
from risen_plugin.training.protocols import AdaptedModel, Model

Announce: TypeAlias = Callable[..., None]
"""Writes an event of a trial: its name, and values by name."""


class Stopwatch:
    """Adds up seconds under names.

    :param parts: the names that are there from the start, at 0.
    :param earlier: seconds that were counted before, to go on from.
    """

    def __init__(self, parts: Sequence[str] = (), earlier: Mapping[str, float] = {}) -> None:
        self.seconds: dict[str, float] = {**dict.fromkeys(parts, 0.0), **earlier}

    @contextmanager
    def time(self, name: str, *, within: str | None = None) -> Iterator[None]:
        """Count the seconds spent here under ``name``, and not under ``within`` around it."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            if within is not None:
                self.seconds[within] = self.seconds.get(within, 0.0) - spent


class Trial(ABC):
    """A RISEN phase or a burst: its decision and place in the run, and how far it has come.

    :param number: counted from 1 among the trials of its kind.
    :param at_step: the outer run's step.
    :param folder: gets its record.
    :param grpo: fields of ``GRPOConfig`` that answers are sampled by.
    :param stopwatch: counts the seconds of measuring as ``guard_s``.
    """

    kind: ClassVar[PhaseKind]
    title: ClassVar[str]

    def __init__(
        self,
        context: PhaseContext,
        decision: Decision,
        *,
        number: int,
        at_step: int,
        folder: Path,
        announce: Announce,
        grpo: Mapping[str, Any],
        seed: int,
        stopwatch: Stopwatch,
    ) -> None:
        self.context = context
        self.decision = decision
        self.number = number
        self.at_step = at_step
        self.folder = folder
        self.announce = announce
        self.grpo = grpo
        self.asking = Asking(context.tokenizer, grpo, precision_of(context.args))
        self.seed = seed
        self.stopwatch = stopwatch
        self.label = f"{self.title} {number}"
        answers = decision.steps * answers_per_step(self.grpo, context.processes.count)
        there = len(context.instructions.held_out.guard)
        self.rows = plan_rows(context.config.guard, there, round(answers))
        rollout = context.config.rollout
        if rollout.guard and rollout.is_outside:
            # What answers in the model's place has the adapter, and not the weights at entry.
            self.rows = RowPlan((self.rows.most,))
        self.can_be_kept = True
        self.outside: Outside | None = None

    def run(self) -> PhaseRecord:
        """Carry the trial out and return its record.

        :raises RisenError: if a reward or generator fails; everything is then as it was before.
        """
        context, processes = self.context, self.context.processes
        self.begin()
        with (
            self.logging(),
            clean_room(context.model, context.tokenizer, *context.others),
            Snapshot(context.model) as snapshot,
            self.sampling(),
        ):
            self.measure_entry()
            trained = self.train(snapshot)
            # Before it is measured, so that what is kept is what was measured.
            with self.stopwatch.time(LEAVE_S):
                self.can_be_kept = trained is None or snapshot.settle(trained)
            self.measure_exit(trained)
            verdict = self.judge()
            if verdict.accepted and not self.can_be_kept:
                verdict = Verdict(False, "the adapter makes weights infinite or NaN")
            with self.stopwatch.time(LEAVE_S):
                self._keep_or_drop(verdict, trained, snapshot)
            del trained
        with self.stopwatch.time(LEAVE_S):
            gc.collect()  # a trainer and its adapter hold each other in cycles
        record = processes.agree(
            PhaseRecord(
                self.kind,
                self.steps,
                self.at_step,
                self.decision.reason,
                verdict.accepted,
                self.metrics(verdict),
            )
        )
        data = {
            **asdict(record),
            "parameters": dict(self.decision.parameters),
            "verdict": asdict(verdict),
            "logs": self.logs,
            **self._answers(),
        }
        processes.main(partial(self._write, data))
        return record

    # The steps in which a RISEN phase and a burst differ, in their order

    @abstractmethod
    def begin(self) -> None:
        """Make the folder ready, and begin to count."""

    def logging(self) -> AbstractContextManager[None]:
        """Log the answers that are sampled."""
        return nullcontext()

    def sampling(self) -> AbstractContextManager[None]:
        """Have somebody there who samples answers."""
        return nullcontext()

    @abstractmethod
    def measure_entry(self) -> None:
        """Measure the model as it enters."""

    @abstractmethod
    def train(self, snapshot: Snapshot) -> AdaptedModel | None:
        """Train, and return the trained model; None if the training did not begin.

        :param snapshot: of the weights at entry.
        """

    @abstractmethod
    def measure_exit(self, trained: AdaptedModel | None) -> None:
        """Measure the trained model, unless the training was cut short."""

    @abstractmethod
    def judge(self) -> Verdict:
        """Whether the trained adapter is kept."""

    def drop(self, trained: AdaptedModel | None) -> None:  # noqa: B027 nothing, unless it says so
        """Act on a trial that is dropped."""

    def leave(self) -> None:  # noqa: B027 nothing, unless it says so
        """Let go of the trained model."""

    @abstractmethod
    def metrics(self, verdict: Verdict) -> dict[str, Any]:
        """The numbers of the trial for its record."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps that were taken."""

    @property
    @abstractmethod
    def logs(self) -> Sequence[Mapping[str, Any]]:
        """The training's own log, one entry per logging step."""

    @property
    @abstractmethod
    def ends(self) -> tuple[Measurement | None, Measurement | None]:
        """The measurements before and after it, as far as there are any."""

    @property
    def steps_before(self) -> int | None:
        """Steps that were taken before it was cut off; None if it begins."""
        return None

    # The steps that are the same

    def measure(
        self,
        model: Model,
        moment: str,
        *,
        entry_answers: Sequence[Encoded] = (),
        is_whole: bool = True,
        within: str | None = None,
        losses: LossesOf | None = None,
    ) -> Measurement:
        """Measure ``model``; every process gets the main one's measurement.

        :param losses: as :meth:`measure_losses` measured them already.
        :param within: the part of the trial whose time this is not.
        """
        with self.stopwatch.time(GUARD_S, within=within):
            measurement = measure(
                self.context,
                model,
                self.asking,
                f"{self.label}: {moment}",
                steps=self.decision.steps,
                guard_rows=self.rows.first,
                entry_answers=entry_answers,
                is_whole=is_whole,
                outside=self.measures_outside,
                losses=losses,
            )
            return self.context.processes.agree(measurement)

    def measure_losses(self, model: Model, entry_answers: Sequence[Encoded]) -> LossesOf:
        """The losses of the probe and of entry answers; every process gets the main one's."""
        with self.stopwatch.time(GUARD_S):
            losses = measure_losses(self.context, model, self.asking, entry_answers)
            return self.context.processes.agree(losses)

    def measure_more(self, model: Model, moment: str, rows: slice) -> MoreRows:
        """Measure ``model`` on further rows of the guard; every process gets the main one's."""
        with self.stopwatch.time(GUARD_S):
            more = measure_more(
                self.context,
                model,
                self.asking,
                f"{self.label}: {moment}",
                steps=self.decision.steps,
                rows=rows,
            )
            return self.context.processes.agree(more)

    @property
    def measures_outside(self) -> Outside | None:
        """Who answers in the model's place where it is measured; None where it does itself."""
        return self.outside if self.context.config.rollout.guard else None

    def save(self, trained: AdaptedModel, called: str) -> None:
        """Save the trained adapter in the folder; a disk that takes none stops no run."""

        def write() -> None:
            with self.context.tolerant(self.folder):
                save_adapter(self.context.model, trained, self.folder, called)

        self.context.processes.main(write)

    def _keep_or_drop(
        self, verdict: Verdict, trained: AdaptedModel | None, snapshot: Snapshot
    ) -> None:
        if verdict.accepted:
            assert trained is not None  # a trial that was not begun is dropped
            self.save(trained, "adapter")
        else:
            self.drop(trained)
            snapshot.restore()
        self.leave()

    def _answers(self) -> dict[str, Any]:
        """The answers to held-out rows at both ends; nothing where it was cut short."""
        before, after = self.ends
        if before is None or after is None:
            return {}
        return {ANSWERS: pairs_as_json(before.answered, after.answered)}

    def _write(self, data: Mapping[str, Any]) -> None:
        with self.context.tolerant(self.folder):
            write_json(self.folder / PHASE, data)


def metrics_of(
    before: Measurement, after: Measurement | None, changes: Changes | None
) -> dict[str, Any]:
    """Both ends of a phase as its record has them; nothing after it if it was cut short."""
    metrics: dict[str, Any] = {}
    for when, measured in (("before", before), ("after", after)):
        if measured is None:
            continue
        metrics |= {
            f"{OF_THE_GUARD}{k}": v for k, v in measured.guard.as_metrics(f"_{when}").items()
        }
        metrics[f"{OF_THE_GUARD}errors_{when}"] = measured.errors
        share = share_met(measured.by_row.met)
        if share is not None:
            metrics[f"{CHECKS}_{when}"] = share
        if measured.reported is not None:
            metrics[f"{REPORTED_ADHERENCE}_{when}"] = measured.reported.strict
            metrics[f"{REPORTED_SOFTLY}_{when}"] = measured.reported.soft
        if measured.unseen is not None:
            metrics[f"{UNSEEN_ADHERENCE}_{when}"] = measured.unseen.strict
            metrics[f"{UNSEEN_SOFTLY}_{when}"] = measured.unseen.soft
        metrics[f"{TRIP_WIRE_RATE}_{when}"] = measured.tripped.rate
        metrics |= {f"{OF_DOMAIN}{name}_{when}": value for name, value in measured.domain.items()}
        metrics |= {f"{OF_TASK}{name}_{when}": value for name, value in measured.tasks.items()}
        for title, counts in (
            ("families", measured.by_family),
            ("constraints", measured.by_constraint),
        ):
            if counts:
                metrics[f"{title}_{when}"] = {name: list(count) for name, count in counts.items()}
    if after is not None:
        metrics[TRIP_WIRE_RATE] = after.tripped.rate
        metrics[TRIP_WIRES] = dict(after.tripped.by_wire)
    if changes is not None:
        metrics |= {f"{OF_THE_GUARD}{name}": value for name, value in changes.as_metrics().items()}
        for name in (GAP, TRIP_WIRE_RISE):
            if name in changes.harms:
                metrics[name] = changes.harms[name].amount.value
    return metrics
