"""Judge an answer constraint by constraint, strictly and loosely.

Loose is IFEval's word for it: a constraint is met loosely if it is met by the answer as it is, or
without its first line, its last line or both, each also without asterisks. It forgives a preface
such as "Sure, here it is:" and Markdown's emphasis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints import check_all
from risen_plugin.contracts import text_of


@dataclass(frozen=True, slots=True)
class Judgement:
    """One constraint on one answer.

    :param strict: whether the answer as it is meets it.
    :param loose: whether any of its loose variants does.
    :param seen: what was looked at, in a few words.
    """

    id: str
    strict: bool
    loose: bool
    seen: str


def judged(prompt: Any, completion: Any, columns: Mapping[str, Any]) -> list[Judgement] | None:
    """The judgements by the row's constraints, in their order; None where it has none.

    :raises DataError: if they cannot be read.
    """
    ids = columns.get("instruction_id_list")
    if ids is None or (isinstance(ids, Sequence) and not ids):
        return None
    return judge_all(text_of(completion), ids, columns.get("kwargs"), _asked(prompt))


def judge_all(
    text: str,
    instruction_id_list: Sequence[str],
    kwargs: Sequence[Mapping[str, Any] | None] | None,
    prompt: str | None = None,
) -> list[Judgement]:
    """For each constraint in turn, whether the answer ``text`` meets it, strictly and loosely.

    :raises DataError: as :func:`risen_plugin.constraints.check_all`.
    """
    strict = check_all(text, instruction_id_list, kwargs, prompt)
    loose = strict
    for variant in loose_variants(text)[1:]:
        if all(loose):
            break
        met = check_all(variant, instruction_id_list, kwargs, prompt)
        loose = [before or now for before, now in zip(loose, met, strict=True)]
    given = kwargs or [None] * len(instruction_id_list)
    return [
        Judgement(id_, is_strict, is_loose, _words(values))
        for id_, is_strict, is_loose, values in zip(
            instruction_id_list, strict, loose, given, strict=True
        )
    ]


def loose_variants(text: str) -> list[str]:
    r"""The answer as it is and its seven loose variants.

    >>> loose_variants("*a*\nb\nc")
    ['*a*\nb\nc', 'b\nc', '*a*\nb', 'b', 'a\nb\nc', 'b\nc', 'a\nb', 'b']
    """
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return cut + [variant.replace("*", "") for variant in cut]


def _words(kwargs: Mapping[str, Any] | None) -> str:
    given = {name: value for name, value in (kwargs or {}).items() if value is not None}
    return ", ".join(f"{name} {_value(value)}" for name, value in given.items())


def _value(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _asked(prompt: Any) -> str:
    """What the user asked: a text prompt, or the last message of the user in a chat."""
    if not isinstance(prompt, str):
        asked = [message for message in prompt if message.get("role") == "user"]
        prompt = asked[-1:] or prompt
    return text_of(prompt)
