"""Draw with matplotlib in the page's colours: as SVG whose colours are CSS variables.

matplotlib draws in marker colours, which are replaced by variables in the SVG, so that one drawing
fits a light and a dark page. Text stays text.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable
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
    "legend.frameon": False,
    "legend.fontsize": 9,
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


def drawn(
    name: str,
    title: str,
    draw: Callable[[Figure], None],
    *,
    width: float,
    height: float,
    wide: bool = False,
) -> str:
    """A figure as an element of HTML.

    :param name: the figure's id on the page, of which there is one each.
    :param title: a description of the figure for screen readers.
    :param draw: called with the matplotlib figure to draw on.
    :param width: in hundreds of CSS pixels, as ``height``.
    :param wide: whether it may be scrolled sideways where the page is narrow.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    figure_type: Any = importlib.import_module("matplotlib.figure").Figure
    canvas_type: Any = importlib.import_module("matplotlib.backends.backend_svg").FigureCanvasSVG
    with matplotlib.rc_context(_SETTINGS):
        figure = figure_type(figsize=(width, height), layout="constrained")
        canvas_type(figure)
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _element(name, title, file.getvalue(), width, height, wide=wide)


def _element(name: str, title: str, svg: str, width: float, height: float, *, wide: bool) -> str:
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
    body = re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)
    kind = "figure wide" if wide else "figure"
    return (
        f'<div class="{kind}" tabindex="0">{body}</div>'
        if wide
        else (f'<div class="{kind}">{body}</div>')
    )
