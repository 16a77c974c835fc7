"""One request on its way through the engine: what is asked, what has come, who judges it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from risen_export.engine.requests import Completion, Piece, Request
from risen_export.serving.answering import Answers, Gathered
from risen_export.serving.asked import Settings
from risen_export.serving.judging import Judged, best
from risen_export.serving.refusals import InTime
from risen_export.serving.service import Service
from risen_export.serving.shapes import Shape, usage
from risen_export.serving.traffic import rows_of
from risen_plugin.contracts import Prompt

Ids = tuple[int, ...]


@dataclass
class Job:
    """One request on its way.

    :param prompts: as they were asked, for rewards and the log; ``ids`` are their tokens.
    :param model: the name that was asked for.
    :param told: what the server's own log says of the request.
    """

    service: Service
    settings: Settings
    shape: Shape
    prompts: Sequence[Prompt]
    ids: Sequence[Ids]
    adapter: str | None
    told: dict[str, Any]
    began: float = field(default_factory=time.perf_counter)
    _first: float | None = None
    _last: float = 0.0

    @property
    def model(self) -> str:
        """The name that was asked for."""
        return self.settings.model

    @property
    def deadline(self) -> float:
        """When it has to be done, by the loop's clock."""
        return self.began - time.perf_counter() + _now() + self.service.settings.timeout

    def requests(self) -> list[Request]:
        """What the engine is asked."""
        one = self.settings
        return [
            Request(
                ids=ids,
                max_new_tokens=one.max_new_tokens,
                sampling=one.sampling,
                n=one.candidates,
                adapter=self.adapter,
                stop=one.stop,
                stop_ids=one.stop_ids,
                ignore_eos=one.ignore_eos,
                grammar=one.grammar,
            )
            for ids in self.ids
        ]

    def begin(self) -> None:
        """Count the tokens of the prompts."""
        count = sum(map(len, self.ids))
        self.told |= {"model": self.model, "prompt_tokens": count}
        self.service.metrics.tokens.labels(self.model, "read").inc(count)

    def answers(self) -> Answers:
        """The answers to all of them."""
        return Answers(self.service.worker, self.requests())

    def saw(self, piece: Piece) -> None:
        """Count a piece."""
        metrics, now = self.service.metrics, time.perf_counter()
        if piece.ids:
            if self._first is None:
                self._first = now
                metrics.first.observe(now - self.began)
                self.told["first_token_s"] = round(now - self.began, 4)
            elif self.settings.candidates == 1 and len(self.ids) == 1:
                metrics.between.observe((now - self._last) / len(piece.ids))
            self._last = now
            self.told["completion_tokens"] = self.told.get("completion_tokens", 0) + len(piece.ids)
            metrics.tokens.labels(self.model, "written").inc(len(piece.ids))
        if piece.finish is not None:
            metrics.answers.labels(self.model, piece.finish).inc()

    def usage(self) -> dict[str, int]:
        """Tokens of all prompts and all answers, given back or not."""
        return usage(self.told["prompt_tokens"], self.told.get("completion_tokens", 0))


async def chosen(job: Job) -> tuple[list[Completion], list[Judged | None]]:
    """The answers that are given back, ``n`` to each prompt, with what rewards say of them."""
    gathered = [[Gathered() for _ in range(job.settings.candidates)] for _ in job.ids]
    async with in_time(job), job.service.admitted(job.answers()) as answers:
        async for place, piece in answers:
            job.saw(piece)
            gathered[place][piece.index].add(piece)
    written = [[one.completed() for one in group] for group in gathered]
    if job.settings.verifying is None:
        flat = [one for group in written for one in group]
        return flat, [None] * len(flat)
    given: list[Completion] = []
    verdicts: list[Judged | None] = []
    for prompt, group in zip(job.prompts, written, strict=True):
        judged = await _judge(job, prompt, group)
        for place in best(judged, job.settings.n):
            given.append(group[place])
            verdicts.append(judged[place])
    return given, verdicts


async def _judge(job: Job, prompt: Prompt, group: Sequence[Completion]) -> list[Judged]:
    verifying = job.settings.verifying
    assert verifying is not None
    chat = not isinstance(prompt, str)
    completions = [
        [{"role": "assistant", "content": one.text}] if chat else one.text for one in group
    ]
    async with in_time(job):
        return await asyncio.to_thread(
            job.service.judges.judge,
            verifying.rewards,
            prompt,
            completions,
            [one.ids for one in group],
            verifying.columns,
        )


def in_time(job: Job) -> InTime:
    """Within it, a request that has used up its time is refused."""
    seconds = job.service.settings.timeout
    return InTime(asyncio.timeout_at(job.deadline), f"the request took more than {seconds:g} s")


def write_down(job: Job, answers: Sequence[Completion], judged: Sequence[Judged | None]) -> None:
    """Write rows into the log of traffic, if there is one."""
    log, verifying = job.service.log, job.settings.verifying
    job.told["finish"] = answers[0].finish
    if log is None:
        return
    columns = {} if verifying is None else verifying.columns
    n = job.settings.n
    for place, prompt in enumerate(job.prompts):
        for index in range(place * n, (place + 1) * n):
            verdict = judged[index]
            about = {
                "model": job.model,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "finish": answers[index].finish,
                "passed": None if verdict is None else verdict.passed,
            }
            for row in rows_of(prompt, [answers[index].text], about, columns):
                log.write(row)


def _now() -> float:
    return asyncio.get_running_loop().time()
