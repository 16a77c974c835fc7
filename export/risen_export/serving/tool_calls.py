"""Find calls of tools in what a model writes.

Models write them in several forms: between ``<tool_call>`` tags (Hermes, Qwen, SmolLM), after
``[TOOL_CALLS]`` (Mistral), or as a JSON object that is the whole answer (Llama). Only a call of a
tool that was offered counts; anything else is text.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

_OPENS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>")
_MARKS = (*_OPENS, "</tool_call>", ";")


@dataclass(frozen=True)
class Call:
    """A call of a tool.

    :param arguments: a JSON object as text.
    """

    name: str
    arguments: str


class CallReader:
    """Takes an answer piece by piece, and gives out what is text for certain.

    :param names: of the tools that were offered.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held = ""
        self._begun = False  # something that is no space has been given out

    def add(self, text: str) -> str:
        """The text that is no call."""
        self._held += text
        at = self._begin()
        given, self._held = self._held[:at], self._held[at:]
        self._begun = self._begun or bool(given.strip())
        return given

    def end(self) -> tuple[str, list[Call]]:
        """The rest of the text, and the calls."""
        calls = read_calls(self._held, self._names)
        return ("", calls) if calls else (self._held, [])

    def _begin(self) -> int:
        """Where what may be a call begins."""
        text = self._held
        if not self._begun:
            stripped = text.lstrip()
            if not stripped:
                return 0
            if stripped[0] in "{[":
                return 0
        found = [at for mark in _OPENS if (at := text.find(mark)) >= 0]
        if found:
            return min(found)
        most = min(len(text), max(map(len, _OPENS)) - 1)
        for size in range(most, 0, -1):
            if any(mark.startswith(text[-size:]) for mark in _OPENS):
                return len(text) - size
        return len(text)


def read_calls(text: str, names: Collection[str]) -> list[Call]:
    """The calls in a text that begins with one; none if it is no call of an offered tool."""
    calls: list[Call] = []
    for part in _parts(text):
        for value in part if isinstance(part, list) else [part]:
            call = _call(value, names)
            if call is None:
                return []
            calls.append(call)
    return calls


def _parts(text: str) -> Iterator[Any]:
    """The JSON values in a text, its marks left out; None in place of what is no JSON."""
    decoder = json.JSONDecoder()
    rest = text.strip()
    while rest:
        mark = next((one for one in _MARKS if rest.startswith(one)), None)
        if mark is not None:
            rest = rest[len(mark) :].lstrip()
            continue
        try:
            value, end = decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            yield None
            return
        yield value
        left = rest[end:].lstrip()
        if left and not left.startswith((*_MARKS, "{", "[")):
            yield None
            return
        rest = left


def _call(value: object, names: Collection[str]) -> Call | None:
    if not isinstance(value, dict):
        return None
    inner: Any = value.get("function")
    given: dict[str, Any] = inner if isinstance(inner, dict) else value
    name = given.get("name")
    arguments = given.get("arguments", given.get("parameters", {}))
    if not isinstance(name, str) or name not in names:
        return None
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not isinstance(arguments, dict):
        return None
    return Call(name, json.dumps(arguments, ensure_ascii=False))
