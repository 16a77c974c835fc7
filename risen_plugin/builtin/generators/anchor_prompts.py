"""The prompts to whose answers a phase holds the model; read without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_plugin.builtin.generators.sources import open_source
from risen_plugin.config import AnchorConfig
from risen_plugin.contracts import Prompt
from risen_plugin.errors import ConfigError, located
from risen_plugin.instructions.plain import PLAIN, exact_tasks, short_questions

_MOST = 256


@dataclass(frozen=True)
class AnchorPrompt:
    """What a phase is held to the answer of.

    :param answer: a text that is read as the answer; None for the model's own.
    """

    prompt: Prompt
    answer: str | None = None


def wanted_of_a_kind(kinds: int, rows: int, steps: int) -> int:
    """Prompts of each kind that are answered: what ``steps`` of ``rows`` read, 256 at the most.

    >>> wanted_of_a_kind(4, 8, 3), wanted_of_a_kind(4, 8, 400)
    (6, 256)
    """
    return min(_MOST, -(-steps * rows // kinds))


def anchor_prompts(config: AnchorConfig, *, chats: bool) -> list[list[AnchorPrompt]]:
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
    own = _prompts(source, chats=chats)
    if not own:
        raise ConfigError(f"anchor.prompts: '{path}' has no prompts; give some, or 'plain'")
    if path != PLAIN or Path(path).exists():
        return [own]
    more = (short_questions(), exact_tasks())
    return [
        own,
        *(_prompts([("of the package", prompt) for prompt in kind], chats=chats) for kind in more),
    ]


def _prompts(rows: Iterable[tuple[str, Any]], *, chats: bool) -> list[AnchorPrompt]:
    made: list[AnchorPrompt] = []
    for where, row in rows:
        prompt: Any = row.get("prompt") if isinstance(row, dict) else row
        if not prompt or not isinstance(prompt, str | list):
            raise ConfigError(f"anchor.prompts: {where} is no prompt, and has no 'prompt' in it")
        is_text = isinstance(prompt, str)
        answer: Any = row.get("answer") if isinstance(row, dict) else None
        made.append(
            AnchorPrompt(
                [{"role": "user", "content": prompt}] if is_text and chats else prompt,
                answer if isinstance(answer, str) and answer else None,
            )
        )
    return made
