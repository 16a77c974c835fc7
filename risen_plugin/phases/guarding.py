"""The guard of one phase: it measures at entry, while the phase runs and at its end, and decides.

How it decides is in the pure functions of ``guard``. ``Steering`` has the trainer do as the guard
and the controllers say: its KL coefficient, learning rate, temperature and end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from risen_plugin.guard.changes import Changes, RowByRow, compare, is_open
from risen_plugin.guard.controllers import Controllers
from risen_plugin.guard.looks import RowPlan, can_tell
from risen_plugin.guard.rules import Orders
from risen_plugin.guard.strengths import Part, judge_part, strictly, verdict_on_parts
from risen_plugin.guard.verdicts import (
    Action,
    Look,
    Verdict,
    When,
    act,
    confidence_of_looks,
    in_numbers,
    judge,
)
from risen_plugin.instructions.plain import Fact, facts
from risen_plugin.kit.jsonable import from_plain, to_plain
from risen_plugin.phases.facts import are_told, known_facts
from risen_plugin.phases.measuring import LossesOf, Measurement, with_more
from risen_plugin.phases.sampling import Alarm
from risen_plugin.phases.trial import Announce, Trial, metrics_of
from risen_plugin.progress import (
    FACTS_KNOWN,
    GUARD_S,
    LOOKS,
    LOST_FACTS,
    MOST_ROWS,
    OF_DOMAIN,
    OF_TASK,
    REINFORCE_S,
    ROWS,
    SMALLEST_GAIN,
    STRENGTH,
    STRENGTHS,
    TRIP_WIRE_RATE,
)
from risen_plugin.training.answering import Encoded, same_modes, sampled_answers
from risen_plugin.training.losses import mean_loss
from risen_plugin.training.mismatch import MISMATCH
from risen_plugin.training.phase_trainer import SERIES, LiveSettings, PhaseTrainer
from risen_plugin.training.protocols import Model


@dataclass
class ActionLog:
    """The guard's actions in a phase so far, and those that end it.

    :param actions: each step's action other than to go on, with its reason.
    :param stopped: why the phase ended before its last step, if it did.
    :param condemned: the measurement that condemned it, if one did.
    """

    actions: list[dict[str, Any]] = field(default_factory=list)
    stopped: str | None = None
    condemned: tuple[Measurement, Changes, str] | None = None

    def add(self, step: int, action: Action) -> None:
        """Remember an action at a GRPO step."""
        if action.kind != "go_on":
            self.actions.append({"grpo_step": step, "action": action.kind, "reason": action.reason})

    def stop(self, reason: str) -> None:
        """The phase ends at this step."""
        self.stopped = reason

    def condemn(self, measured: Measurement, changes: Changes, reason: str) -> None:
        """The phase ends at this step and will not be kept."""
        self.condemned = (measured, changes, reason)


@dataclass(frozen=True)
class Retained:
    """What is measured of a model without an answer to a held-out row.

    :param facts: whether each of the facts that were known at phase entry is told.
    """

    losses: LossesOf
    facts: Sequence[bool]

    @property
    def probe_loss(self) -> float:
        """The mean loss of the probe, in nats per token."""
        return mean_loss(self.losses[0])


class PhaseGuard:
    """The measurements of one phase, and the decisions that follow from them.

    :param state: of the guard of a phase that was cut off, as :meth:`state_dict` had it.
    """

    def __init__(self, phase: Trial, state: Mapping[str, Any] | None = None) -> None:
        self.phase = phase
        self.config = phase.context.config.guard
        self.action_log = ActionLog()
        self.after: Measurement | None = None
        self.changes: Changes | None = None
        self.parts: list[Part] = []
        self.tried: list[dict[str, Any]] = []
        self.wants_burst = False
        self._entry_answers: Sequence[Encoded] = ()
        self._before: Measurement | None = None
        self._gains: list[float] = []
        self._facts: list[Fact] = []
        if state is not None:
            self._before = from_plain(Measurement, state["before"])
            self._entry_answers = [
                (list(ids), list(labels)) for ids, labels in state["entry_answers"]
            ]
            self.action_log = from_plain(ActionLog, state["taken"])
            self._gains = list(state["gains"])
            self._facts = [fact for fact in facts() if fact.prompt in state.get("facts", ())]

    @property
    def before(self) -> Measurement:
        """The model at phase entry, once it is measured."""
        assert self._before is not None
        return self._before

    @before.setter
    def before(self, measured: Measurement) -> None:
        self._before = measured

    @property
    def strength(self) -> float:
        """The share of the trained change that is kept, if the phase is."""
        return self.parts[-1].strength if self.parts and self.parts[-1].is_kept else 1.0

    def state_dict(self) -> dict[str, Any]:
        """The measurements and actions in the phase so far, as JSON values."""
        return {
            "before": to_plain(self.before),
            "entry_answers": to_plain(self._entry_answers),
            "taken": to_plain(self.action_log),
            "gains": list(self._gains),
            "facts": [fact.prompt for fact in self._facts],
        }

    def enter(self) -> Measurement:
        """Measure the model as it enters the phase, and sample answers to measure its KL on."""
        phase, context = self.phase, self.phase.context
        if self.config.confidence is not None and self.config.min_gain >= 0.0:
            line = can_tell(phase.rows, self.config.confidence)[1]
            if phase.number == 1:
                context.say(f"{phase.label}: {line}")
        with phase.stopwatch.time(GUARD_S):
            self._entry_answers = context.processes.main(
                lambda: sampled_answers(
                    context.model,
                    phase.asking,
                    context.instructions.held_out.guard,
                    count=self.config.kl_samples,
                    batch_size=self.config.batch_size,
                    seed=phase.seed,
                    outside=phase.measures_outside,
                )
            )
        self._before = phase.measure(context.model, "before", entry_answers=self._entry_answers)
        self._before = self._with_facts(context.model, "before", self._before)
        if self._before.outage is None:
            action = act(Look("before"), self.config)
        else:
            action = Action("stop", f"not begun: {self._before.outage}")
        announce_measured(phase.announce, "before", 0, self._before, None, action)
        return self._before

    def is_due(self, step: int) -> bool:
        """Whether to look at the model after this GRPO step."""
        every = self.config.every
        return bool(every) and step % every == 0 and step < self.phase.decision.steps

    def look(self, model: Model, step: int, beta: float, max_beta: float) -> Action:
        """Measure the model in training, and decide how the phase goes on.

        :param beta: the KL coefficient now, and ``max_beta`` the most that it may be.
        """
        with same_modes(model):
            measured = self.phase.measure(
                model,
                f"step {step}",
                entry_answers=self._entry_answers,
                is_whole=False,
                within=REINFORCE_S,
            )
        looks = (self.phase.decision.steps - 1) // self.config.every
        changes = self._compared(measured, looks)
        self._gains.append(changes.gain.value)
        action = act(Look("during", changes, self._gains, beta, max_beta), self.config)
        announce_measured(self.phase.announce, "during", step, measured, changes, action)
        self.action_log.add(step, action)
        if action.kind == "stop":
            self.action_log.stop(action.reason)
        elif action.kind == "roll_back":
            self.action_log.condemn(measured, changes, action.reason)
        return action

    def stop(self, step: int, reason: str) -> None:
        """A controller ends the phase at this GRPO step."""
        self.action_log.stop(reason)
        self.action_log.add(step, Action("stop", reason))

    def leave(self, model: Model, as_entered: Callable[[], AbstractContextManager[None]]) -> None:
        """Measure the model again, unless it was condemned by a measurement while it trained.

        :param as_entered: makes the model the one at entry, while it is open; further rows are
            measured at both ends only where they are needed.
        """
        if self.action_log.condemned is not None:
            self.after, self.changes, _ = self.action_log.condemned
            if not self.config.strengths or self.changes.gain.value < self.config.min_gain:
                return
        self.after, self.changes = self.measure_end(
            model, "after", as_entered, despite_harm=bool(self.config.strengths)
        )

    def measure_end(
        self,
        model: Model,
        moment: str,
        as_entered: Callable[[], AbstractContextManager[None]],
        *,
        retained: Retained | None = None,
        mended: Collection[str] = (),
        despite_harm: bool = False,
    ) -> tuple[Measurement, Changes]:
        """Measure the model as it would be kept, on as many rows as it takes.

        :param retained: what of it was measured already.
        :param mended: the harms that count as they are measured.
        :param despite_harm: whether the gain is of interest where a harm drops the phase.
        """
        phase, plan = self.phase, self.phase.rows
        after = phase.measure(
            model,
            moment,
            entry_answers=self._entry_answers,
            losses=None if retained is None else retained.losses,
        )
        if retained is None:
            after = self._with_facts(model, moment, after)
        else:
            after = replace(after, by_row=replace(after.by_row, facts=retained.facts))
        changes = None
        for start, end in pairwise(plan.looks):
            rows = slice(start, end)
            if end > len(self.before.by_row.passed):
                changes = self._compared(after, plan=plan)
                judged = strictly(changes, mended)
                if not self._is_open(after, judged, despite_harm=despite_harm):
                    break
                with as_entered():
                    more = phase.measure_more(model, "before, further rows", rows)
                self._before = with_more(self.before, more)
            more = phase.measure_more(model, f"{moment}, further rows", rows)
            after, changes = with_more(after, more), None
        return after, changes or self._compared(after, plan=plan)

    def measure_retention(self, model: Model, moment: str) -> tuple[Retained, Changes]:
        """What is told of retention without an answer to a held-out row, and its harms."""
        probe, entry = self.phase.measure_losses(model, self._entry_answers)
        facts = self._are_told(model, moment) if self._facts else []
        was = self.before.by_row
        before = RowByRow(probe=was.probe, entry_answers=was.entry_answers, facts=was.facts)
        after = RowByRow(probe=probe, entry_answers=entry, facts=facts)
        changes = compare(before, after, self.config, self.config.confidence)
        return Retained((probe, entry), facts), changes

    def _with_facts(self, model: Model, moment: str, measured: Measurement) -> Measurement:
        """A measurement with the facts that were known at entry, which are asked for then."""
        phase, context = self.phase, self.phase.context
        if not self.config.facts or (moment != "before" and not self._facts):
            return measured
        if moment == "before":
            label = f"{phase.label}: {moment}, facts"
            with phase.stopwatch.time(GUARD_S):
                known = known_facts(context, model, phase.asking, label, phase.measures_outside)
                self._facts = context.processes.agree(known)
            told = [True] * len(self._facts)
        else:
            told = self._are_told(model, moment)
        return replace(measured, by_row=replace(measured.by_row, facts=told))

    def _are_told(self, model: Model, moment: str) -> list[bool]:
        """For each fact that was known at entry, whether it is told."""
        phase, context = self.phase, self.phase.context
        label, outside = f"{phase.label}: {moment}, facts", phase.measures_outside
        with phase.stopwatch.time(GUARD_S):
            told = are_told(context, model, phase.asking, label, self._facts, outside)
            return context.processes.agree(told)

    def _is_open(self, after: Measurement, changes: Changes, *, despite_harm: bool) -> bool:
        if after.outage is not None or not self.phase.can_be_kept:
            return False
        before, plan = self.before.by_row, self.phase.rows
        return is_open(before, after.by_row, changes, self.config, plan, despite_harm=despite_harm)

    def judged_whole(self, changes: Changes) -> Part:
        """The judgement on all that the phase trained, the harms that condemned it included."""
        part = judge_part(1.0, changes, self.config)
        if self.action_log.condemned is None:
            return part
        condemned = judge_part(1.0, self.action_log.condemned[1], self.config)
        return replace(part, harms={**condemned.harms, **part.harms})

    def tell(
        self,
        strength: float,
        step: int,
        numbers: Mapping[str, float],
        changes: Changes,
        action: Action,
    ) -> None:
        """Write what was measured of an ended phase at a strength, and what follows from it."""
        share = {} if strength == 1.0 else {STRENGTH: strength}
        _announce(self.phase.announce, "after", step, numbers, changes, action, **share)
        self.action_log.add(step, action)

    def verdict(self, steps: int, outage: str | None) -> Verdict:
        """Decide whether the phase is kept.

        :param steps: GRPO steps that it took.
        :param outage: why rewards cut its training short, if they did.
        """
        verdict = self._verdict(steps, outage)
        if self.after is None or self.changes is None:
            return verdict
        action = act(Look("after", self.changes, verdict=verdict), self.config)
        self.wants_burst = action.kind == "burst"
        if self.action_log.condemned is None or self.parts:
            self.tell(self.strength, steps, numbers_of(self.after), self.changes, action)
        return verdict

    def metrics(self) -> dict[str, Any]:
        """The phase's measurements and actions as its record has them."""
        return {
            **metrics_of(self.before, self.after, self.changes),
            **self._sight(),
            **self._knowledge(),
            **self._strengths(),
            "actions": self.action_log.actions,
            "wants_burst": self.wants_burst,
            LOOKS: len(self._gains),
        }

    def _sight(self) -> dict[str, float]:
        """How many rows the guard measured, of how many, and the gain that those tell."""
        if self.config.confidence is None:
            return {}
        return {
            ROWS: len(self.before.by_row.passed),
            MOST_ROWS: self.phase.rows.most,
            SMALLEST_GAIN: can_tell(self.phase.rows, self.config.confidence)[0],
        }

    def _strengths(self) -> dict[str, Any]:
        """The share that is kept, and what was measured at each that was tried."""
        return {STRENGTH: self.strength, STRENGTHS: self.tried} if self.tried else {}

    def _knowledge(self) -> dict[str, Any]:
        """How many facts were known at entry, and the questions whose answers were lost."""
        if not self.config.facts:
            return {}
        told = [] if self.after is None else self.after.by_row.facts
        lost = [fact.prompt for fact, is_told in zip(self._facts, told) if not is_told]  # noqa: B905
        return {FACTS_KNOWN: len(self._facts), LOST_FACTS: lost}

    def _verdict(self, steps: int, outage: str | None) -> Verdict:
        if self.before.outage is not None:
            return Verdict(False, f"not begun: {self.before.outage}")
        if self.after is None or self.changes is None:
            return Verdict(False, f"ended at GRPO step {steps}: {outage}")
        if self.action_log.condemned is not None:
            reason = self.action_log.condemned[2]
            return self._on_parts(Verdict(False, f"rolled back at GRPO step {steps}: {reason}"))
        if self.after.outage is not None:
            return Verdict(False, self.after.outage)
        verdict = judge(self.before.guard, self.after.guard, self.config, self.changes)
        verdict = self._on_parts(verdict)
        if self.action_log.stopped is None:
            return verdict
        stopped = f"stopped at GRPO step {steps} ({self.action_log.stopped}): "
        return Verdict(verdict.accepted, stopped + verdict.reason)

    def _on_parts(self, whole: Verdict) -> Verdict:
        if self.after is None or self.changes is None or not self.parts:
            return whole
        measured = in_numbers(self.before.guard, self.after.guard, self.changes)
        return verdict_on_parts(whole, self.parts, measured)

    def _compared(
        self, measured: Measurement, looks: int = 1, plan: RowPlan | None = None
    ) -> Changes:
        confidence = confidence_of_looks(self.config, looks)
        return compare(self.before.by_row, measured.by_row, self.config, confidence, plan=plan)


class Steering(TrainerCallback):
    """Carries out the decisions of the guard and the controllers while one phase trains.

    :param announce: writes an event of this phase.
    :param as_kept: makes the model in training the one that would be kept, while it is open.
    :param goes_on: whether the phase was cut off, so that earlier orders still hold.
    :param alarm: hears how far the sampler is from the model in training.
    """

    def __init__(
        self,
        trainer: PhaseTrainer,
        guard: PhaseGuard,
        controllers: Controllers,
        announce: Announce,
        *,
        as_kept: Callable[[], AbstractContextManager[None]],
        goes_on: bool = False,
        alarm: Alarm | None = None,
    ) -> None:
        self.alarm = alarm
        self.trainer = trainer
        self.guard = guard
        self.controllers = controllers
        self.announce = announce
        self.as_kept = as_kept
        self.live = LiveSettings(trainer)
        if goes_on:
            self.live.go_on(controllers.standing)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step
        if control.should_training_stop or not self.guard.is_due(step):
            return
        beta = self.trainer.beta
        max_beta = self.controllers.config.max_beta
        with self.as_kept():
            action = self.guard.look(self.trainer.trained, step, beta, max_beta)
        if action.kind == "raise_beta":
            raised = self.controllers.raise_beta(beta, self.guard.config.beta_factor)
            self.live.follow(Orders(beta=raised))
        elif action.kind in ("stop", "roll_back"):
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        numbers = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float)
        }
        if "train_runtime" in numbers:  # the summary at the end
            return
        step = state.global_step
        if self.alarm is not None:
            self.alarm.hear(step, numbers.get(MISMATCH))
        held = self.live.settings()
        orders = self.controllers.observe(step, numbers)
        self.live.follow(orders)
        series = {
            name: numbers[name] for name in SERIES if math.isfinite(numbers.get(name, math.nan))
        }
        self.announce("control", grpo_step=step, **series, **held)
        if orders.stop is not None and not control.should_training_stop and step < state.max_steps:
            control.should_training_stop = True
            self.guard.stop(step, orders.stop)


def announce_measured(  # noqa: PLR0917 one event, its parts in order
    announce: Announce,
    when: When,
    step: int,
    measured: Measurement,
    changes: Changes | None,
    action: Action,
) -> None:
    """Write a ``guard`` event: the numbers that were measured, with their ends, and the action."""
    _announce(announce, when, step, numbers_of(measured), changes, action)


def numbers_of(measured: Measurement) -> dict[str, float]:
    """The numbers of a measurement as an event has them."""
    numbers = dict(measured.guard.as_metrics())
    numbers |= {f"{OF_TASK}{name}": value for name, value in measured.tasks.items()}
    numbers |= {f"{OF_DOMAIN}{name}": value for name, value in measured.domain.items()}
    numbers[TRIP_WIRE_RATE] = measured.tripped.rate
    if measured.reported is not None:
        numbers["reported_strict"] = measured.reported.strict
    if measured.unseen is not None:
        numbers["unseen_strict"] = measured.unseen.strict
    return numbers


def finite_of(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those that JSON can hold."""
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _announce(  # noqa: PLR0917 one event, its parts in order
    announce: Announce,
    when: When,
    step: int,
    numbers: Mapping[str, float],
    changes: Changes | None,
    action: Action,
    **more: float,
) -> None:
    announce(
        "guard",
        when=when,
        grpo_step=step,
        measured=finite_of(numbers),
        intervals={} if changes is None else changes.ends(),
        action=action.kind,
        reason=action.reason,
        **more,
    )
