"""The plain prompts to whose answers a phase holds the model; read without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from risen_plugin.builtin.generators.sources import open_source
from risen_plugin.config import AnchorConfig
from risen_plugin.contracts import Prompt
from risen_plugin.errors import ConfigError, located
from risen_plugin.instructions.plain import PLAIN, short_questions


def anchor_prompts(config: AnchorConfig, *, chats: bool) -> list[Prompt]:
    """The prompts of anchors: texts as a message of a user's where the model chats.

    Those of the package are the plain prompts and the questions with short answers: what changes
    first when a small model learns a form is what it says where little is said.

    :raises DataError: if the file cannot be read.
    :raises ConfigError: for a row that is none and has no ``prompt``.
    """
    there = config.prompts
    path = None if isinstance(there, Sequence) and not isinstance(there, str) else str(there)
    listed = None if path is not None else there
    with located("anchor.prompts"):
        source = open_source(path, None, "train", listed)  # type: ignore[arg-type]
    made: list[Prompt] = []
    rows = list(source)
    if path == PLAIN and not Path(path).exists():
        rows += [("a question of the package", question) for question in short_questions()]
    for where, row in rows:
        prompt: Any = row.get("prompt") if isinstance(row, dict) else row
        if not prompt or not isinstance(prompt, str | list):
            raise ConfigError(f"anchor.prompts: {where} is no prompt, and has no 'prompt' in it")
        is_text = isinstance(prompt, str)
        made.append([{"role": "user", "content": prompt}] if is_text and chats else prompt)
    if not made:
        raise ConfigError(f"anchor.prompts: '{path}' has no prompts; give some, or 'plain'")
    return made
