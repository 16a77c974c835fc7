"""The top of a report: which model it is of, what to decide, and the run in a few figures."""

from __future__ import annotations

from datetime import UTC, datetime

from risen_plugin.commands.report import series
from risen_plugin.commands.report.answers import Answers
from risen_plugin.commands.report.decision import decision_of
from risen_plugin.commands.report.markup import Markup, duration, html, join
from risen_plugin.record.reading import Run

_MONTHS = (  # whatever language the machine speaks
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)


def heading(run: Run) -> Markup:
    """The run's name, its model, and the days on which it began and was resumed, in UTC."""
    environment = run.description.get("environment") or {}
    model = run.description.get("model") or {}
    facts = [
        (name, html(value))
        for name, value in (
            ("model", model.get("name") or model.get("class")),
            ("begun", _moment(environment.get("begun"))),
            ("resumed", _moment(environment.get("resumed"))),
        )
        if value
    ]
    shown = join(Markup(f"<span><b>{html(name)}</b> {value}</span>") for name, value in facts)
    about = f'<p class="about">{shown}</p>' if facts else ""
    return Markup(f"<h1>{html(run.name)}</h1>{about}")


def _moment(recorded: object) -> Markup | None:
    """A moment of the record as people read it, in UTC; None if it is none.

    >>> _moment("2026-11-29T18:42:14+02:00")
    '<time datetime="2026-11-29T16:42Z">29 November 2026, 16:42 UTC</time>'
    """
    try:
        moment = datetime.fromisoformat(str(recorded))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    moment = moment.astimezone(UTC)
    month = _MONTHS[moment.month - 1]
    text = f"{moment.day} {month} {moment.year}, {moment:%H:%M} UTC"
    return Markup(f'<time datetime="{moment:%Y-%m-%dT%H:%M}Z">{text}</time>')


def decision(run: Run) -> Markup:
    """What was gained, what it cost and whether to ship it, in a sentence each."""
    told = decision_of(run)
    if told is None:
        return Markup("")
    kind = told.advice.replace(" ", "-")
    lines = "".join(f"<p>{html(sentence)}</p>" for sentence in told.sentences)
    return Markup(f'<div class="decision {kind}" role="note" aria-label="Decision">{lines}</div>')


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
