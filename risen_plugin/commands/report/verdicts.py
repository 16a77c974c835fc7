"""The guard's section of a report: verdicts, thresholds and measurements."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from risen_plugin.commands.report import figures
from risen_plugin.commands.report.markup import (
    Markup,
    badge,
    duration,
    folded,
    number,
    prose,
    side_by_side,
    table,
)
from risen_plugin.guard.strengths import in_words
from risen_plugin.kit.jsonable import as_number
from risen_plugin.progress import (
    ADHERENCE,
    FACTS_KNOWN,
    LOST_FACTS,
    MOST_ROWS,
    PROBE_LOSS,
    ROWS,
    SMALLEST_GAIN,
    VERDICT,
)
from risen_plugin.record.events import GuardEvent
from risen_plugin.record.reading import Phase, Run

_MOST_PHASES = 12  # columns of a table
_MEASURED = re.compile(
    r"^adherence \S+ -> \S+, probe loss \S+ -> \S+ \([^()\s]+\)(?:: |$)"
)  # how the guard's reasons begin


def verdicts(run: Run) -> list[Markup]:
    """What the guard decided of each phase, by which thresholds, and all that it measured."""
    rows = []
    for phase in run.phases:
        rows.append(
            (
                phase.name,
                badge(phase.outcome),
                phase.step,
                phase.steps,
                duration((phase.ends or run.seconds) - phase.begins),
                _way(phase, ADHERENCE),
                _way(phase, PROBE_LOSS),
                reason_of(phase),
            )
        )
    if not rows:
        return []
    head = (
        "phase",
        "outcome",
        "at step",
        "steps",
        "time",
        "strict adherence",
        "probe loss",
        "the guard's reason",
    )
    parts = [table(head, rows, caption="Verdicts"), *_sight(run), *_judged_figures(run)]
    judged = [
        (
            event.number,
            _moment(event),
            event.grpo_step,
            event.action,
            event.reason,
            _in_words(event.measured),
            _in_words(event.intervals),
        )
        for event in run.of(GuardEvent)
    ]
    if judged:
        columns = ("phase", "when", "GRPO step", "action", "reason", "measured", "intervals")
        label = "Measurements and actions of the guard"
        parts.append(folded(f"{label} ({len(judged)})", table(columns, judged, caption=label)))
    return [*parts, *_measurements(run)]


def _sight(run: Run) -> list[Markup]:
    """What gains the guard's rows could tell from chance, and the facts that were lost."""
    parts = []
    for phase in run.phases:
        gain, rows = phase.number_of(SMALLEST_GAIN), phase.number_of(ROWS)
        if gain is not None and rows is not None:
            most = phase.number_of(MOST_ROWS) or rows
            parts.append(
                prose(
                    f"{phase.name}: the guard measured {rows:.0f} of up to {most:.0f} "
                    f"instructions, which tell a gain of {gain:.3f} in strict adherence from "
                    "chance in 9 of 10 cases, and a smaller one where one has several checks."
                )
            )
        lost = phase.metrics.get(LOST_FACTS)
        if isinstance(lost, list) and lost:
            known = phase.number_of(FACTS_KNOWN) or 0.0
            questions = "; ".join(map(str, lost))
            parts.append(
                prose(f"{phase.name}: {len(lost)} of {known:.0f} known facts are lost: {questions}")
            )
    return parts


def _judged_figures(run: Run) -> list[Markup]:
    drawn = figures.judged(run)
    if not drawn:
        return []
    explanation = (
        "What each phase changed, with the ends between which the guard is sure that it lies. The "
        "dashed line is the guard's threshold: a gain must reach it, and a harm drops a phase that "
        "is above it for sure. Dropped phases are hollow."
    )
    return [prose(explanation), side_by_side(drawn)]


def reason_of(phase: Phase) -> str:
    """The guard's reason, without the numbers that the columns beside it show."""
    verdict = str(phase.metrics.get(VERDICT) or phase.reason)
    return _MEASURED.sub("", verdict, count=1) or "within all limits"


def _measurements(run: Run) -> list[Markup]:
    """Every number in the phases' records."""
    phases = run.phases[-_MOST_PHASES:]
    names = sorted(
        {name for p in phases for name, value in p.metrics.items() if as_number(value) is not None}
    )
    if not names:
        return []
    rows = [(name, *(phase.number_of(name) for phase in phases)) for name in names]
    label = "All measurements"
    if len(phases) < len(run.phases):
        label += f" of the latest {len(phases)} phases"
    head = ("metric", *(phase.name for phase in phases))
    return [folded(f"{label} ({len(names)})", table(head, rows, caption=label))]


def _way(phase: Phase, metric: str) -> str | None:
    before, after = (phase.number_of(f"{metric}_{when}") for when in ("before", "after"))
    if before is None:
        return None
    return f"{before:.3f} → " + ("not measured" if after is None else f"{after:.3f}")


def _moment(event: GuardEvent) -> str:
    at = "" if event.strength is None else f", at {in_words(event.strength)}"
    return f"{event.when}{at}"


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_short(item) for item in value)}]"
    parsed = as_number(value)
    return str(value) if parsed is None else number(parsed)
