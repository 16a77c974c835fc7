"""The figures over a run: over its seconds, and over the GRPO steps of its phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from risen_plugin.commands.report import limits, series
from risen_plugin.commands.report.axes import (
    colour_of,
    draw_band,
    draw_lines,
    draw_threshold,
    keep_within,
    keys,
    name_phases,
    span_share,
    threshold_key,
    whole_ticks,
)
from risen_plugin.commands.report.drawing import GRID, Key, drawn
from risen_plugin.commands.report.markup import number
from risen_plugin.kit.smoothing import WINDOW
from risen_plugin.progress import ADHERENCE, PROBE_LOSS
from risen_plugin.record.reading import Phase, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SET = ("learning_rate", "temperature", "beta")
_LOWEST: Mapping[str, float] = dict.fromkeys(
    ("kl", "entropy", "mismatch_kl", "beta", "learning_rate", "temperature"), 0.0
)
_SET_LIMITS = {
    "entropy": ("floor", "control", "entropy_floor"),
    "mismatch_kl": ("warning", "rollout", "max_mismatch"),
}
_FORWARD_KL = "forward KL, by the guard"


@dataclass(frozen=True)
class _Panel:
    """One measure over the seconds of a run.

    :param judged: what the guard judges of it, and the metric that is judged.
    """

    name: str
    caption: str
    lines: Mapping[str, series.Points]
    is_share: bool = False
    judged: tuple[str, str] | None = None


def timeline(run: Run) -> list[str]:
    """The phases as bands over adherence, retention, domain quality and the run's own losses."""
    panels = [
        _Panel(
            "adherence",
            "strict adherence",
            series.adherence(run),
            is_share=True,
            judged=(limits.GAIN, ADHERENCE),
        ),
        _Panel("quality", "domain quality", series.quality(run), is_share=True),
        _Panel(
            "retention",
            "retention: probe loss in nats per token, lower is better",
            _probe(run),
            judged=(limits.PROBE_LOSS_RISE, PROBE_LOSS),
        ),
        _Panel("losses", "losses of fine-tuning", series.losses(run)),
    ]
    return [_over_time(run, panel) for panel in panels if any(panel.lines.values())]


def _probe(run: Run) -> dict[str, series.Points]:
    points = series.retention(run)
    return {"probe": points} if points else {}


def _over_time(run: Run, panel: _Panel) -> str:
    unit, scale = _unit(run.seconds)
    values = [y for points in panel.lines.values() for _, y in points]
    thresholds = _thresholds(run, *panel.judged) if panel.judged else []
    if panel.is_share:
        thresholds = [line for line in thresholds if line[0] <= 1.0]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        spans = []
        for phase in run.phases:
            ends = phase.ends if phase.ends is not None else run.seconds
            span = phase.begins / scale, max(ends, phase.begins + run.seconds / 500) / scale
            axis.axvspan(*span, color=colour_of(phase), alpha=0.16, linewidth=0)
            spans.append(span)
        draw_lines(axis, panel.lines, scale)
        for y, begins, ends in thresholds:
            draw_threshold(axis, y, begins / scale, ends / scale)
        axis.set_xlim(0, max(run.seconds, 1e-9) / scale)
        if panel.is_share:
            span_share(axis, values)
        elif min(values) >= 0.0:
            keep_within(axis, low=0.0)
        name_phases(axis, run.phases, spans)
        axis.set_xlabel(f"{unit} of the run")

    title = f"{panel.caption} over the run, with its phases as bands"
    key = keys(panel.lines) if len(panel.lines) > 1 or thresholds else []
    if thresholds and panel.judged:
        key.append(threshold_key(_in_words(run, panel.judged[0])))
    size = {"width": 5.5, "height": 2.5}
    return drawn(f"timeline-{panel.name}", title, draw, caption=panel.caption, key=key, **size)


def _thresholds(run: Run, name: str, metric: str) -> list[tuple[float, float, float]]:
    """What a measure had to reach, or not to exceed, in each phase: (value, begin, end)."""
    found = []
    for phase in run.phases:
        before = phase.number_of(f"{metric}_before")
        limit = limits.limit(run, phase, name)
        if before is not None and limit is not None:
            ends = phase.ends if phase.ends is not None else run.seconds
            found.append((before + limit, phase.begins, ends))
    return found


def _in_words(run: Run, name: str) -> str:
    """A threshold as the key names it, for phases and for bursts."""
    by_kind: dict[str, dict[str, None]] = {}
    for phase in run.phases:
        limit = limits.limit(run, phase, name)
        if limit is not None:
            by_kind.setdefault(phase.kind, {})[number(limit)] = None
    word = "least gain to be kept" if name == limits.GAIN else "largest rise to be kept"
    told = [
        ", ".join(values) + (" (bursts)" if kind == "burst" else "")
        for kind, values in by_kind.items()
    ]
    return f"{word}: {'; '.join(told)}"


def _unit(seconds: float) -> tuple[str, float]:
    """The unit in which to show ``seconds``, and the number of seconds in it."""
    if seconds < 300:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def control(run: Run) -> list[str]:
    """A figure for each value that TRL logged or controllers set, over GRPO steps; the KL first."""
    values = series.control(run)
    forward = series.forward_kl(run)
    figures = []
    kl = {"GRPO's, logged": values.pop("kl", []), _FORWARD_KL: forward}
    kl = {name: points for name, points in kl.items() if points}
    if kl:
        lines = {
            "target": limits.setting(run, "control", "kl_target"),
            "budget of a phase": limits.setting(run, "control", "kl_budget"),
            "largest forward KL": limits.setting(run, "guard", "max_forward_kl"),
        }
        caption = f"{series.CONTROL['kl']}, nats per token"
        figures.append(_over_steps(run, "kl", caption, kl, lines))
    for name, points in values.items():
        if len({value for _, value in points}) == 1 and name in _SET:
            continue  # the configuration shows a constant
        told: dict[str, float | None] = {}
        if name in _SET_LIMITS:
            label, section, setting = _SET_LIMITS[name]
            told[label] = limits.setting(run, section, setting)
        band = series.smoothed_reward(run) if name == "reward" else None
        drawn_lines = {name: points}
        if band is not None:
            drawn_lines = {f"mean of {WINDOW} steps, ± its standard error": band.line}
            drawn_lines["each step"] = points
        figures.append(_over_steps(run, name, series.CONTROL[name], drawn_lines, told, band=band))
    return figures


def _over_steps(
    run: Run,
    name: str,
    caption: str,
    lines: Mapping[str, series.Points],
    thresholds: Mapping[str, float | None],
    *,
    band: series.Band | None = None,
) -> str:
    """Series over the GRPO steps of all phases in a row, with thresholds that hold for all."""
    phases, spans = _spans(run)
    last = max(
        [end for _, end in spans] + [x for points in lines.values() for x, _ in points] + [1.0]
    )
    levels = {label: value for label, value in thresholds.items() if value is not None}

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.grid(axis="x", visible=False)
        for begins, _ in spans[1:]:
            axis.axvline(begins + 0.5, color=GRID, linewidth=1.2)
        if band is not None:
            draw_band(axis, band.ends, breaks=[end for _, end in spans])
        draw_lines(axis, lines, breaks=[end for _, end in spans])
        for value in levels.values():
            draw_threshold(axis, value, 0.5, last + 0.5)
        low = _LOWEST.get(name)
        if low is not None and all(y >= low for points in lines.values() for _, y in points):
            axis.set_ylim(low, None)
        whole_ticks(axis, 1, last)
        name_phases(axis, phases, [(begins + 0.5, end + 0.5) for begins, end in spans])
        axis.set_xlabel("GRPO step of the run")

    title = f"{caption} over the GRPO steps of all phases"
    key = _level_keys(lines, levels)
    size = {"width": 3.6, "height": 2.4}
    return drawn(f"control-{name.replace('_', '-')}", title, draw, caption=caption, key=key, **size)


def _level_keys(lines: Mapping[str, series.Points], levels: Mapping[str, float]) -> list[Key]:
    key = keys(lines) if len(lines) > 1 or levels else []
    if levels:
        told = ", ".join(f"{label} {number(value)}" for label, value in levels.items())
        key.append(threshold_key(told))
    return key


def _spans(run: Run) -> tuple[Sequence[Phase], Sequence[tuple[float, float]]]:
    """The RISEN phases, and the GRPO steps of the run before each and at its end."""
    before = series.starts(run.phases)
    phases = [phase for phase in run.phases if phase.kind == "risen"]
    ends = [before[phase.number] + float(phase.steps) for phase in phases]
    return phases, [(float(before[p.number]), end) for p, end in zip(phases, ends, strict=True)]
