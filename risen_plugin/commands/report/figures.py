"""The figures of a report: each function turns plain data into an HTML element, or into ""."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from risen_plugin.commands.report import series
from risen_plugin.commands.report.answers import BINS, Scores
from risen_plugin.commands.report.drawing import (
    BAD,
    BURST,
    DASHES,
    GOOD,
    GRID,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    drawn,
)
from risen_plugin.commands.report.pays import Change
from risen_plugin.progress import GAP, TRIP_WIRE_RATE
from risen_plugin.record.reading import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BANDS = {"kept": GOOD, "dropped": BAD, "done": BURST, "running": MUTED, "cut off": MUTED}
_MOST_BARS = 40
_SET = ("beta", "learning_rate", "temperature")


def timeline(run: Run) -> str:
    """The phases as bands over adherence, domain quality, retention and the run's own losses."""
    panels: list[tuple[str, dict[str, series.Points]]] = [
        ("strict adherence", series.adherence(run)),
        ("domain quality", series.quality(run)),
        ("retention: probe loss in nats per token, lower is better", _probe(run)),
        ("losses of fine-tuning", series.losses(run)),
    ]
    shown = [(name, lines) for name, lines in panels if any(lines.values())]
    if not shown:
        return ""
    unit, scale = _unit(run.seconds)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (name, lines) in zip(axes, shown, strict=True):
            for phase in run.phases:
                ends = phase.ends if phase.ends is not None else run.seconds
                axis.axvspan(
                    phase.begins / scale,
                    max(ends, phase.begins + run.seconds / 500) / scale,
                    color=_BANDS[phase.outcome],
                    alpha=0.16,
                    linewidth=0,
                )
            _lines(axis, lines, scale)
            axis.set_title(name, pad=16 if axis is axes[0] else None)
            axis.set_xlim(0, max(run.seconds, 1e-9) / scale)
            if lines:
                axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        _name_phases(axes[0], run, scale)
        axes[-1].set_xlabel(f"{unit} of the run")

    title = "Adherence, domain quality and retention over the run, with its phases as bands"
    return drawn("timeline", title, draw, width=11, height=0.6 + 1.6 * len(shown), wide=True)


def _probe(run: Run) -> dict[str, series.Points]:
    points = series.retention(run)
    return {"probe": points} if points else {}


def _name_phases(axis: Axes, run: Run, scale: float) -> None:
    """Write the phases' numbers above their bands, where there is room."""
    last = -1.0
    for phase in run.phases:
        ends = phase.ends if phase.ends is not None else run.seconds
        middle = (phase.begins + ends) / 2
        if middle - last > run.seconds / 45:
            mark = {"kept": "✓", "dropped": "✗"}.get(phase.outcome, "")
            letter = "b" if phase.kind == "burst" else ""
            axis.text(
                middle / scale,
                1.0,
                f"{letter}{phase.number}{mark}",
                transform=axis.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=8,
                color=_BANDS[phase.outcome],
            )
            last = middle


def _lines(axis: Axes, lines: dict[str, series.Points], scale: float = 1.0) -> None:
    for number, (name, points) in enumerate(lines.items()):
        thin = series.thinned(points)
        axis.plot(
            [x / scale for x, _ in thin],
            [y for _, y in thin],
            color=SERIES[number % len(SERIES)],
            linestyle=DASHES[number % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)] if len(thin) <= 60 else None,
            label=name,
        )


def _unit(seconds: float) -> tuple[str, float]:
    """The unit in which to show ``seconds``, and the number of seconds in it."""
    if seconds < 300:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def frontier(run: Run) -> str:
    """The moves of phases between adherence and retention, and of fine-tuning in between."""
    moves = series.moves(run.phases)
    if not moves:
        return ""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        way = series.way(moves)
        axis.plot(
            [x for x, _ in way],
            [y for _, y in way],
            color=MUTED,
            linestyle=DASHES[2],
            linewidth=1.2,
            marker=".",
        )
        for phase, (x0, y0), after in moves:
            if after is None:
                continue
            x1, y1 = after
            colour = _BANDS[phase.outcome]
            axis.annotate(
                "",
                (x1, y1),
                (x0, y0),
                arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.6},
            )
            face = colour if phase.accepted else "none"
            axis.plot(x1, y1, "o", color=colour, markerfacecolor=face, markersize=6)
            axis.annotate(
                str(phase.number), (x1, y1), (5, 4), textcoords="offset points", color=colour
            )
        axis.margins(0.12)
        axis.invert_yaxis()
        axis.set_xlabel("strict adherence, guard's rows →")
        axis.set_ylabel("probe loss, better upwards →")

    title = "Each phase's way between adherence and retention: right and up is better"
    return drawn("frontier", title, draw, width=5.2, height=3.8)


def changes(name: str, title: str, measured: Sequence[Change], marked: Sequence[str] = ()) -> str:
    """Pass rates before and after, by family or constraint; ``marked`` names get a star."""
    if not measured:
        return ""
    shown = list(measured[:_MOST_BARS])[::-1]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for line, change in enumerate(shown):
            colour = GOOD if change.change > 0 else BAD if change.change < 0 else MUTED
            axis.plot([change.before, change.after], [line, line], color=colour, linewidth=2.5)
            axis.plot(change.before, line, "o", color=INK, markerfacecolor="none", markersize=6)
            axis.plot(change.after, line, "o", color=colour, markersize=6)
        labels = [f"{c.name}{' *' if c.name in marked else ''}" for c in shown]
        axis.set_yticks(range(len(shown)), [_short(label) for label in labels])
        axis.set_ylim(-0.6, len(shown) - 0.4)
        axis.set_xlim(-0.03, 1.03)
        axis.set_xlabel("share passed, ○ before, ● after")
        axis.grid(axis="y", visible=False)

    return drawn(name, title, draw, width=5.2, height=1.0 + 0.27 * len(shown))


def distributions(reward: str, number: int, by_phase: Sequence[Scores]) -> str:
    """The scores that a reward gave, in the first and in the last phase."""
    ends = [by_phase[0], by_phase[-1]] if len(by_phase) > 1 else [by_phase[0]]
    ends = [scores for scores in ends if sum(scores.counts)]
    if not ends:
        return ""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for index, scores in enumerate(ends):
            width = (scores.high - scores.low) / BINS
            shares = [count / sum(scores.counts) for count in scores.counts]
            axis.stairs(
                shares,
                [scores.low + width * edge for edge in range(BINS + 1)],
                color=SERIES[index],
                linestyle=DASHES[index],
                linewidth=1.8,
                fill=False,
                label=f"phase {scores.phase}, mean {scores.mean:.2f}",
            )
        axis.set_title(_short(reward))
        axis.set_xlabel("score")
        axis.set_ylabel("share of answers")
        axis.set_ylim(0, None)
        axis.legend(loc="best")

    title = f"Scores of {reward} among sampled answers"
    return drawn(f"reward-{number}", title, draw, width=3.6, height=2.5)


def control(run: Run) -> list[str]:
    """A figure for each value that TRL logged or controllers set, over GRPO steps."""
    values = series.control(run)
    beginnings = list(series.starts(run.phases).values())
    figures = []
    for number, (name, points) in enumerate(values.items()):
        if len({value for _, value in points}) == 1 and name in _SET:
            continue  # the configuration shows a constant

        def draw(figure: Figure, name: str = name, points: series.Points = points) -> None:
            axis = figure.subplots()
            for beginning in beginnings[1:]:
                axis.axvline(beginning, color=GRID, linewidth=1.2)
            _lines(axis, {name: points})
            axis.set_title(series.CONTROL[name])
            axis.set_xlabel("GRPO step of the run")

        title = f"{series.CONTROL[name]} over the GRPO steps of all phases"
        figures.append(drawn(f"control-{number}", title, draw, width=3.6, height=2.4))
    return figures


def honesty(run: Run) -> str:
    """The gap to reserved families and the share of answers that trip a wire, by phase."""
    lines = {
        name: [
            (float(phase.number), value)
            for phase in run.phases
            if (value := phase.number_of(metric)) is not None
        ]
        for name, metric in (("gap to reserved families", GAP), ("trip-wire rate", TRIP_WIRE_RATE))
    }
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.axhline(0.0, color=MUTED, linewidth=1.0)
        _lines(axis, lines)
        axis.set_xlabel("phase")
        axis.set_title("gap and trip wires")
        axis.locator_params(axis="x", integer=True)
        axis.legend(loc="best")

    return drawn("honesty", "Gap and trip-wire rate by phase", draw, width=3.6, height=2.4)


def _short(label: str, most: int = 44) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"
