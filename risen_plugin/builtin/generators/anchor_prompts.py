"""The plain prompts to whose answers a phase holds the model; read without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from risen_plugin.builtin.generators.sources import open_source
from risen_plugin.config import AnchorConfig
from risen_plugin.contracts import Prompt
from risen_plugin.errors import ConfigError, located
from risen_plugin.instructions.plain import PLAIN, exact_tasks, short_questions

MOST = 256
"""Prompts of a kind that a phase is held to the answers of, at the most."""


def anchor_prompts(config: AnchorConfig, *, chats: bool) -> list[list[Prompt]]:
    """The prompts of anchors by their kind: texts as a message of a user's where the model chats.

    Those of the package are the plain prompts; the questions with short answers, since what changes
    first when a small model learns a form is what it says where little is said; and the tasks with
    exact ones, since figures and code move without a plain answer that shows it. A file or a list
    of the reader's own is one kind.

    :raises DataError: if the file cannot be read.
    :raises ConfigError: for a row that is none and has no ``prompt``.
    """
    there = config.prompts
    path = None if isinstance(there, Sequence) and not isinstance(there, str) else str(there)
    listed = None if path is not None else there
    with located("anchor.prompts"):
        source = open_source(path, None, "train", listed)  # type: ignore[arg-type]
    kinds = [_prompts(source, chats=chats)]
    if path == PLAIN and not Path(path).exists():
        for more in (short_questions(), exact_tasks()):
            kinds.append(_prompts([("of the package", prompt) for prompt in more], chats=chats))
    if not kinds[0]:
        raise ConfigError(f"anchor.prompts: '{path}' has no prompts; give some, or 'plain'")
    return kinds


def _prompts(rows: Iterable[tuple[str, Any]], *, chats: bool) -> list[Prompt]:
    made: list[Prompt] = []
    for where, row in rows:
        prompt: Any = row.get("prompt") if isinstance(row, dict) else row
        if not prompt or not isinstance(prompt, str | list):
            raise ConfigError(f"anchor.prompts: {where} is no prompt, and has no 'prompt' in it")
        is_text = isinstance(prompt, str)
        made.append([{"role": "user", "content": prompt}] if is_text and chats else prompt)
    return made
