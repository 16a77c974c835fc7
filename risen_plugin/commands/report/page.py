"""One HTML file that needs nothing else: no network, no other file.

Completions are untrusted text. In HTML they are escaped; as data they cannot end their script
element, and the script shows them as text alone; and the page allows no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from html import escape
from importlib import resources
from pathlib import Path

from risen_plugin import __version__
from risen_plugin.commands.report.answers import read_answers
from risen_plugin.commands.report.drawing import check_matplotlib
from risen_plugin.commands.report.markup import join
from risen_plugin.commands.report.sections import sections
from risen_plugin.commands.report.summary import decision, heading, summary
from risen_plugin.errors import RecordError
from risen_plugin.kit.files import write_bytes
from risen_plugin.kit.jsonable import as_number
from risen_plugin.record.reading import Run, read_run

_log = logging.getLogger("risen_plugin")


def write_report(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of a run, whole or not at all, and return its path.

    :param folder: the run's output folder.
    :param output: the file; ``risen/report.html`` in the run's folder if None.
    :raises DataError: if there is no such run.
    :raises ConfigError: if matplotlib is not installed.
    :raises RecordError: if the file cannot be written.
    """
    run = read_run(folder)
    check_matplotlib()
    path = Path(output) if output is not None else run.folder / "report.html"
    text = page(run)
    try:
        write_bytes(path, text.encode("utf-8", "replace"))  # half a surrogate pair becomes "?"
    except OSError as error:
        raise RecordError(
            f"cannot write the report to {path}: {error.strerror}; choose another --output"
        ) from error
    return path


def page(run: Run) -> str:
    """The report as HTML."""
    weights = {
        str(reward.get("name")): as_number(reward.get("weight")) or 0.0
        for reward in run.description.get("rewards") or ()
    }
    answers = read_answers(run.folder, weights)
    for line in (*run.unread, *answers.unread):
        _log.warning("the report lacks what cannot be read: %s", line)
    shown = list(sections(run, answers))
    script = _resource("search.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<a href="#{escape(name)}">{escape(title)}</a>' for name, title, _ in shown)
    name = escape(run.name)
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<meta name="generator" content="risen-plugin {__version__}">',
            f"<title>{name} · RISEN report</title>",
            f"<style>{_resource('style.css')}</style>",
            "</head>",
            "<body>",
            f"<header>{heading(run)}{decision(run)}{summary(run, answers)}</header>",
            f'<nav aria-label="Sections">{links}</nav>',
            f"<main>{join(content for _, _, content in shown)}</main>",
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        )
    )


def _resource(name: str) -> str:
    return (
        resources.files("risen_plugin.commands.report").joinpath(name).read_text(encoding="utf-8")
    )
