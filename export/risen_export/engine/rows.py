"""One answer while it is being written."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from risen_export.engine.adapters import Loaded
from risen_export.engine.grammars import Matcher
from risen_export.engine.requests import Finish, Piece, Request, TokenLogprob
from risen_export.engine.text import TextStream


@dataclass(eq=False)
class Answer:
    """A row: what it answers, and how far it is.

    :param number: of its request, and ``index`` among the request's answers.
    :param limit: most tokens of prompt and answer together.
    :param stops: tokens that end it.
    :param ids: prompt and answer so far.
    :param computed: tokens whose keys and values lie in the cache.
    :param slot: its place in the cache; -1 while it waits.
    """

    number: int
    index: int
    request: Request
    limit: int
    stops: frozenset[int]
    adapter: Loaded | None
    random: np.random.Generator
    stream: TextStream | None = None
    matcher: Matcher | None = None
    ids: list[int] = field(default_factory=list)
    computed: int = 0
    slot: int = -1
    finish: Finish | None = None

    @property
    def key(self) -> Hashable:
        """What its keys and values depend on beside the tokens."""
        return None if self.adapter is None else self.adapter.key

    @property
    def written(self) -> Sequence[int]:
        """The tokens of the answer so far."""
        return self.ids[len(self.request.ids) :]

    def take(self, token: int, logprob: TokenLogprob | None) -> Piece:
        """Add a token, and end where it ends; what has come with it."""
        self.ids.append(token)
        ends = token in self.stops
        if self.matcher is not None and not ends:
            ends = self.matcher.take(token)
        text = ""
        if self.stream is not None:
            if token not in self.stops:
                text = self.stream.add(token)
            ends = ends or self.stream.stopped
        if ends:
            self.finish = "stop"
        elif len(self.ids) >= self.limit:
            self.finish = "length"
        if self.finish is not None and self.stream is not None:
            text += self.stream.end()
        logprobs = () if logprob is None else (logprob,)
        return Piece(self.number, self.index, (token,), text, logprobs, self.finish)

    def cancel(self) -> Piece:
        """End it before its end."""
        self.finish = "cancelled"
        rest = "" if self.stream is None else self.stream.end()
        return Piece(self.number, self.index, text=rest, finish=self.finish)
