"""What every engine has: steps, and what it does now; and the answers to many requests by steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tqdm.auto import tqdm

from risen_export.engine.requests import Completion, Piece, Request
from risen_export.engine.settings import EngineSettings


@dataclass(frozen=True)
class Stats:
    """What an engine does now, and has done since it was opened.

    :param running: rows that have a slot, of ``rows``.
    :param waiting: rows without one.
    :param read: tokens of prompts that were read; ``reused``: that had been read before.
    :param written: tokens of answers.
    :param steps: runs of the graph over all rows.
    :param cache_bytes: of keys and values.
    """

    running: int
    waiting: int
    rows: int
    read: int
    reused: int
    written: int
    steps: int
    cache_bytes: int


class Stepping(Protocol):
    """An engine that answers step by step: that on plain onnxruntime, or genai's."""

    settings: EngineSettings

    @property
    def busy(self) -> bool: ...

    def submit(self, request: Request) -> int: ...

    def step(self) -> list[Piece]: ...

    def cancel(self, number: int) -> None: ...

    def stats(self) -> Stats: ...


def answer_all(
    engine: Stepping, requests: Sequence[Request], *, progress: bool
) -> list[list[Completion]]:
    """Answer all requests with an engine that has no others; the ``n`` answers of each."""
    pieces: dict[tuple[int, int], list[Piece]] = {}
    order: list[int] = []
    todo = list(requests)
    with tqdm(total=len(todo), desc="answers", unit="request", disable=not progress) as bar:
        open_answers: dict[int, int] = {}
        while todo or engine.busy:
            while todo and engine.stats().waiting < engine.settings.rows:
                request = todo.pop(0)
                order.append(engine.submit(request))
                open_answers[order[-1]] = request.n
            for piece in engine.step():
                pieces.setdefault((piece.request, piece.index), []).append(piece)
                if piece.finish is not None:
                    open_answers[piece.request] -= 1
                    bar.update(open_answers[piece.request] == 0)
    counts = [request.n for request in requests]
    return [
        [_completed(pieces[number, index]) for index in range(n)]
        for number, n in zip(order, counts, strict=True)
    ]


def _completed(pieces: Sequence[Piece]) -> Completion:
    finish = pieces[-1].finish
    assert finish is not None
    return Completion(
        ids=tuple(token for piece in pieces for token in piece.ids),
        text="".join(piece.text for piece in pieces),
        logprobs=tuple(one for piece in pieces for one in piece.logprobs),
        finish=finish,
    )
