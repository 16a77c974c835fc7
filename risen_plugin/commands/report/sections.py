"""The sections of a report: a run in, HTML out. ``figures`` draws the figures."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from risen_plugin.commands.report import figures, pays, series
from risen_plugin.commands.report.answers import LONGEST, Answers
from risen_plugin.commands.report.markup import (
    Markup,
    badge,
    data,
    duration,
    folded,
    html,
    join,
    number,
    pre,
    prose,
    section,
    side_by_side,
    signed,
    table,
)
from risen_plugin.errors import typed_line
from risen_plugin.kit.jsonable import as_number
from risen_plugin.progress import ADHERENCE, PROBE_LOSS, TRIP_WIRES, VERDICT
from risen_plugin.record.events import DecisionEvent, GuardEvent, PluginErrorEvent
from risen_plugin.record.reading import Phase, Run

_log = logging.getLogger("risen_plugin")
_MOST_PHASES = 12  # columns of a table
_OURS = ("versions", "environment", "hashes")


def sections(run: Run, answers: Answers) -> Iterator[tuple[str, str, Markup]]:
    """Name, title and content of each section that is not empty."""
    for name, title, make in (
        ("timeline", "The run", lambda: _timeline(run)),
        ("frontier", "Adherence against retention", lambda: _frontier(run)),
        ("pays", "Where the combination pays", lambda: _pays(run)),
        ("verdicts", "Guard", lambda: _verdicts(run)),
        ("control", "KL, entropy and settings", lambda: _control(run)),
        ("rewards", "Rewards", lambda: _rewards(answers)),
        ("honesty", "Gap and trip wires", lambda: _honesty(run)),
        ("errors", "Errors", lambda: _errors(run, answers)),
        ("answers", "Best and worst answers", lambda: _answers(answers)),
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


def summary(run: Run, answers: Answers) -> Markup:
    """The run in a few figures."""
    reinforced = [phase for phase in run.phases if phase.kind == "risen"]
    kept = sum(bool(phase.accepted) for phase in reinforced)
    tiles: list[tuple[str, str]] = [("phases kept", f"{kept} of {len(reinforced)}")]
    for name, points in (
        ("strict adherence", next(iter(series.adherence(run).values()), [])),
        ("probe loss", series.retention(run)),
    ):
        if points:
            ending = _latest(run, points)
            tiles.append((name, f"{points[0][1]:.3f} → {ending:.3f}"))
    inside = sum((p.ends or run.seconds) - p.begins for p in reinforced)
    share = f", {inside / run.seconds:.0%} in phases" if run.seconds else ""
    tiles.append(("time", f"{duration(run.seconds)}{share}"))
    tiles.append(("sampled answers", f"{answers.count:,}"))
    state = "going on" if run.holder else "not running"
    tiles.append(("step", f"{run.step:,} ({state})"))
    cells = "".join(
        f"<div><dt>{html(name)}</dt><dd>{html(value)}</dd></div>" for name, value in tiles
    )
    return Markup(f'<dl class="tiles">{cells}</dl>')


def _latest(run: Run, points: series.Points) -> float:
    """The latest value of the model: measurements after dropped phases do not count."""
    dropped = [(p.begins, p.ends) for p in run.phases if p.accepted is False and p.ends is not None]
    values = [
        value
        for moment, value in points
        if not any(begins < moment <= ends for begins, ends in dropped)
    ]
    return (values or [points[0][1]])[-1]


def _timeline(run: Run) -> list[Markup]:
    if not run.events:
        return [prose("Nothing has been recorded yet.")]
    legend = Markup(
        '<p class="legend"><span><i class="band kept"></i>kept phase</span>'
        '<span><i class="band dropped"></i>dropped phase</span>'
        '<span><i class="band done"></i>burst of fine-tuning</span>'
        '<span><i class="band running"></i>running, or cut off</span>'
        "<span>fine-tuning in between</span></p>"
    )
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
    return [
        legend,
        Markup(figures.timeline(run)),
        folded(f"Decisions ({len(decisions)})", table(head, decisions, caption="Decisions")),
    ]


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
        drawings.append(figures.changes(f"pays-{what}", label, measured, reserved))
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


def _verdicts(run: Run) -> list[Markup]:
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
                str(phase.metrics.get(VERDICT) or phase.reason),
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
    parts = [table(head, rows, caption="Verdicts")]
    judged = [
        (
            event.number,
            event.when,
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


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_short(item) for item in value)}]"
    parsed = as_number(value)
    return str(value) if parsed is None else number(parsed)


def _control(run: Run) -> list[Markup]:
    drawn = figures.control(run)
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
    return [
        prose(caption),
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


def _answers(answers: Answers) -> list[Markup]:
    if not answers.shown:
        return []
    explanation = f"{len(answers.shown):,} of {answers.count:,} sampled answers"
    if len(answers.shown) < answers.count:
        explanation += (
            ": the best and the worst of each phase, reward and family, and some that failed"
        )
    explanation += (
        f". Texts are cut after {LONGEST:,} characters; completions.parquet has all of them."
    )
    phases = sorted({shown.phase for shown in answers.shown})
    families = sorted({shown.family for shown in answers.shown if shown.family})
    rewards = list(answers.by_reward)
    orders = [("best", "best first"), ("worst", "worst first")]
    orders += [
        (f"{end}:{index}", f"{word} by {reward}")
        for index, reward in enumerate(rewards)
        for end, word in (("best", "best"), ("worst", "worst"))
    ]
    controls = join(
        (
            Markup(
                '<label>Search <input type="search" id="answers-query" maxlength="200"></label>'
            ),
            _select("order", "Order", orders),
            _select("phase", "Phase", [("", "all"), *((str(p), str(p)) for p in phases)]),
            _select("family", "Family", [("", "all"), *((name, name) for name in families)]),
        )
    )
    content = data({"rewards": rewards, "answers": [_packed(s, rewards) for s in answers.shown]})
    return [
        prose(explanation),
        Markup(f'<form id="answers-form" role="search">{controls}</form>'),
        Markup('<p id="answers-count" role="status" aria-live="polite"></p>'),
        Markup('<ol id="answers-list"></ol>'),
        Markup('<button type="button" id="answers-more" hidden>Show more</button>'),
        Markup("<noscript><p>Searching the answers needs JavaScript.</p></noscript>"),
        Markup(f'<script type="application/json" id="answers-data">{content}</script>'),
    ]


def _packed(shown: Any, rewards: Sequence[str]) -> list[Any]:
    """One answer as the page's script reads it."""
    return [
        shown.phase,
        shown.step,
        shown.family,
        shown.prompt,
        shown.completion,
        None if shown.total is None else round(shown.total, 4),
        [_rounded(shown.scores.get(reward)) for reward in rewards],
        [[id_, met] for id_, met in shown.met],
    ]


def _rounded(score: float | str | None) -> float | str | None:
    return round(score, 4) if isinstance(score, float) else score


def _select(name: str, label: str, options: Sequence[tuple[str, str]]) -> Markup:
    inside = "".join(
        f'<option value="{html(value)}">{html(text)}</option>' for value, text in options
    )
    return Markup(f'<label>{html(label)} <select id="answers-{name}">{inside}</select></label>')


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
