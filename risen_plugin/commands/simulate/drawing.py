"""Draw the phases of a replay beside those of the recorded run: for a terminal, and as SVG or HTML.

Pure: a replay in, text out.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from risen_plugin.commands.simulate.layout import Stretch
from risen_plugin.commands.simulate.replay import LoggedDecision, Replay
from risen_plugin.errors import printable
from risen_plugin.kit.jsonable import as_number
from risen_plugin.progress import loss_name

_MARKS = {"fine_tune": "─", "risen": "█", "dropped": "░", "burst": "▒"}
_PLAIN_MARKS = {"fine_tune": "-", "risen": "#", "dropped": "x", "burst": "+"}
_WORDS = {
    "fine_tune": "fine-tune",
    "risen": "RISEN, kept",
    "dropped": "RISEN, dropped",
    "burst": "burst",
}
_MOST = ("fine_tune", "dropped", "burst", "risen")  # of one cell, the later one is shown


def drawn_as(stretch: Stretch) -> str:
    """The kind of a stretch as it is drawn: dropped RISEN phases are a separate kind."""
    return "dropped" if stretch.kind == "risen" and not stretch.accepted else stretch.kind


# The terminal


def strip(drawn: Sequence[Stretch], *, width: int, whole: float, plain: bool = False) -> str:
    """One line: each cell a share of ``whole`` seconds, by the phase that it shows.

    A phase is at least one cell wide, and a RISEN phase hides others in its cell.

    :param plain: use ASCII alone.
    """
    marks = _PLAIN_MARKS if plain else _MARKS
    cells = [""] * width
    for stretch in drawn:
        kind = drawn_as(stretch)
        first = min(int(width * stretch.begin / whole), width - 1)
        last = min(math.ceil(width * (stretch.begin + stretch.seconds) / whole), width)
        for cell in range(first, max(last, first + 1)):
            if not cells[cell] or _MOST.index(kind) > _MOST.index(cells[cell]):
                cells[cell] = kind
    return "".join(marks[kind] if kind else " " for kind in cells).rstrip()


def strips(replay: Replay, *, width: int, plain: bool = False) -> list[str]:
    """The recorded run and the replayed one on one clock, with a legend."""
    recorded, replayed = on_one_axis(replay)
    whole = max(_end(recorded), _end(replayed)) or 1.0
    marks = _PLAIN_MARKS if plain else _MARKS
    room = max(10, width - 11)
    unit = axis_unit(replay)
    end = f"{whole:.4g} {unit}"
    return [
        f"recorded   {strip(recorded, width=room, whole=whole, plain=plain)}",
        f"replayed   {strip(replayed, width=room, whole=whole, plain=plain)}",
        f"           0{end.rjust(room - 1)}",
        "           " + "   ".join(f"{marks[kind]} {_WORDS[kind]}" for kind in _WORDS),
    ]


def axis_unit(replay: Replay) -> str:
    """The unit of the axis: seconds if the run has times, else steps."""
    return "s" if replay.trace.clock else "steps"


def on_one_axis(replay: Replay) -> tuple[list[Stretch], list[Stretch]]:
    """Both runs on the clock; by their steps where the recorded one has no times."""
    recorded, replayed = list(replay.recorded), list(replay.stretches)
    if replay.trace.clock:
        return recorded, replayed
    return _by_steps(recorded), _by_steps(replayed)


def _by_steps(drawn: list[Stretch]) -> list[Stretch]:
    placed, at = [], 0.0
    for s in drawn:
        placed.append(Stretch(s.kind, s.accepted, s.at_step, s.steps, at, float(s.steps)))
        at += s.steps
    return placed


def _end(drawn: Sequence[Stretch]) -> float:
    return max((s.begin + s.seconds for s in drawn), default=0.0)


def decision_line(made: LoggedDecision) -> str:
    """One line for one decision; a scheduler's reason and parameters are as it likes."""
    decision = made.decision
    what = {"fine_tune": "fine-tune", "risen": "RISEN", "burst": "burst"}[decision.phase]
    steps = f" {decision.steps}" if decision.phase != "fine_tune" else ""
    like = f"  [{taken_as(made)}]" if taken_as(made) else ""
    parameters = f"  {dict(decision.parameters)}" if decision.parameters else ""
    line = f"step {made.step:<6} {made.time:>8.1f} s  {what + steps:<10} {decision.reason}"
    return printable(f"{line}{parameters}{like}")


def taken_as(made: LoggedDecision) -> str:
    """The recorded phase that a phase is assumed to equal; empty for fine-tuning."""
    if made.decision.phase == "fine_tune":
        return ""
    return f"as phase {made.borrowed}" if made.borrowed else "not in the record"


# A picture

_WIDE, _LEFT, _RIGHT = 960, 96, 16
_STYLE = """
.risen-picture { color-scheme: light dark; --ink: #1f2328; --dim: #6e7781; --line: #d0d7de;
  --fine_tune: #9fb3c8; --risen: #1a7f37; --dropped: #cf222e; --burst: #bf8700; --loss: #0969da;
  font: 12px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { .risen-picture { --ink: #e6edf3; --dim: #8b949e;
  --line: #30363d; --fine_tune: #4d5f73; --risen: #3fb950; --dropped: #f85149; --burst: #d29922;
  --loss: #58a6ff; } }
.risen-picture text { fill: var(--ink); } .risen-picture .dim { fill: var(--dim); }
.risen-picture .axis { stroke: var(--line); } .risen-picture .loss { stroke: var(--loss);
  fill: none; stroke-width: 1.5; } .risen-picture .dot { fill: var(--loss); }
""" + "\n".join(f".risen-picture .{kind} {{ fill: var(--{kind}); }}" for kind in _WORDS)


def svg(replay: Replay) -> str:
    """A picture of both runs, with the recorded held-out loss below; readable light and dark."""
    recorded, replayed = on_one_axis(replay)
    whole = max(_end(recorded), _end(replayed)) or 1.0
    parts = [
        _text(_LEFT, 18, f"{replay.scheduler} over {replay.trace.source}"),
        *_bar(recorded, "recorded", 32, whole),
        *_bar(replayed, "replayed", 72, whole),
        *_axis(whole, axis_unit(replay), 112),
        *_legend(146),
        *_losses(replay, recorded, whole, 166),
    ]
    height = 166 + (130 if _held_out(replay) else 0)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="risen-picture" role="img" '
        f'viewBox="0 0 {_WIDE} {height}" width="100%">\n'
        f"<title>{html.escape(f'Phases of {replay.scheduler}')}</title>\n"
        f"<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def page(replay: Replay) -> str:
    """One self-contained page: the picture, the decisions, and the limits of a replay."""
    rows = "\n".join(
        f"<tr><td>{made.step}</td><td>{made.time:.1f}</td><td>{made.decision.phase}</td>"
        f"<td>{made.decision.steps or ''}</td><td>{taken_as(made)}</td>"
        f"<td>{html.escape(made.decision.reason)}</td></tr>"
        for made in replay.made
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in replay.trace.notes)
    title = html.escape(f"{replay.scheduler}: a replay")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root {{ color-scheme: light dark; }} body {{ font: 15px/1.5 system-ui, sans-serif;
max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }} table {{ border-collapse: collapse; }}
td, th {{ text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }}
td:nth-child(-n+5) {{ white-space: nowrap; }}</style></head><body>
<h1>{title}</h1>
{svg(replay)}
<h2>Decisions</h2>
<table><tr><th>step</th><th>seconds</th><th>phase</th><th>steps</th><th>measured</th><th>reason</th></tr>
{rows}
</table>
<h2>What this cannot know</h2>
<ul><li>{CAVEAT}</li>{notes}</ul>
</body></html>
"""


CAVEAT = (
    "Measurements are those of the recorded run: what another order of the phases would have "
    "measured is not known."
)


def _x(value: float, whole: float) -> float:
    return _LEFT + (_WIDE - _LEFT - _RIGHT) * value / whole


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
        f"{html.escape(text)}</text>"
    )


def _bar(drawn: Sequence[Stretch], name: str, y: int, whole: float) -> list[str]:
    parts = [_text(_LEFT - 8, y + 20, name, "dim", "end")]
    for stretch in drawn:
        kind = drawn_as(stretch)
        left = _x(stretch.begin, whole)
        wide = max(_x(stretch.begin + stretch.seconds, whole) - left, 1.5)
        label = (
            f"{_WORDS[kind]}: {stretch.steps} steps after step {stretch.at_step}, "
            f"{stretch.seconds:.1f} s"
        )
        parts.append(
            f'<rect x="{left:.2f}" y="{y}" width="{wide:.2f}" height="30" class="{kind}">'
            f"<title>{html.escape(label)}</title></rect>"
        )
    return parts


def _axis(whole: float, unit: str, y: int) -> list[str]:
    parts = [
        f'<line x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y}" y2="{y}" class="axis"/>',
    ]
    for fifth in range(6):
        value = whole * fifth / 5
        anchor = "end" if fifth == 5 else "middle"
        parts.append(_text(_x(value, whole), y + 14, f"{value:.4g} {unit}", "dim", anchor))
    return parts


def _legend(y: int) -> list[str]:
    parts = []
    for index, (kind, words) in enumerate(_WORDS.items()):
        x = _LEFT + 150 * index
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" class="{kind}"/>')
        parts.append(_text(x + 18, y, words))
    return parts


def _held_out(replay: Replay) -> list[tuple[int, float]]:
    name = loss_name(replay.trace.eval_metrics)
    losses = [(s, as_number(m.get(name))) for s, m in replay.trace.eval_metrics]
    return [(step, value) for step, value in losses if value is not None]


def _losses(replay: Replay, recorded: Sequence[Stretch], whole: float, y: int) -> list[str]:
    """The recorded held-out loss on the recorded run's clock."""
    series = _held_out(replay)
    if not series:
        return []
    low, high = min(v for _, v in series), max(v for _, v in series)
    span = (high - low) or 1.0
    points = [
        (_x(_when(recorded, step), whole), y + 100 - 80 * (value - low) / span)
        for step, value in series
    ]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    dots = [
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" class="dot"><title>step {step}: {value:.4g}'
        "</title></circle>"
        for (a, b), (step, value) in zip(points, series, strict=True)
    ]
    return [
        _text(_LEFT - 8, y + 24, f"{high:.3g}", "dim", "end"),
        _text(_LEFT - 8, y + 104, f"{low:.3g}", "dim", "end"),
        _text(_LEFT, y + 10, "held-out loss of the recorded run", "dim"),
        f'<polyline points="{line}" class="loss"/>',
        *dots,
    ]


def _when(drawn: Sequence[Stretch], step: int) -> float:
    """When a run came to ``step``, before what happened there."""
    for s in drawn:
        if s.kind == "fine_tune" and s.at_step <= step <= s.at_step + s.steps:
            return s.begin + s.seconds * (step - s.at_step) / s.steps
    return _end(drawn)
