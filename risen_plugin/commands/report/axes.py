"""Draw series on matplotlib axes: whole ticks, ranges that values can have, thresholds, phases."""

from __future__ import annotations

import importlib
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from risen_plugin.commands.report import series
from risen_plugin.commands.report.drawing import (
    BAD,
    BURST,
    DASHES,
    GOOD,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    Key,
)
from risen_plugin.record.reading import Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"kept": GOOD, "dropped": BAD, "done": BURST, "running": MUTED, "cut off": MUTED}
_MOST_MARKED = 40  # points of a line that have a marker each
_SLACK = 0.05  # of the range of an axis, beyond its data
_LETTER = 0.09  # inches of a letter above an axis
_AXIS_SHARE = 0.8  # of a figure's width


def colour_of(phase: Phase) -> str:
    """Of the outcome; a burst that was not dropped has a colour of its own."""
    is_kept_burst = phase.kind == "burst" and phase.outcome == "kept"
    return BURST if is_kept_burst else _COLOURS[phase.outcome]


def keys(lines: Mapping[str, series.Points]) -> list[Key]:
    """The entries of the key for what :func:`draw_lines` draws."""
    return [
        Key(name, *_style(number), _marker(number, lines[name]))
        for number, name in enumerate(lines)
    ]


def threshold_key(label: str) -> Key:
    return Key(label, INK, DASHES[1])


def draw_lines(
    axis: Axes,
    lines: Mapping[str, series.Points],
    scale: float = 1.0,
    breaks: Sequence[float] = (),
) -> None:
    """Draw series of (x, y); a line is broken where it goes from one phase into the next.

    :param scale: of x, in the unit of the axis.
    :param breaks: the x up to which, itself included, one phase goes.
    """
    for number, points in enumerate(lines.values()):
        colour, dash = _style(number)
        thin = _broken(series.thinned(points), breaks)
        axis.plot(
            [x / scale for x, _ in thin],
            [y for _, y in thin],
            color=colour,
            linestyle=dash,
            marker=_marker(number, points),
            clip_on=False,
        )


def draw_band(
    axis: Axes, ends: Sequence[tuple[float, float, float]], breaks: Sequence[float]
) -> None:
    """Draw how sure the first series is; the band ends where a phase does.

    :param ends: (x, the least, the most).
    """
    colour, _ = _style(0)
    begin = -math.inf
    for end in [*breaks, math.inf]:
        within = [values for values in ends if begin < values[0] <= end]
        if within:
            places, low, high = (list(values) for values in zip(*within, strict=True))
            axis.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
        begin = end


def draw_threshold(axis: Axes, y: float, begins: float, ends: float) -> None:
    """A threshold, where it applies."""
    axis.plot([begins, ends], [y, y], color=INK, linestyle=DASHES[1], linewidth=1.2, clip_on=False)


def keep_within(axis: Axes, low: float | None = None, high: float | None = None) -> None:
    """Keep the y axis of drawn series in the range that its values can have."""
    bottom, top = axis.get_ylim()
    axis.set_ylim(
        bottom if low is None else max(bottom, low), top if high is None else min(top, high)
    )


def span_share(axis: Axes, values: Sequence[float]) -> None:
    """Show the whole range of a share; where values are none, a little more than they span."""
    if all(0.0 <= value <= 1.0 for value in values):
        axis.set_ylim(0.0, 1.0)
        axis.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0])


def whole_ticks(axis: Axes, first: float, last: float) -> None:
    """Let x go from ``first`` to ``last``, which are numbers of phases or steps, by whole ticks."""
    locator: Any = importlib.import_module("matplotlib.ticker").MaxNLocator
    slack = max(0.5, (last - first) * _SLACK / 2)
    axis.set_xlim(first - slack, last + slack)
    ticks = locator(8, integer=True, min_n_ticks=1).tick_values(first, last)
    axis.set_xticks([round(tick) for tick in ticks if first <= tick <= last] or [round(first)])


def name_phases(axis: Axes, phases: Sequence[Phase], spans: Sequence[tuple[float, float]]) -> None:
    """Write the numbers of phases above the axis, where there is room, in the axis' unit."""
    low, high = axis.get_xlim()
    figure: Any = axis.get_figure()
    width = figure.get_figwidth()
    a_letter = (high - low) * _LETTER / (width * _AXIS_SHARE)
    taken = -math.inf
    for phase, (begins, ends) in zip(phases, spans, strict=True):
        mark = {"kept": "✓", "dropped": "✗"}.get(phase.outcome, "")
        label = f"{'b' if phase.kind == 'burst' else ''}{phase.number}{mark}"
        middle, half = (begins + ends) / 2, (len(label) + 1) * a_letter / 2
        if middle - half < taken:
            continue
        axis.text(
            middle,
            1.0,
            label,
            transform=axis.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=9,
            color=colour_of(phase),
        )
        taken = middle + half


def _style(number: int) -> tuple[str, Any]:
    return SERIES[number % len(SERIES)], DASHES[number % len(DASHES)]


def _marker(number: int, points: series.Points) -> str | None:
    return MARKERS[number % len(MARKERS)] if len(points) <= _MOST_MARKED else None


def _broken(points: series.Points, breaks: Sequence[float]) -> series.Points:
    """The points with a gap, which is no number, wherever a break lies between two."""
    broken: series.Points = []
    for index, point in enumerate(points):
        if index and _part(points[index - 1][0], breaks) != _part(point[0], breaks):
            broken.append((point[0], math.nan))
        broken.append(point)
    return broken


def _part(x: float, breaks: Sequence[float]) -> int:
    """In which part ``x`` lies; a break belongs to the part before it."""
    return bisect_right(breaks, math.nextafter(x, -math.inf))
