"""Read a verdict out of what a judge said: strictly, since a guess would train.

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
_LONGEST_REASON = 500  # characters that are kept


@dataclass(frozen=True)
class Verdict:
    """What a judge found.

    :param met: whether the criterion is met.
    :param reason: the judge's own words, in one line; empty if it gave none.
    """

    met: bool
    reason: str = ""


class VerdictError(Exception):
    """What came back is no verdict."""


def verdict_of(text: str) -> Verdict:
    """The verdict in a judge's answer.

    ``{"met": true, "reason": "..."}``, where the reason may be missing and a code fence around it
    or a thinking section before it does no harm, or "yes" or "no" with nothing but punctuation.

    :raises VerdictError: for everything else.
    """
    said = _THINKING.sub("", text, count=1).strip()
    plain = said.strip(" .!*\"'`\n").casefold()
    if plain in _PLAIN:
        return Verdict(_PLAIN[plain])
    fenced = _FENCE.match(said)
    try:
        data = json.loads(fenced.group(1) if fenced else said, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise VerdictError from None
    if not isinstance(data, dict) or not data.keys() <= {"met", "reason"}:
        raise VerdictError
    met, reason = data.get("met"), data.get("reason", "")
    if not isinstance(met, bool) or not isinstance(reason, str):
        raise VerdictError
    return Verdict(met, _one_line(reason)[:_LONGEST_REASON])


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that is given twice says two things."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def short(text: str) -> str:
    """How a text begins, as a message quotes it: in one line, without halves of surrogate pairs."""
    line = _one_line(text)
    return repr(line if len(line) <= 80 else f"{line[:80]}...")


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())
