"""Judge the answer of a row by the constraints of the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from risen_plugin.constraints import Judgement, judge_all
from risen_plugin.contracts import text_of


def judged(prompt: Any, completion: Any, columns: Mapping[str, Any]) -> list[Judgement] | None:
    """The judgements by the row's constraints, in their order; None where it has none.

    :raises DataError: if they cannot be read.
    """
    ids = columns.get("instruction_id_list")
    if ids is None or (isinstance(ids, Sequence) and not ids):
        return None
    return judge_all(text_of(completion), ids, columns.get("kwargs"), _asked(prompt))


def _asked(prompt: Any) -> str:
    """What the user asked: a text prompt, or the last message of the user in a chat."""
    if not isinstance(prompt, str):
        asked = [message for message in prompt if message.get("role") == "user"]
        prompt = asked[-1:] or prompt
    return text_of(prompt)
