"""Make HTML of plain values. Every value that is not :class:`Markup` is escaped as text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from html import escape

_SHORT = 20  # characters that are not broken in a table


class Markup(str):
    """Text that is HTML already; only this package makes it."""

    __slots__ = ()


def html(value: object) -> Markup:
    """A value as HTML: markup as it is, a number in a short form, all else as escaped text."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup('<span class="none">-</span>')
    if isinstance(value, float):
        return Markup(escape(number(value)))
    return Markup(escape(str(value)))


def number(value: float) -> str:
    """``value`` in a form that people read.

    >>> number(0.12345), number(1234567.0), number(0.000012), number(-0.0)
    ('0.123', '1,234,567', '1.2e-05', '0')
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}".rstrip("0").rstrip(".")


def signed(value: float | None) -> str | None:
    """A change, with its sign; None stays None."""
    return None if value is None else f"{value:+.3f}"


def duration(seconds: float) -> str:
    """Seconds in the units that people read.

    >>> duration(4.2), duration(75.0), duration(7384.0)
    ('4.2 s', '1 min 15 s', '2 h 03 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str) -> Markup:
    """A table; numbers are aligned to the right.

    On a narrow page one of 4 to 8 columns becomes a list, each value below its column's name; a
    wider one scrolls sideways in itself.
    """
    cells = [list(row) for row in rows]
    is_number = [
        bool(cells)
        and all(row[column] is None or isinstance(row[column], int | float) for row in cells)
        for column in range(len(head))
    ]

    is_list = 4 <= len(head) <= 8

    def cell(tag: str, column: int, value: object) -> str:
        is_short = isinstance(value, str) and len(value) <= _SHORT and tag == "td"
        kind = "number" if is_number[column] else "short" if is_short else ""
        named = f' class="{kind}"' if kind else ""
        scope = ' scope="col"' if tag == "th" else ""
        label = f' data-label="{escape(head[column])}"' if is_list and tag == "td" else ""
        return f"<{tag}{scope}{named}{label}>{html(value)}</{tag}>"

    top = "".join(cell("th", column, name) for column, name in enumerate(head))
    body = "".join(
        f"<tr>{''.join(cell('td', column, value) for column, value in enumerate(row))}</tr>"
        for row in cells
    )
    kind = "table list" if is_list else "table"
    return Markup(
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption>"
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def section(name: str, title: str, *parts: object) -> Markup:
    """A section of the page; links go to ``name``."""
    return Markup(f'<section id="{escape(name)}"><h2>{escape(title)}</h2>{join(parts)}</section>')


def prose(text: str) -> Markup:
    return Markup(f"<p>{escape(text)}</p>")


def folded(summary: str, *parts: object) -> Markup:
    """Parts that a click on ``summary`` unfolds."""
    return Markup(f"<details><summary>{escape(summary)}</summary>{join(parts)}</details>")


def side_by_side(figures: Iterable[str]) -> Markup:
    """Figures beside each other where there is room."""
    shown = [figure for figure in figures if figure]
    return Markup(f'<div class="figures">{"".join(shown)}</div>' if shown else "")


def pre(value: object) -> Markup:
    """Data as it is, indented."""
    return Markup(f"<pre>{escape(json.dumps(value, indent=1, ensure_ascii=False))}</pre>")


def badge(outcome: str) -> Markup:
    """The outcome of a phase, in a word and a colour."""
    return Markup(
        f'<span class="badge {escape(outcome.replace(" ", "-"))}">{escape(outcome)}</span>'
    )


def join(parts: Iterable[object]) -> Markup:
    return Markup("".join(html(part) for part in parts))


def data(value: object) -> Markup:
    """JSON for a ``script`` element: nothing in it can end the element or open another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
