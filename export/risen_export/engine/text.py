"""Turn an answer's tokens into text while it is being written, and end it at a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of one answer, given out as it becomes certain.

    A character of several tokens is held back until it is whole; an ending that may become a stop
    text until it is clear whether it does.

    :param decode: token ids to text.
    :param stops: texts that end the answer and do not belong to it.
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._ids: list[int] = []
        self._begin = 0  # tokens before it are decoded for good
        self._read = 0  # tokens before it have given their text
        self._held = ""
        self.text = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that a further token makes certain."""
        self._ids.append(token)
        before = self._decode(self._ids[self._begin : self._read])
        now = self._decode(self._ids[self._begin :])
        if now.endswith(_UNFINISHED):
            return ""
        self._begin, self._read = self._read, len(self._ids)
        return self._give(now[len(before) :])

    def end(self) -> str:
        """The rest of the text when no more tokens come."""
        if self.stopped:
            return ""
        before = self._decode(self._ids[self._begin : self._read])
        rest = self._held + self._decode(self._ids[self._begin :])[len(before) :]
        self._held = ""
        self.text += rest
        return rest

    def _give(self, new: str) -> str:
        text = self._held + new
        found = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=None)
        if found is not None:
            self.stopped = True
            self._held = ""
            given = text[:found]
        else:
            keep = max((_overlap(text, stop) for stop in self._stops), default=0)
            given, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.text += given
        return given


def _overlap(text: str, stop: str) -> int:
    """How many last characters of a text begin a stop text."""
    most = min(len(stop) - 1, len(text))
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)
