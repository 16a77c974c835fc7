"""The sections of a report: a run in, HTML out. ``figures`` draws the figures."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator

from risen_plugin.commands.report import figures, pays, series, timeline
from risen_plugin.commands.report.answer_list import best_and_worst
from risen_plugin.commands.report.answers import Answers
from risen_plugin.commands.report.before_after import before_and_after
from risen_plugin.commands.report.markup import (
    Markup,
    duration,
    folded,
    html,
    join,
    pre,
    prose,
    section,
    side_by_side,
    signed,
    table,
)
from risen_plugin.commands.report.verdicts import verdicts
from risen_plugin.errors import typed_line
from risen_plugin.progress import TRIP_WIRES
from risen_plugin.record.events import DecisionEvent, PluginErrorEvent
from risen_plugin.record.reading import Phase, Run

_log = logging.getLogger("risen_plugin")
_OURS = ("versions", "environment", "hashes")


def sections(run: Run, answers: Answers) -> Iterator[tuple[str, str, Markup]]:
    """Name, title and content of each section that is not empty."""
    for name, title, make in (
        ("before-after", "Before and after", lambda: before_and_after(run)),
        ("timeline", "The run", lambda: _timeline(run)),
        ("frontier", "Adherence against retention", lambda: _frontier(run)),
        ("pays", "Where the combination pays", lambda: _pays(run)),
        ("verdicts", "Guard", lambda: verdicts(run)),
        ("control", "KL, entropy and settings", lambda: _control(run)),
        ("rewards", "Rewards", lambda: _rewards(answers)),
        ("honesty", "Gap and trip wires", lambda: _honesty(run)),
        ("errors", "Errors", lambda: _errors(run, answers)),
        ("answers", "Best and worst answers", lambda: best_and_worst(answers)),
        ("configuration", "How the run was configured", lambda: _configuration(run)),
    ):
        shown = [part for part in _made(title, make) if part]
        if shown:
            yield name, title, section(name, title, *shown)


def _made(title: str, make: Callable[[], list[Markup]]) -> list[Markup]:
    """The parts of a section; where the record is too odd for one, a line that says so."""
    try:
        return make()
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        reason = typed_line(error)
        _log.warning("the report lacks the section '%s': %s", title, reason)
        _log.debug("the section '%s'", title, exc_info=True)
        return [prose(f"This section cannot be shown: the record holds odd values ({reason}).")]


def _timeline(run: Run) -> list[Markup]:
    if not run.events:
        return [prose("Nothing has been recorded yet.")]
    decisions = [
        (
            duration(event.at),
            event.step,
            str(event.phase),
            event.number,
            event.steps,
            event.reason,
        )
        for event in run.of(DecisionEvent)
    ]
    head = ("at", "step", "decision", "number", "steps", "reason")
    parts = [_legend(run), side_by_side(timeline.timeline(run))]
    if decisions:
        label = f"Decisions ({len(decisions)})"
        parts.append(folded(label, table(head, decisions, caption="Decisions")))
    return parts


def _legend(run: Run) -> Markup:
    """The bands that the run has."""
    found = {_band(phase) for phase in run.phases}
    bands = [
        Markup(f'<span><i class="band {name}"></i>{html(label)}</span>')
        for name, label in (
            ("kept", "kept phase"),
            ("dropped", "dropped phase"),
            ("done", "burst of fine-tuning"),
            ("running", "running, or cut off"),
        )
        if name in found
    ]
    if not bands:
        return Markup("")
    return Markup(f'<p class="legend">{join(bands)}<span>fine-tuning in between</span></p>')


def _band(phase: Phase) -> str:
    if phase.outcome in ("running", "cut off"):
        return "running"
    return "done" if phase.kind == "burst" and phase.outcome == "kept" else phase.outcome


def _frontier(run: Run) -> list[Markup]:
    drawn = figures.frontier(run)
    if not drawn:
        return []
    return [
        prose(
            "Each arrow is a phase, from what was measured before it to after it, on the guard's "
            "rows and the probe; the dotted line is the way of the run, fine-tuning included. To "
            "the right more instructions are followed; upwards more is retained. A dropped phase "
            "(hollow) was put back to where it began."
        ),
        side_by_side([drawn]),
    ]


def _pays(run: Run) -> list[Markup]:
    reserved = [str(name) for name in run.description.get("reserved") or ()]
    parts: list[Markup] = []
    drawings = []
    for what, title in (("families", "families"), ("constraints", "constraints")):
        measured = pays.over_run(run.phases, what)  # type: ignore[arg-type]  # one of the two
        if not measured:
            continue
        label = f"Pass rates by {title}, before the first phase and after the latest kept one"
        drawings.append(figures.changes(f"pays-{what}", f"by {title}", label, measured, reserved))
        inside = pays.in_kept(run.phases, what)  # type: ignore[arg-type]
        rows = [
            (
                f"{c.name}{' (reserved)' if c.name in reserved else ''}",
                c.rows,
                c.before,
                c.after,
                f"{c.change:+.3f} ± {c.half_width:.3f}",
                signed(sum(change for _, change in inside.get(c.name, ()))),
            )
            for c in measured
        ]
        head = (title, "rows", "before", "after", "change", "of it in kept phases")
        parts.append(folded(f"By {title} ({len(rows)})", table(head, rows, caption=label)))
    if not drawings:
        return []
    explanation = (
        "The share of greedy answers to held-out instructions that pass, before the first phase "
        "and after the latest kept one; fine-tuning in between is part of the change. The tables "
        "show the change by the kept phases alone, and ± 95 % as if the two were drawn apart."
    )
    star = " * marks reserved families, which are never trained on." if reserved else ""
    return [prose(explanation + star), side_by_side(drawings), *parts]


def _control(run: Run) -> list[Markup]:
    drawn = timeline.control(run)
    if not drawn:
        return []
    values_by_name = series.control(run)
    rows = [
        (series.CONTROL[name], len(points), points[0][1], min(values), max(values), points[-1][1])
        for name, points in values_by_name.items()
        for values in [[value for _, value in points]]
    ]
    head = ("", "logged", "first", "lowest", "highest", "last")
    caption = "Over the GRPO steps of all phases, one after another; upright lines part the phases."
    if not any("control-kl" in figure for figure in drawn):
        without = " No KL was measured: it takes a beta above 0, or guard.kl_samples."
    else:
        without = ""
    return [
        prose(caption + without),
        side_by_side(drawn),
        folded("Numbers", table(head, rows, caption=caption)),
    ]


def _rewards(answers: Answers) -> list[Markup]:
    if not answers.by_reward:
        return []
    drawn = [
        figures.distributions(reward, index, by_phase)
        for index, (reward, by_phase) in enumerate(answers.by_reward.items())
    ]
    rows = [
        (reward, scores.phase, scores.answers, scores.mean, scores.abstained, scores.errors)
        for reward, by_phase in answers.by_reward.items()
        for scores in by_phase
    ]
    head = ("reward", "phase", "answers", "mean score", "abstained", "errors")
    label = "Scores of all sampled answers"
    return [side_by_side(drawn), folded("By phase", table(head, rows, caption=label))]


def _honesty(run: Run) -> list[Markup]:
    drawn = figures.honesty(run)
    if not drawn:
        return []
    wires: dict[str, dict[str, float]] = defaultdict(dict)
    for phase in run.phases:
        for wire, share in (phase.metrics.get(TRIP_WIRES) or {}).items():
            wires[str(wire)][phase.name] = float(share)
    rows = [
        (wire, phase, share)
        for wire, by_phase in wires.items()
        for phase, share in by_phase.items()
    ]
    explanation = (
        "The gap is the gain on reported rows of trained families less that on reserved ones: far "
        "above 0, what was learned does not carry over. A trip wire notices answers that please a "
        "check and no reader."
    )
    head = ("wire", "phase", "share of answers after it")
    more = [folded("By wire", table(head, rows, caption="Tripped wires"))] if rows else []
    return [prose(explanation), side_by_side([drawn]), *more]


def _errors(run: Run, answers: Answers) -> list[Markup]:
    rows = [
        (
            event.plugin or "the run",
            event.number,
            event.step,
            event.count,
            event.reason,
        )
        for event in run.of(PluginErrorEvent)
    ]
    head = ("plugin", "phase", "at step", "answers", "the latest reason")
    parts = [table(head, rows, caption="Errors by plugin")] if rows else []
    unread = [(reason,) for reason in (*run.unread, *answers.unread)]
    if unread:
        parts.append(table(("what could not be read",), unread, caption="Unread"))
    return parts or [prose("None was recorded.")]


def _configuration(run: Run) -> list[Markup]:
    parts: list[Markup] = []
    environment = run.description.get("environment") or {}
    hashes = run.description.get("hashes") or {}
    rows = [(str(k), _listed(v)) for k, v in {**environment, **hashes}.items()]
    if rows:
        parts.append(table(("", ""), rows, caption="Environment and hashes"))
    versions = run.description.get("versions") or {}
    if versions:
        rows = [(str(k), str(v)) for k, v in versions.items()]
        parts.append(
            folded("Versions", table(("distribution", "version"), rows, caption="Versions"))
        )
    configured = {k: v for k, v in run.description.items() if k not in _OURS}
    parts.append(folded("Configuration", pre(configured)))
    return parts


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
