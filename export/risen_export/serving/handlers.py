"""Answer requests for chats and texts: tokens in, the engine, shapes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from risen_export.engine.requests import Completion, Piece
from risen_export.serving.answering import Gathered
from risen_export.serving.asked import read_chat, read_text
from risen_export.serving.events import EventStream, body_of, event, unless_gone
from risen_export.serving.jobs import Ids, Job, chosen, in_time, write_down
from risen_export.serving.judging import Judged
from risen_export.serving.refusals import RefusedError
from risen_export.serving.service import Service
from risen_export.serving.shapes import Chat, Text, envelope


async def chat(service: Service, request: HttpRequest) -> Response:
    """``POST /v1/chat/completions``."""
    service.check_room()
    asked = read_chat(await body_of(request))
    adapter = await service.models.adapter(asked.settings.model)
    tokenizer = service.worker.engine.tokenizer
    messages = list(asked.messages)
    ids = await asyncio.to_thread(tokenizer.encode, messages, tools=asked.tools)
    shape = Chat(asked, tokenizer.token_text, ids)
    job = Job(service, asked.settings, shape, [messages], [tuple(ids)], adapter, _told(request))
    return await _respond(job, request)


async def text(service: Service, request: HttpRequest) -> Response:
    """``POST /v1/completions``."""
    service.check_room()
    asked = read_text(await body_of(request))
    adapter = await service.models.adapter(asked.settings.model)
    tokenizer = service.worker.engine.tokenizer

    def encode() -> tuple[list[Ids], list[str]]:
        vocabulary = service.worker.engine.vocabulary
        ids, texts = [], []
        for prompt in asked.prompts:
            if not isinstance(prompt, str) and max(prompt) >= vocabulary:
                raise RefusedError(
                    f"the prompt has token {max(prompt)}, and there are {vocabulary}",
                    param="prompt",
                )
            is_text = isinstance(prompt, str)
            ids.append(tuple(tokenizer.encode(prompt)) if isinstance(prompt, str) else prompt)
            texts.append(prompt if isinstance(prompt, str) else tokenizer.decode(prompt))
            if not ids[-1]:
                raise RefusedError("a prompt has no tokens" if is_text else "", param="prompt")
        return ids, texts

    ids, texts = await asyncio.to_thread(encode)
    shape = Text(asked, tokenizer.token_text, texts)
    job = Job(service, asked.settings, shape, texts, ids, adapter, _told(request))
    return await _respond(job, request)


def _told(request: HttpRequest) -> dict[str, Any]:
    told: dict[str, Any] = request.scope["state"]["told"]
    return told


def _check(job: Job) -> None:
    """Refuse what fits no answer of this bundle.

    :raises RefusedError: with the field's name.
    """
    settings, engine = job.settings, job.service.worker.engine
    longest = max(map(len, job.ids))
    wanted = settings.max_new_tokens or 1
    if longest + wanted > engine.context:
        raise RefusedError(
            f"the prompt has {longest} tokens and {wanted} of an answer are asked; at most "
            f"{engine.context} are kept for both",
            param="max_tokens" if longest < engine.context else "prompt",
            code="context_length_exceeded",
        )
    odd = [token for token in settings.sampling.logit_bias if token >= engine.vocabulary]
    if odd:
        raise RefusedError(
            f"logit_bias names token {odd[0]}, and there are {engine.vocabulary}",
            param="logit_bias",
        )


async def _respond(job: Job, request: HttpRequest) -> Response:
    _check(job)
    if job.settings.verifying is not None:
        # Rewards are imported once; who asks for one that is not there need not wait for answers.
        await asyncio.to_thread(job.service.judges.rewards, job.settings.verifying.rewards)
    if job.settings.grammar is not None:
        loop, engine = asyncio.get_running_loop(), job.service.worker.engine
        await loop.run_in_executor(job.service.compiling, engine.prepare, job.settings.grammar)
    job.begin()
    if not job.settings.stream:
        return await unless_gone(request, _whole(job))
    stream = _stream(job) if job.settings.verifying is None else _judged_stream(job)
    # The first event comes once the engine has taken the request: a refusal has its own status.
    return await unless_gone(request, EventStream.begun(stream))


# Whole answers


async def _whole(job: Job) -> Response:
    answers, judged = await chosen(job)
    write_down(job, answers, judged)
    return JSONResponse(_body(job, answers, judged))


def _body(
    job: Job, answers: Sequence[Completion], judged: Sequence[Judged | None]
) -> dict[str, Any]:
    choices = []
    for index, (answer, verdict) in enumerate(zip(answers, judged, strict=True)):
        choice = job.shape.whole(index, answer)
        if verdict is not None:
            choice["risen"] = verdict.data()
        if job.settings.return_token_ids:
            choice["prompt_token_ids"] = list(job.ids[index // job.settings.n])
        choices.append(choice)
    return {**envelope(job.shape, job.model), "choices": choices, "usage": job.usage()}


# Streams


async def _stream(job: Job) -> AsyncIterator[bytes]:
    """The events of a stream, one for each piece of an answer."""
    head = {**envelope(job.shape, job.model), "object": job.shape.chunk_kind}
    n, count = job.settings.n, job.settings.n * len(job.ids)
    gathered = [Gathered() for _ in range(count)]
    async with in_time(job):
        admitted = job.service.admitted(job.answers())
        answers = await admitted.__aenter__()
    try:
        for index in range(count):
            opening = job.shape.opening(index)
            if job.settings.return_token_ids:
                opening = opening or job.shape.closing(index, "stop")
                opening[0] |= {"prompt_token_ids": list(job.ids[index // n]), "finish_reason": None}
            for choice in opening:
                yield _chunk(job, head, [choice])
        pieces = aiter(answers)
        while True:
            async with in_time(job):
                try:
                    place, piece = await anext(pieces)
                except StopAsyncIteration:
                    break
            job.saw(piece)
            index = place * n + piece.index
            gathered[index].add(piece)
            for choice in job.shape.part(index, piece):
                yield _chunk(job, head, [choice])
            if piece.finish is not None:
                for choice in job.shape.closing(index, piece.finish):
                    yield _chunk(job, head, [choice])
    finally:
        await admitted.__aexit__(None, None, None)
    write_down(job, [one.completed() for one in gathered], [None] * count)
    for last in _ending(job, head):
        yield last


async def _judged_stream(job: Job) -> AsyncIterator[bytes]:
    """The events of a stream whose answers are chosen among several, and so come whole."""
    head = {**envelope(job.shape, job.model), "object": job.shape.chunk_kind}
    yield b": answers are written and judged before the best is given\n\n"
    answers, judged = await chosen(job)
    write_down(job, answers, judged)
    for index, (answer, verdict) in enumerate(zip(answers, judged, strict=True)):
        piece = Piece(0, index, answer.ids, answer.text, answer.logprobs, answer.finish)
        closing = [*job.shape.part(index, piece), *job.shape.closing(index, answer.finish)]
        if verdict is not None:
            closing[-1]["risen"] = verdict.data()
        for choice in [*job.shape.opening(index), *closing]:
            yield _chunk(job, head, [choice])
    for last in _ending(job, head):
        yield last


def _chunk(job: Job, head: Mapping[str, Any], choices: list[dict[str, Any]]) -> bytes:
    more = {"usage": None} if job.settings.include_usage else {}
    return event({**head, "choices": choices, **more})


def _ending(job: Job, head: Mapping[str, Any]) -> list[bytes]:
    last = [b"data: [DONE]\n\n"]
    if job.settings.include_usage:
        last.insert(0, event({**head, "choices": [], "usage": job.usage()}))
    return last
