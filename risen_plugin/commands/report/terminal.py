"""A run in a few lines of text: the strip of its phases and the latest measurements. Pure."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any

from risen_plugin.commands.report import series
from risen_plugin.commands.report.decision import decision_of
from risen_plugin.commands.report.markup import duration, number
from risen_plugin.commands.report.paired import by_change, change, checks, compared
from risen_plugin.progress import VERDICT
from risen_plugin.record.answered import Answer, Pair
from risen_plugin.record.events import PluginErrorEvent
from risen_plugin.record.reading import Run

_MARKS = {"kept": "█", "dropped": "░", "done": "▒", "running": "▶", "cut off": "▷"}
_FINE_TUNE = "·"
_LATEST_PHASES = 5
_LINES = 3
_CHANGED = 3  # instructions that risen report prints with both answers


def lines(run: Run, width: int = 80) -> list[str]:
    """The lines that ``risen watch`` shows, none longer than ``width`` characters."""
    shown = [_head(run), *_strip(run, width)]
    for name, points in _measured(run):
        values = [value for _, value in points]
        shown.append(
            f"{name:<26} {number(values[-1]):>9}  "
            f"{series.sparkline(values, max(4, min(32, width - 40)))}"
        )
    latest = list(run.of(PluginErrorEvent))[-1:]
    errors = [f"error of {event.plugin or 'the run'}: {event.reason}" for event in latest]
    errors += [f"left out: {line}" for line in run.unread]
    shown = [_fit(line, width) for line in shown]
    return shown + [line for long in _phases(run) + errors for line in _folded(long, width)]


def decision_lines(run: Run, width: int = 80) -> list[str]:
    """What ``risen report`` prints: the three sentences, and instructions that changed."""
    told = decision_of(run)
    if told is None:
        return []
    shown = [line for sentence in told.sentences for line in _whole(sentence, width)]
    found = compared(run)
    pairs = by_change(found.pairs) if found else []
    changed = [pair for pair in pairs if pair.has_text and change(pair) != "same"]
    for pair in changed[:_CHANGED]:
        shown += ["", *_folded(f"{change(pair)}: {pair.prompt}", width)]
        for when, answer in (("before", pair.before), ("after", pair.after)):
            shown += _folded(f"  {when:<7}{_marks(pair, answer)} {answer.text}", width)
    return shown


def _marks(pair: Pair, answer: Answer) -> str:
    """What an answer was judged by, in words."""
    return f"[{', '.join(text for _, text in checks(pair.constraints, answer))}]"


def _whole(line: str, width: int) -> list[str]:
    return textwrap.wrap(_plain(line), max(width, 4), subsequent_indent="  ")


def state(run: Run) -> dict[str, Any]:
    """A run as it is now, as ``risen watch --json`` prints it."""
    return {
        "run": run.name,
        "step": run.step,
        "seconds": run.seconds,
        "going_on": run.holder is not None,
        "latest": {name: points[-1][1] for name, points in _measured(run)},
        "phases": [
            {
                "kind": phase.kind,
                "number": phase.number,
                "step": phase.step,
                "steps": phase.steps,
                "outcome": phase.outcome,
                "reason": str(phase.metrics.get(VERDICT) or phase.reason),
            }
            for phase in run.phases
        ],
        "errors": [
            {"plugin": event.plugin, "reason": event.reason} for event in run.of(PluginErrorEvent)
        ],
    }


def _head(run: Run) -> str:
    state = "going on" if run.holder else "not running"
    return f"{run.name}: step {run.step:,} after {duration(run.seconds)} ({state})"


def _strip(run: Run, width: int) -> list[str]:
    """The run's time from left to right: fine-tuning, and phases by their outcome."""
    if not run.events:
        return ["nothing has been recorded yet"]
    seconds = max(run.seconds, 1e-9)
    cells = [_FINE_TUNE] * max(8, width)
    for phase in run.phases:
        ends = phase.ends if phase.ends is not None else seconds
        first = min(len(cells) - 1, int(phase.begins / seconds * len(cells)))
        last = min(len(cells), max(first + 1, round(ends / seconds * len(cells))))
        cells[first:last] = _MARKS[phase.outcome] * (last - first)
    legend = f"{_FINE_TUNE} fine-tuning  █ kept  ░ dropped  ▒ burst  ▶ running  ▷ cut off"
    return ["".join(cells), legend]


def _measured(run: Run) -> list[tuple[str, series.Points]]:
    series_by_name: list[tuple[str, series.Points]] = [
        (f"adherence, {name}", points) for name, points in series.adherence(run).items()
    ]
    series_by_name.append(("probe loss", series.retention(run)))
    series_by_name.append(("training loss", series.losses(run).get("training", [])))
    control = series.control(run)
    series_by_name += [
        (name, control.get(name, [])) for name in ("reward", "kl", "entropy", "mismatch_kl", "beta")
    ]
    return [(name, points) for name, points in series_by_name if points]


def _phases(run: Run) -> list[str]:
    verdicts = []
    for phase in run.phases[-_LATEST_PHASES:]:
        reason = str(phase.metrics.get(VERDICT) or phase.reason)
        verdicts.append(f"step {phase.step}: {phase.name} {phase.outcome}: {reason}")
    return verdicts


def _folded(line: str, width: int) -> list[str]:
    """A line folded into as many as it takes, up to three."""
    return textwrap.wrap(
        _plain(line), max(width, 4), subsequent_indent="  ", max_lines=_LINES, placeholder=" …"
    )


def _plain(line: str) -> str:
    """``line`` without control characters: reasons come from plugins."""
    return "".join(
        " " if unicodedata.category(character).startswith("C") else character for character in line
    )


def _fit(line: str, width: int) -> str:
    plain = _plain(line)
    return plain if len(plain) <= width else f"{plain[: max(0, width - 1)]}…"


def redrawn(shown: Sequence[str], now: Sequence[str]) -> str:
    """The text that makes a terminal show ``now`` in place of ``shown``."""
    up = f"\x1b[{len(shown)}F\x1b[J" if shown else ""
    return up + "".join(f"{line}\n" for line in now)
