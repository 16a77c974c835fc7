"""What a shell may complete: names on offer, runs and files. Loads nothing heavy.

A completion that fails offers nothing: a shell has no place for a message.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click
from click.shell_completion import CompletionItem

from risen_plugin.plugins import Kind, Plugins
from risen_plugin.record.run_record import DESCRIPTION, FOLDER

Completion: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def offered(kind: Kind) -> Completion:
    """Completes the names of the offers of one kind, and files with code."""

    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        installed: Any = getattr(context.find_root().command, "plugins", None)
        if "/" in incomplete or "." in incomplete:
            return [CompletionItem(incomplete, type="file")]
        if not isinstance(installed, Plugins):
            return []
        names = [
            CompletionItem(offer.name, help=offer.origin)
            for offer in installed.offers(kind)
            if offer.name.startswith(incomplete)
        ]
        return [*names, *map(CompletionItem, _code_files(incomplete))]

    return complete


def _code_files(incomplete: str) -> list[str]:
    """Python files of this folder whose names begin so, with the colon that a name follows."""
    try:
        return sorted(
            f"{path}:" for path in Path().glob("*.py") if str(path).startswith(incomplete)
        )
    except OSError:
        return []


def runs(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes the output folders of runs, here and one folder further down."""
    try:
        found = [
            str(path.parent.parent)
            for depth in ("", "/*")
            for path in Path().glob(f"{incomplete}*{depth}/{FOLDER}/{DESCRIPTION}")
        ]
    except (OSError, ValueError, NotImplementedError):  # an absolute pattern, or an odd one
        found = []
    return [CompletionItem(one) for one in sorted(found)] or [
        CompletionItem(incomplete, type="dir")
    ]


def files(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes any file."""
    return [CompletionItem(incomplete, type="file")]
