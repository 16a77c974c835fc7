"""Answers in the shapes of the OpenAI API: whole, and as the chunks of a stream. Pure.

``Chat`` and ``Text`` make the choices of the two kinds of request; ``envelope`` and ``usage`` are
what both have around them.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from risen_export.engine.requests import Completion, Finish, Piece, TokenLogprob
from risen_export.serving.asked import ChatAsked, TextAsked
from risen_export.serving.tool_calls import Call, CallReader

TokenText = Callable[[int], str]
_LEAST = -9999.0  # JSON has no infinity
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Shape(Protocol):
    """How the choices of one kind of request look.

    ``whole``: an answer; ``opening``, ``part`` and ``closing``: the same as it is written.
    """

    prefix: str
    kind: str
    chunk_kind: str

    def whole(self, index: int, answer: Completion) -> dict[str, Any]: ...
    def opening(self, index: int) -> list[dict[str, Any]]: ...
    def part(self, index: int, piece: Piece) -> list[dict[str, Any]]: ...
    def closing(self, index: int, finish: Finish) -> list[dict[str, Any]]: ...


def envelope(shape: Shape, model: str) -> dict[str, Any]:
    """What all parts of a response carry; make it once for each."""
    return {
        "id": f"{shape.prefix}-{secrets.token_hex(12)}",
        "object": shape.kind,
        "created": int(time.time()),
        "model": model,
    }


def usage(prompt: int, completion: int) -> dict[str, int]:
    """The tokens that were read and written."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


@dataclass
class Chat:
    """Choices of a chat."""

    asked: ChatAsked
    text: TokenText
    prompt_ids: Sequence[int]
    prefix: str = "chatcmpl"
    kind: str = "chat.completion"
    chunk_kind: str = "chat.completion.chunk"
    _readers: dict[int, CallReader] = field(default_factory=dict)

    def whole(self, index: int, answer: Completion) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        finish = _finish(answer.finish)
        if self.asked.calls:
            reader = self._reader(index)
            text = reader.add(answer.text)
            rest, calls = reader.end()
            if calls:
                message["content"] = text.rstrip() or None
                message["tool_calls"] = [_call(one) for one in calls]
                finish = "tool_calls" if finish == "stop" else finish
            else:
                message["content"] = text + rest
        choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": finish}
        choice["logprobs"] = self._logprobs(answer.logprobs)
        if self.asked.settings.return_token_ids:
            choice["token_ids"] = list(answer.ids)
        return choice

    def opening(self, index: int) -> list[dict[str, Any]]:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]

    def part(self, index: int, piece: Piece) -> list[dict[str, Any]]:
        text = self._reader(index).add(piece.text) if self.asked.calls else piece.text
        with_ids = self.asked.settings.return_token_ids and bool(piece.ids)
        if not text and not piece.logprobs and not with_ids:
            return []
        choice: dict[str, Any] = {
            "index": index,
            "delta": {"content": text} if text else {},
            "logprobs": self._logprobs(piece.logprobs) if piece.logprobs else None,
            "finish_reason": None,
        }
        if with_ids:
            choice["token_ids"] = list(piece.ids)
        return [choice]

    def closing(self, index: int, finish: Finish) -> list[dict[str, Any]]:
        rest, calls = self._reader(index).end() if self.asked.calls else ("", [])
        made = []
        delta: dict[str, Any] = {}
        if rest:
            delta = {"content": rest}
        elif calls:
            delta = {"tool_calls": [{"index": i, **_call(one)} for i, one in enumerate(calls)]}
        if delta:
            made.append({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})
        reason = _finish(finish)
        reason = "tool_calls" if calls and reason == "stop" else reason
        made.append({"index": index, "delta": {}, "logprobs": None, "finish_reason": reason})
        return made

    def _reader(self, index: int) -> CallReader:
        if index not in self._readers:
            names = {tool["function"]["name"] for tool in self.asked.tools}
            self._readers[index] = CallReader(names)
        return self._readers[index]

    def _logprobs(self, given: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if self.asked.settings.sampling.logprobs is None:
            return None
        content = [
            {
                **self._token(one.token, one.logprob),
                "top_logprobs": [self._token(*likely) for likely in one.likeliest],
            }
            for one in given
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.text(token)
        # The bytes of half a character are not known here.
        known = None if _UNFINISHED in text else list(text.encode())
        return {"token": text, "logprob": _finite(logprob), "bytes": known}


@dataclass
class Text:
    """Choices of a continuation.

    :param prompts: the texts that answers begin with where ``echo`` is asked.
    """

    asked: TextAsked
    text: TokenText
    prompts: Sequence[str]
    prefix: str = "cmpl"
    kind: str = "text_completion"
    chunk_kind: str = "text_completion"
    _lengths: dict[int, int] = field(default_factory=dict)

    def whole(self, index: int, answer: Completion) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": index,
            "text": self._echo(index) + answer.text,
            "logprobs": self._logprobs(index, answer.logprobs),
            "finish_reason": _finish(answer.finish),
        }
        if self.asked.settings.return_token_ids:
            choice["token_ids"] = list(answer.ids)
        return choice

    def opening(self, index: int) -> list[dict[str, Any]]:
        echo = self._echo(index)
        return [self._chunk(index, echo, None)] if echo else []

    def part(self, index: int, piece: Piece) -> list[dict[str, Any]]:
        with_ids = self.asked.settings.return_token_ids and bool(piece.ids)
        if not piece.text and not piece.logprobs and not with_ids:
            return []
        choice = self._chunk(index, piece.text, None)
        choice["logprobs"] = self._logprobs(index, piece.logprobs) if piece.logprobs else None
        if with_ids:
            choice["token_ids"] = list(piece.ids)
        return [choice]

    def closing(self, index: int, finish: Finish) -> list[dict[str, Any]]:
        return [self._chunk(index, "", _finish(finish))]

    def _chunk(self, index: int, text: str, finish: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}

    def _echo(self, index: int) -> str:
        return self.prompts[index // self.asked.settings.n] if self.asked.echo else ""

    def _logprobs(self, index: int, given: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if self.asked.settings.sampling.logprobs is None:
            return None
        texts = [self.text(one.token) for one in given]
        offsets = []
        at = self._lengths.get(index, 0)
        for text in texts:
            offsets.append(at)
            at += len(text)
        self._lengths[index] = at
        likeliest = [
            {self.text(token): _finite(logprob) for token, logprob in one.likeliest}
            for one in given
        ]
        return {
            "tokens": texts,
            "token_logprobs": [_finite(one.logprob) for one in given],
            "top_logprobs": likeliest if self.asked.settings.sampling.logprobs else None,
            "text_offset": offsets,
        }


def _finish(finish: Finish) -> str:
    return "abort" if finish == "cancelled" else finish


def _call(call: Call) -> Mapping[str, Any]:
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else _LEAST
