"""Turn a run into series of points: (seconds or step, measurement). Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

from risen_plugin.kit.jsonable import as_number
from risen_plugin.kit.smoothing import running_mean
from risen_plugin.progress import (
    ADHERENCE,
    OF_DOMAIN,
    OF_TASK,
    OF_THE_GUARD,
    PROBE_LOSS,
    REPORTED_ADHERENCE,
    UNSEEN_ADHERENCE,
)
from risen_plugin.record.events import ControlEvent, EvaluationEvent, GuardEvent, LogEvent
from risen_plugin.record.reading import Phase, Run

Points = list[tuple[float, float]]
_ADHERENCE = {
    "guard's instructions": ADHERENCE,
    "reported instructions": REPORTED_ADHERENCE,
    "reserved families": UNSEEN_ADHERENCE,
}
_IN_EVENTS = ADHERENCE.removeprefix(OF_THE_GUARD)  # as events of the guard name it
_FORWARD_KL = f"{OF_THE_GUARD}forward_kl"
_NO_QUALITY = (
    *("runtime", "samples_per_second", "steps_per_second", "epoch", "loss"),
    *("num_tokens", "entropy"),  # TRL's SFTTrainer counts and logs them in every evaluation
)
CONTROL = {
    "reward": "mean reward",
    "kl": "KL to the model at phase entry",
    "entropy": "entropy",
    "mismatch_kl": "mismatch between sampling and training, nats per token",
    "beta": "beta",
    "learning_rate": "learning rate",
    "temperature": "temperature",
}


def adherence(run: Run) -> dict[str, Points]:
    """Strict adherence over the seconds of the run, by the rows it is measured on."""
    series = {name: measured(run.phases, metric) for name, metric in _ADHERENCE.items()}
    during = [
        (event.at, value)
        for event in run.of(GuardEvent)
        if event.when == "during"
        and (value := as_number(event.measured.get(_IN_EVENTS))) is not None
    ]
    first = next(iter(series))
    series[first] = sorted(series[first] + during, key=itemgetter(0))
    return {name: points for name, points in series.items() if points}


def retention(run: Run) -> Points:
    """The loss on the probe rows over the seconds of the run."""
    return measured(run.phases, PROBE_LOSS)


def quality(run: Run) -> dict[str, Points]:
    """The user's measures of the domain over the seconds of the run, without losses."""
    by_metric: dict[str, Points] = defaultdict(list)
    for name, points in evaluations(run).items():
        if name not in _NO_QUALITY:
            by_metric[name] += points
    named = {
        _stem(name): name
        for phase in run.phases
        for name in phase.metrics
        if name.startswith((OF_DOMAIN, OF_TASK))
    }
    for stem in named:
        name = stem.removeprefix(OF_DOMAIN)
        if name not in _NO_QUALITY:
            by_metric[name] += measured(run.phases, stem)
    by_time = itemgetter(0)
    return {name: sorted(points, key=by_time) for name, points in by_metric.items() if points}


def evaluations(run: Run) -> dict[str, Points]:
    """The outer run's evaluations, by metric."""
    by_metric: dict[str, Points] = defaultdict(list)
    for event in run.of(EvaluationEvent):
        for name, value in event.metrics.items():
            number = as_number(value)
            if number is not None:
                by_metric[name.removeprefix("eval_")].append((event.at, number))
    return dict(by_metric)


def losses(run: Run) -> dict[str, Points]:
    """The outer run's losses over its seconds."""
    training = [
        (event.at, loss)
        for event in run.of(LogEvent)
        if (loss := as_number(event.loss)) is not None
    ]
    series = {"training": training, "evaluation": evaluations(run).get("loss", [])}
    return {name: points for name, points in series.items() if points}


def measured(phases: Sequence[Phase], metric: str) -> Points:
    """A metric at both ends of each phase, and again its entry value after a dropped one."""
    points: Points = []
    for phase in phases:
        ends = [(phase.begins, "before"), (phase.ends, "after")]
        if phase.outcome == "dropped" and phase.number_of(f"{metric}_after") is not None:
            ends.append((phase.ends, "before"))
        for moment, when in ends:
            value = phase.number_of(f"{metric}_{when}")
            if value is not None and moment is not None:
                points.append((moment, value))
    return points


Move = tuple[Phase, tuple[float, float], tuple[float, float] | None]
"""A phase, with (strict adherence, probe loss) at its beginning and its end."""


def moves(phases: Sequence[Phase]) -> list[Move]:
    """The phases that were measured, as moves between adherence and retention."""
    ways: list[Move] = []
    for phase in phases:
        before, after = (
            (
                phase.number_of(f"{ADHERENCE}_{when}"),
                phase.number_of(f"{PROBE_LOSS}_{when}"),
            )
            for when in ("before", "after")
        )
        if before[0] is None or before[1] is None:
            continue
        ending = None if after[0] is None or after[1] is None else (after[0], after[1])
        ways.append((phase, (before[0], before[1]), ending))
    return ways


def way(moves: Sequence[Move]) -> Points:
    """The points of the run through them: where phases began, and where kept ones ended."""
    points: Points = []
    for phase, before, after in moves:
        points.append(before)
        if phase.accepted and after is not None:
            points.append(after)
    return points


def control(run: Run) -> dict[str, Points]:
    """Values that TRL logged and controllers set, over the GRPO steps of all phases in a row."""
    by_name: dict[str, dict[float, float]] = defaultdict(dict)
    offset = starts(run.phases)
    for phase in run.phases:
        for log in phase.logs:
            _put(by_name, offset.get(phase.number, 0) + (as_number(log.get("step")) or 0.0), log)
    for event in run.of(ControlEvent):
        _put(by_name, offset.get(event.number, 0) + event.grpo_step, event.numbers)
    return {name: sorted(by_name[name].items()) for name in CONTROL if by_name.get(name)}


@dataclass(frozen=True)
class Band:
    """A series with how sure it is: (x, the least, the most)."""

    line: Points
    ends: Sequence[tuple[float, float, float]]


def smoothed_reward(run: Run) -> Band | None:
    """The mean reward of the latest GRPO steps of a phase, give or take its standard error.

    None where no phase has more than two steps.
    """
    points = control(run).get("reward", [])
    line: Points = []
    ends: list[tuple[float, float, float]] = []
    starts_at = sorted(starts(run.phases).values()) or [0]
    for begin, end in pairwise([*map(float, starts_at), math.inf]):
        steps = [(x, y) for x, y in points if begin < x <= end]
        for (x, _), (mean, error) in zip(steps, running_mean([y for _, y in steps]), strict=True):
            if error is not None:
                line.append((x, mean))
                ends.append((x, mean - error, mean + error))
    return Band(line, ends) if len(line) > 1 else None


def forward_kl(run: Run) -> Points:
    """The forward KL that the guard measured in phases, over the GRPO steps of all in a row."""
    offset = starts(run.phases)
    found = {
        float(offset[phase.number] + phase.steps): value
        for phase in run.phases
        if phase.kind == "risen" and (value := phase.number_of(_FORWARD_KL)) is not None
    }
    for event in run.of(GuardEvent):
        change = event.intervals.get(_FORWARD_KL.removeprefix(OF_THE_GUARD))
        value = as_number(change[0]) if isinstance(change, list) and change else None
        if value is not None and event.grpo_step is not None and event.number in offset:
            found[float(offset[event.number] + event.grpo_step)] = value
    return sorted(found.items())


def starts(phases: Sequence[Phase]) -> dict[int, int]:
    """By the number of each RISEN phase, the GRPO steps of the run before it."""
    before: dict[int, int] = {}
    total = 0
    for phase in phases:
        if phase.kind == "risen":
            before[phase.number] = total
            total += phase.steps
    return before


def _put(series: Mapping[str, dict[float, float]], step: float, values: Mapping[str, Any]) -> None:
    for name in CONTROL:
        value = as_number(values.get(name))
        if value is not None:
            series[name][step] = value


def thinned(points: Sequence[tuple[float, float]], most: int = 400) -> Points:
    """At most about ``most`` points that look the same: the lowest and highest of each stretch."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    thin: Points = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        ends = {
            min(range(len(stretch)), key=lambda index: stretch[index][1]),
            max(range(len(stretch)), key=lambda index: stretch[index][1]),
        }
        thin += [stretch[index] for index in sorted(ends)]
    return thin


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The latest values as a row of blocks.

    >>> sparkline([0.0, 1.0, 2.0, 3.0])
    '▁▃▆█'
    """
    shown = list(values)[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    blocks = "▁▂▃▄▅▆▇█"
    if high == low:
        return blocks[3] * len(shown)
    return "".join(blocks[round((value - low) / (high - low) * 7)] for value in shown)


def _stem(metric: str) -> str:
    return metric.removesuffix("_before").removesuffix("_after")
