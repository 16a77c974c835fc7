"""Draw with matplotlib in the page's colours: as SVG whose colours are CSS variables.

matplotlib draws in marker colours, which are replaced by variables in the SVG, so that one drawing
fits a light and a dark page. Text stays text. Captions and keys are HTML, which wraps where a name
is long or the page is narrow.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from risen_plugin.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010001"
MUTED = "#010002"
GRID = "#010003"
PAPER = "#010004"
GOOD = "#010005"
BAD = "#010006"
BURST = "#010007"
SERIES = ("#010011", "#010012", "#010013", "#010014", "#010015", "#010016")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    GOOD: "--good",
    BAD: "--bad",
    BURST: "--burst",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)},
}
HOLLOW = "hollow"
_SIGNS: dict[str, str] = dict(zip((*MARKERS, HOLLOW), "●■▲◆▼✚○", strict=True))
_SAMPLES = dict(zip(map(str, DASHES), ("solid", "dashed", "dotted", "dash-dot"), strict=True))
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
    "svg.hashsalt": "risen",  # the same drawing is the same file
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


def check_matplotlib() -> None:
    """:raises ConfigError: if matplotlib is not installed, naming the extra that brings it."""
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise ConfigError(
            "a report is drawn with matplotlib, which is not installed; pip install matplotlib"
        ) from error


@dataclass(frozen=True)
class Key:
    """One entry of a figure's key: a sample of a line, and what it is of."""

    label: str
    colour: str
    dash: Any = "-"  # None for a marker alone
    marker: str | None = None


def drawn(
    name: str,
    title: str,
    draw: Callable[[Figure], None],
    *,
    width: float,
    height: float,
    caption: str = "",
    key: Sequence[Key] = (),
) -> str:
    """A figure as an element of HTML.

    :param name: the figure's id on the page, of which there is one each.
    :param title: a description of the figure for screen readers.
    :param draw: called with the matplotlib figure to draw on.
    :param width: in hundreds of CSS pixels, as ``height``; on a narrow page it shrinks.
    :param caption: stands above the drawing.
    :param key: what its lines are of; stands below the caption.
    :raises ArithmeticError: for numbers that are too large to be drawn.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    figure_type: Any = importlib.import_module("matplotlib.figure").Figure
    canvas_type: Any = importlib.import_module("matplotlib.backends.backend_svg").FigureCanvasSVG
    numpy: Any = importlib.import_module("numpy")
    # Where numbers are too large for the axis, say so rather than draw something else.
    with matplotlib.rc_context(_SETTINGS), numpy.errstate(over="raise"):
        figure = figure_type(figsize=(width, height), layout="constrained")
        canvas_type(figure)
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    above = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    entries = "".join(map(_entry, key))
    above += f'<ul class="key">{entries}</ul>' if entries else ""
    svg = _svg(name, title, file.getvalue(), width, height)
    return f'<figure class="figure" style="width:{width * 100:.0f}px">{above}{svg}</figure>'


def _entry(key: Key) -> str:
    sign = _SIGNS[key.marker] if key.marker else "&nbsp;"
    sample = _SAMPLES.get(str(key.dash), "")
    colour = _VARIABLES[key.colour]
    return (
        f'<li><i class="sample {sample}" style="color:var({colour})">{sign}</i>'
        f"<span>{escape(key.label)}</span></li>"
    )


def _svg(name: str, title: str, svg: str, width: float, height: float) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"font: ?[^;\"]*'[^;\"]*;?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    pixels = f"{width * 100:.0f}", f"{height * 100:.0f}"
    view = re.search(r'viewBox="([^"]*)"', svg)
    head = (
        f'<svg class="plot" role="img" aria-labelledby="{name}-title" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{view.group(1) if view else ""}" width="{pixels[0]}" height="{pixels[1]}">'
        f'<title id="{name}-title">{escape(title)}</title>'
    )
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)
