"""Read the verdict in a judge's reply: strictly, since the model would learn from a guess.

Takes a JSON object with ``met``, or a plain yes or no, and nothing else.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n\s*```\Z", re.DOTALL)
_PLAIN = {"yes": True, "no": False}
_LONGEST_REASON = 500  # characters of it that are read


@dataclass(frozen=True)
class Verdict:
    """A judge's verdict on one criterion.

    :param met: whether the criterion is met.
    :param reason: the judge's own words, in one line; empty if it gave none.
    """

    met: bool
    reason: str = ""


class VerdictError(Exception):
    """A judge's reply is no verdict."""


def verdict_of(text: str) -> Verdict:
    """The verdict in a judge's reply.

    Reads ``{"met": true, "reason": "..."}``, the reason optional, also in a code fence or after a
    thinking section; and a bare "yes" or "no" with punctuation.

    :raises VerdictError: for any other reply.
    """
    reply = _THINKING.sub("", text, count=1).strip()
    plain = reply.strip(" .!*\"'`\n").casefold()
    if plain in _PLAIN:
        return Verdict(_PLAIN[plain])
    fenced = _FENCE.match(reply)
    try:
        data = json.loads(fenced.group(1) if fenced else reply, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise VerdictError from None
    if not isinstance(data, dict) or not data.keys() <= {"met", "reason"}:
        raise VerdictError
    met, reason = data.get("met"), data.get("reason", "")
    if not isinstance(met, bool) or not isinstance(reason, str):
        raise VerdictError
    return Verdict(met, _one_line(reason)[:_LONGEST_REASON])


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary of the pairs; a repeated key is refused, since its values may disagree."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def short(text: str) -> str:
    """The start of a text as a message quotes it: one line, without halves of surrogate pairs."""
    line = _one_line(text)
    return repr(line if len(line) <= 80 else f"{line[:80]}...")


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())
