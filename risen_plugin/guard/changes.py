"""The differences that a phase made: its gain and its harms, each with an interval.

Pure. Both ends of a phase are measured on the same rows, so they are compared row by row;
``verdicts`` judges the differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from risen_plugin.config import GuardConfig
from risen_plugin.contracts import Row
from risen_plugin.guard.looks import Met, RowPlan, checks_of, is_hopeless, is_more_than_chance
from risen_plugin.kit.intervals import Interval, of_gap, of_means, of_ratio
from risen_plugin.progress import CHECKS_GAIN, FACTS_LOST, GAP, OF_TASK, TRIP_WIRE_RISE
from risen_plugin.rewards.calling import NamedReward

ROUNDING = 1e-9  # so that a gain or a rise of exactly the threshold passes

_ALWAYS = ("probe_loss_rise", "forward_kl")  # no number of these is a broken model

Losses: TypeAlias = Sequence[tuple[float, int]]
"""One row each: its loss summed over its tokens, in nats, and how many they are."""


@dataclass(frozen=True)
class RowByRow:
    """The model at one moment, row by row; a field that was not measured is empty.

    :param passed: the guard's rows: whether every graded reward passes the answer.
    :param met: the guard's rows: how many of how many checks the answer meets, where a check is a
        constraint of the row, or a graded reward's verdict on the whole answer.
    :param probe: the probe's rows.
    :param entry_answers: the losses of answers that the model gave at phase entry.
    :param reported: as ``passed``, for the reported rows of trained families.
    :param unseen: the same, for rows of reserved families.
    :param tripped: whether an answer trips a wire: the guard's rows, then the others.
    :param domain: the domain's score of each of the guard's answers.
    :param domain_metric: the user's own metric of the domain, of which no rows are known.
    :param tasks: the scores of each task's answers.
    :param facts: whether each of the facts that were known at phase entry is told.
    """

    passed: Sequence[bool | None] = ()
    met: Sequence[Met | None] = ()
    probe: Losses = ()
    entry_answers: Losses = ()
    reported: Sequence[bool | None] = ()
    unseen: Sequence[bool | None] = ()
    tripped: Sequence[bool] = ()
    domain: Sequence[float | None] = ()
    domain_metric: float | None = None
    tasks: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    facts: Sequence[bool] = ()


@dataclass(frozen=True)
class Harm:
    """Something that a phase should not do much of.

    :param name: in words.
    :param amount: with its ends.
    :param limit: the most of it that is allowed; None only measures it.
    """

    name: str
    amount: Interval
    limit: float | None = None

    @property
    def at_least(self) -> float:
        """How much it is for sure; a single row that says nothing of others is taken as it is."""
        return self.amount.low if math.isfinite(self.amount.low) else self.amount.value

    @property
    def is_beyond(self) -> bool:
        """Whether it is beyond its limit for sure, or is no number."""
        return self.limit is not None and not self.at_least <= self.limit + ROUNDING

    @property
    def shows(self) -> bool:
        """Whether the measured amount is beyond its limit, be it by chance."""
        return self.limit is not None and not self.amount.value <= self.limit + ROUNDING

    def sentence(self) -> str:
        """How much of it there is, and how much is allowed."""
        if math.isnan(self.amount.value):
            return f"{self.name} is no number any more"
        sure = "" if self.at_least == self.amount.value else f", for sure {self.at_least:.4f}"
        return f"{self.name} is {self.amount.value:.4f}{sure}, more than {self.limit or 0.0:.4f}"


@dataclass(frozen=True)
class Changes:
    """The differences that a phase made, by their names in the record.

    :param gain: in strict adherence.
    :param checks: the gain in the share of checks that are met; its lower end is above 0 exactly
        where it is more than chance. None where it is the gain in strict adherence.
    """

    gain: Interval
    harms: Mapping[str, Harm]
    checks: Interval | None = None

    @property
    def by_checks(self) -> Interval:
        """The gain by which chance is told from improvement."""
        return self.gain if self.checks is None else self.checks

    def ends(self) -> dict[str, list[float | None]]:
        """The measured value and its lower and upper end, by name; None where there is no end."""
        intervals = {"gain": self.gain}
        if self.checks is not None:
            intervals[CHECKS_GAIN] = self.checks
        intervals |= {name: harm.amount for name, harm in self.harms.items()}
        return {
            name: [
                end if math.isfinite(end) else None
                for end in (interval.value, interval.low, interval.high)
            ]
            for name, interval in intervals.items()
        }

    def as_metrics(self) -> dict[str, float]:
        """``NAME``, ``NAME_low`` and ``NAME_high``, as far as they are numbers."""
        return {
            f"{name}{end}": value
            for name, ends in self.ends().items()
            for end, value in zip(("", "_low", "_high"), ends, strict=True)
            if value is not None
        }


def compare(
    before: RowByRow,
    after: RowByRow,
    config: GuardConfig,
    confidence: float | None,
    *,
    plan: RowPlan | None = None,
) -> Changes:
    """The differences between two moments, over the rows that were measured at both.

    :param plan: of the looks at the guard's rows; None for a single one.
    """
    harms = {
        "probe_loss_rise": Harm(
            "the rise of the probe loss",
            _rise(before.probe, after.probe, confidence),
            config.max_probe_loss_rise,
        )
    }
    if before.entry_answers and after.entry_answers:
        harms["forward_kl"] = Harm(
            "the forward KL from the model at phase entry",
            _rise(before.entry_answers, after.entry_answers, confidence),
            config.max_forward_kl,
        )
    if after.reported and after.unseen:
        harms[GAP] = Harm(
            "the gap to reserved families",
            of_gap((before.reported, after.reported), (before.unseen, after.unseen), confidence),
            config.max_gap,
        )
    if after.tripped:
        harms[TRIP_WIRE_RISE] = Harm(
            "the rise of the trip-wire rate",
            of_means(before.tripped[: len(after.tripped)], after.tripped, confidence),
            config.max_trip_wire_rise,
        )
    if after.domain:
        harms["domain_drop"] = Harm(
            "the drop of the domain's score",
            of_means(after.domain, before.domain, confidence),
            config.max_domain_drop,
        )
    elif before.domain_metric is not None and after.domain_metric is not None:
        drop = before.domain_metric - after.domain_metric
        harms["domain_drop"] = Harm(
            f"the drop of {config.domain_metric}",
            Interval(drop, drop, drop),
            config.max_domain_drop,
        )
    if before.facts and after.facts:
        harms[FACTS_LOST] = Harm(
            "the share of known facts that are lost",
            of_means(after.facts, before.facts, confidence),
            config.max_facts_lost,
        )
    for name, scores in after.tasks.items():
        harms[f"{OF_TASK}{name}_drop"] = Harm(
            f"the drop of task '{name}'",
            of_means(scores, before.tasks[name], confidence),
            config.tasks[name].max_drop,
        )
    is_scored = {
        "domain_drop": _is_scored([*before.domain, before.domain_metric]),
        **{f"{OF_TASK}{name}_drop": _is_scored(scores) for name, scores in before.tasks.items()},
    }
    measured = {
        name: harm
        for name, harm in harms.items()
        if name in _ALWAYS or is_scored.get(name) or not math.isnan(harm.amount.value)
    }
    gain = of_means(before.passed, after.passed, confidence)
    checks = _gain_in_checks(before, after, confidence, plan)
    return Changes(gain, measured, None if checks == gain else checks)


def is_open(
    before: RowByRow,
    after: RowByRow,
    changes: Changes,
    config: GuardConfig,
    plan: RowPlan,
    *,
    despite_harm: bool = False,
) -> bool:
    """Whether more rows may change what becomes of a phase that has ended.

    They may not where the plan has no more, a harm drops the phase, the gain is large enough and
    sure, or the rows that are left will hardly make it so.

    :param despite_harm: whether a gain counts also where a harm drops the phase.
    """
    if config.confidence is None or len(after.passed) >= plan.most:
        return False
    if not despite_harm and any(harm.is_beyond for harm in changes.harms.values()):
        return False
    if changes.by_checks.low > 0.0:
        return changes.gain.value < config.min_gain - ROUNDING
    checks = checks_of((before.passed, before.met), (after.passed, after.met))
    return not is_hopeless(checks, config.confidence, plan)


def _gain_in_checks(
    before: RowByRow, after: RowByRow, confidence: float | None, plan: RowPlan | None
) -> Interval:
    checks = checks_of((before.passed, before.met), (after.passed, after.met))
    gain = checks.gain(confidence)
    if confidence is None or is_more_than_chance(checks, confidence, plan):
        return gain
    return replace(gain, low=min(gain.low, 0.0))


def _is_scored(scores: Sequence[float | None]) -> bool:
    return any(score is not None and math.isfinite(score) for score in scores)


def _rise(before: Losses, after: Losses, confidence: float | None) -> Interval:
    return of_ratio(
        [now[0] - then[0] for then, now in zip(before, after, strict=True)],
        [float(tokens) for _, tokens in before],
        confidence,
    )


@dataclass(frozen=True)
class Task:
    """A task that the guard watches: its rows and the reward that scores the answers."""

    name: str
    rows: tuple[Row, ...]
    reward: NamedReward
