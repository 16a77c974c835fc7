"""The figures of a report that are by phase, family or score: data in, an HTML element out, or "".

``timeline`` has those over the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from risen_plugin.commands.report import limits, series
from risen_plugin.commands.report.answers import BINS, Scores
from risen_plugin.commands.report.axes import (
    colour_of,
    draw_lines,
    draw_threshold,
    keep_within,
    keys,
    threshold_key,
    whole_ticks,
)
from risen_plugin.commands.report.drawing import (
    BAD,
    DASHES,
    GOOD,
    HOLLOW,
    INK,
    MUTED,
    SERIES,
    Key,
    drawn,
)
from risen_plugin.commands.report.markup import number
from risen_plugin.commands.report.pays import Change
from risen_plugin.progress import GAP, TRIP_WIRE_RATE
from risen_plugin.record.reading import Phase, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_BARS = 40


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
            colour = colour_of(phase)
            axis.annotate(
                "",
                (x1, y1),
                (x0, y0),
                arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.6},
            )
            face = colour if phase.accepted else "none"
            axis.plot(x1, y1, "o", color=colour, markerfacecolor=face, markersize=6, clip_on=False)
        axis.margins(0.12)
        low, high = axis.get_xlim()
        axis.set_xlim(max(0.0, low), min(1.0, high))
        if min(y for _, y in way) >= 0.0:
            keep_within(axis, low=0.0)
        axis.invert_yaxis()
        _number_ends(axis, moves)
        axis.set_xlabel("strict adherence, guard's rows →")
        axis.set_ylabel("probe loss, better upwards →")

    title = "Each phase's way between adherence and retention: right and up is better"
    return drawn("frontier", title, draw, width=5.5, height=3.8)


def _number_ends(axis: Axes, moves: Sequence[series.Move]) -> None:
    """Write the phases' numbers beside the ends of their arrows, where there is room."""
    taken: list[tuple[float, float]] = []
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    for phase, _, after in reversed(moves):
        if after is None:
            continue
        place = (after[0] - left) / (right - left), (after[1] - bottom) / (top - bottom)
        if any(abs(place[0] - x) < 0.06 and abs(place[1] - y) < 0.07 for x, y in taken):
            continue
        taken.append(place)
        aside = (-6, "right") if place[0] > 0.94 else (6, "left")
        axis.annotate(
            str(phase.number),
            after,
            (aside[0], 5),
            textcoords="offset points",
            ha=aside[1],
            color=colour_of(phase),
        )


def changes(
    name: str, caption: str, title: str, measured: Sequence[Change], marked: Sequence[str] = ()
) -> str:
    """Pass rates before and after, by family or constraint; ``marked`` names get a star."""
    if not measured:
        return ""
    shown = list(measured[:_MOST_BARS])[::-1]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for line, change in enumerate(shown):
            colour = GOOD if change.change > 0 else BAD if change.change < 0 else MUTED
            both: dict[str, Any] = {"color": colour, "clip_on": False}
            axis.plot([change.before, change.after], [line, line], linewidth=2.5, **both)
            hollow: dict[str, Any] = {"color": INK, "markerfacecolor": "none", "clip_on": False}
            axis.plot(change.before, line, "o", markersize=6, **hollow)
            axis.plot(change.after, line, "o", markersize=6, **both)
            label = _short(f"{change.name}{' *' if change.name in marked else ''}")
            axis.annotate(label, (0, line), (0, 7), textcoords="offset points", fontsize=9)
        axis.set_yticks([])
        axis.set_ylim(-0.5, len(shown) - 0.2)
        axis.set_xlim(0.0, 1.0)
        axis.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0])
        axis.set_xlabel("share passed")

    key = [
        Key("before", INK, None, HOLLOW),
        Key("after, more", GOOD, marker="o"),
        Key("after, fewer", BAD, marker="o"),
    ]
    size = {"width": 5.5, "height": 0.7 + 0.36 * len(shown)}
    return drawn(name, title, draw, caption=caption, key=key, **size)


def distributions(reward: str, place: int, by_phase: Sequence[Scores]) -> str:
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
            )
        axis.set_xlabel("score")
        axis.set_ylabel("share of answers")
        axis.set_ylim(0, None)
        keep_within(axis, high=1.0)

    title = f"Scores of {reward} among sampled answers"
    key = [
        Key(f"phase {scores.phase}, mean {scores.mean:.2f}", SERIES[index], DASHES[index])
        for index, scores in enumerate(ends)
    ]
    size = {"width": 3.6, "height": 2.4}
    return drawn(f"reward-{place}", title, draw, caption=reward, key=key, **size)


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

    most = limits.setting(run, "guard", f"max_{GAP}")

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.axhline(0.0, color=MUTED, linewidth=1.0)
        draw_lines(axis, lines)
        numbers = [x for points in lines.values() for x, _ in points]
        whole_ticks(axis, min(numbers), max(numbers))
        if most is not None:
            draw_threshold(axis, most, *axis.get_xlim())
        axis.set_xlabel("phase")

    key = keys(lines)
    if most is not None:
        key.append(threshold_key(f"largest gap to be kept: {number(most)}"))
    title = "Gap and trip-wire rate by phase"
    return drawn("honesty", title, draw, width=5.5, height=2.4, key=key)


def judged(run: Run) -> list[str]:
    """What the guard judged phases by: a figure each, with the threshold as a line."""
    figures = []
    for place, amount in enumerate(limits.amounts(run)):
        found = [
            (phase, value)
            for phase in run.phases
            if (value := limits.measured(phase, amount.name)) is not None
        ]
        if found:
            figures.append(_judged(run, place, amount, found))
    return figures


def _judged(
    run: Run,
    place: int,
    amount: limits.Amount,
    found: Sequence[tuple[Phase, tuple[float, float, float]]],
) -> str:
    levels = [(phase, limits.limit(run, phase, amount.name)) for phase, _ in found]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.axhline(0.0, color=MUTED, linewidth=1.0)
        for phase, (value, low, high) in found:
            style: dict[str, Any] = {"color": colour_of(phase), "clip_on": False}
            axis.plot([phase.number] * 2, [low, high], linewidth=1.6, **style)
            face = "none" if phase.outcome == "dropped" else colour_of(phase)
            axis.plot(phase.number, value, "o", markersize=6, markerfacecolor=face, **style)
        for phase, level in levels:
            if level is not None:
                draw_threshold(axis, level, phase.number - 0.5, phase.number + 0.5)
        whole_ticks(axis, found[0][0].number, found[-1][0].number)
        axis.set_xlabel("phase")

    told = dict.fromkeys(
        f"{number(level)}{' for bursts' if phase.kind == 'burst' else ''}"
        for phase, level in levels
        if level is not None
    )
    word = "at least" if amount.is_least else "at most"
    key = [threshold_key(f"{word} {', '.join(told)}")] if told else []
    title = f"{amount.caption} by phase, and the guard's threshold"
    size = {"width": 3.6, "height": 2.4}
    return drawn(f"judged-{place}", title, draw, caption=amount.caption, key=key, **size)


def _short(label: str, most: int = 44) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"
