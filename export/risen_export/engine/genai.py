"""Answer many requests at once with onnxruntime-genai's own engine, behind the same interface.

It is for throughput on CUDA, where its batches can be dynamic. It takes no adapters and gives back
no log-probabilities, which is refused when they are asked for. On a CPU it answers in waves of four
and draws without seeds.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from risen_export.bundles.opening import open_folder
from risen_export.engine.answering import Stats, answer_all
from risen_export.engine.requests import Completion, Finish, Piece, Request
from risen_export.engine.settings import BusyError, EngineSettings
from risen_export.engine.text import TextStream
from risen_export.runtime.bundle import DEFAULT_NEW_TOKENS, ids_of
from risen_export.runtime.chat import ChatTokenizer
from risen_export.runtime.logits import Settings
from risen_export.runtime.session import require_device, require_runtime, threads_of_environment
from risen_export.runtime.settings import read_genai, read_generation
from risen_plugin.errors import DataError, ExportError, one_line

_GUIDES = {"json_schema": "json_schema", "regex": "regex", "lark": "lark_grammar"}


@dataclass(eq=False)
class _Answer:
    """One of the answers of a request, and genai's own request for it."""

    number: int
    index: int
    stops: frozenset[int]
    theirs: Any
    turn: int = 0
    stream: TextStream | None = None
    finish: Finish | None = None


class GenaiEngine:
    """Answers requests as :class:`risen_export.engine.engine.Engine` does, through genai.

    ``ignore_eos`` forbids tokens that end the text, where the other engine goes on past them.
    """

    def __init__(self, folder: Path, settings: EngineSettings, device: str = "cpu") -> None:
        require_device(device, folder)
        og = _library()
        self.path = folder
        self.settings = settings
        self.tokenizer = ChatTokenizer(folder)
        content = read_genai(folder)["model"]
        generation = read_generation(folder)
        self.vocabulary = int(content["vocab_size"])
        self.eos_ids = ids_of(generation.get("eos_token_id"))
        self.context = min(settings.context or 2**31, int(content["context_length"]))
        self._most_new = int(generation.get("max_new_tokens") or 0) or DEFAULT_NEW_TOKENS
        self._followed = Settings(generation, str(folder / "generation_config.json")).followed
        try:
            config = og.Config(str(folder))
            # A CPU's engine reads it and still takes four at a time.
            sizes = {"max_batch_size": settings.rows}
            config.overlay(json.dumps({"engine": {"static_batching": sizes}}))
            threads = settings.threads or threads_of_environment()
            if threads:
                options = {"session_options": {"intra_op_num_threads": threads}}
                config.overlay(json.dumps({"model": {"decoder": options}}))
            self._engine = og.Engine(og.Model(config))
        except Exception as error:  # genai's exceptions share no base class
            raise ExportError(f"genai cannot open {folder}: {one_line(error)}") from error
        self._events = self._engine.create_event_buffer(max(64, 2 * settings.rows))
        self._answers: dict[Any, _Answer] = {}
        self._ended: list[Piece] = []
        self._next = 0
        self._read = self._reused = self._written = self._steps = 0

    @classmethod
    def open(
        cls,
        path: str | Path,
        precision: str | None = None,
        settings: EngineSettings | None = None,
        *,
        check_hashes: bool = True,
        device: str | None = None,
    ) -> GenaiEngine:
        """Open ``OUT`` or ``OUT/<precision>``.

        :raises ExportError: if it is no bundle, lacks the precision, is damaged, or genai cannot
            open it.
        """
        folder, content = open_folder(Path(path), precision, check_hashes=check_hashes)
        require_runtime(content["requires"], folder)
        return cls(folder, settings or EngineSettings(), device or str(content["target"]))

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._answers or self._ended)

    @property
    def adapters(self) -> dict[str, int]:
        """None: it takes no adapters."""
        return {}

    def load_adapter(self, name: str, source: object) -> int:
        """Refuse an adapter.

        :raises ExportError: always.
        """
        raise ExportError(f"genai's engine takes no adapters such as '{name}'; use the other one")

    def remove_adapter(self, name: str) -> None:
        """Refuse it: there are none.

        :raises DataError: always.
        """
        raise DataError(f"there is no adapter '{name}'")

    def submit(self, request: Request) -> int:
        """Take a request; the number that its pieces will carry.

        :raises DataError: if it does not fit the context, or asks for what genai does not have.
        :raises BusyError: if too many wait already.
        """
        if request.n + len(self._answers) > self.settings.waiting + self.settings.rows:
            ahead = len(self._answers)
            raise BusyError(
                f"{ahead} answers wait or are being written; try again later",
                retry_after=max(1.0, ahead / self.settings.rows),
            )
        self._check(request)
        number, self._next = self._next, self._next + 1
        stops = request.stop_ids | (frozenset() if request.ignore_eos else self.eos_ids)
        begun: list[_Answer] = []
        try:
            for index in range(request.n):
                answer = _Answer(number, index, stops, self._begin(request))
                begun.append(answer)
                options = self._options(answer.theirs, request, index)
                answer.turn = answer.theirs.begin_turn(np.array(request.ids, np.int32), options)
        except Exception as error:  # genai's exceptions share no base class
            for answer in begun:
                answer.theirs.close()
            raise DataError(f"genai's engine refuses the request: {one_line(error)}") from error
        for answer in begun:
            if request.text:
                answer.stream = TextStream(self.tokenizer.decode, request.stop)
            self._answers[answer.theirs] = answer
        return number

    def cancel(self, number: int) -> None:
        """End a request; its last pieces come with the next step. Unknown numbers are ignored."""
        for answer in [one for one in self._answers.values() if one.number == number]:
            answer.finish = "cancelled"
            rest = "" if answer.stream is None else answer.stream.end()
            self._ended.append(Piece(number, answer.index, text=rest, finish="cancelled"))
            self._close(answer)

    def run(self, requests: Sequence[Request], *, progress: bool = False) -> list[list[Completion]]:
        """Answer all requests, and nothing else; the ``n`` answers of each."""
        return answer_all(self, requests, progress=progress)

    def step(self) -> list[Piece]:
        """Let genai do what it does in one step; what came of it.

        :raises ExportError: if genai cannot go on.
        """
        pieces, self._ended = self._ended, []
        if not self._answers:
            return pieces
        try:
            events = self._engine.run(self._events)
        except Exception as error:  # genai's exceptions share no base class
            raise ExportError(f"genai cannot run the graph: {one_line(error)}") from error
        self._steps += 1
        for event in events:
            answer = self._answers.get(event.request)
            if answer is not None:
                pieces += self._taken(answer, event)
        return pieces

    def stats(self) -> Stats:
        """What it does now and has done; genai does not tell the size of its cache."""
        ahead = len(self._answers)
        return Stats(
            running=min(ahead, self.settings.rows),
            waiting=max(0, ahead - self.settings.rows),
            rows=self.settings.rows,
            read=self._read,
            reused=self._reused,
            written=self._written,
            steps=self._steps,
            cache_bytes=0,
        )

    def _check(self, request: Request) -> None:
        one = request.sampling
        absent = {
            "adapters": request.adapter is not None,
            "log-probabilities": one.logprobs is not None,
            "min_p": one.min_p,
            "frequency_penalty": one.frequency_penalty,
            "presence_penalty": one.presence_penalty,
            "logit_bias": one.logit_bias,
            f"the model's own settings ({', '.join(self._followed)})": (
                request.follow_settings and self._followed
            ),
        }
        missing = [name for name, asked in absent.items() if asked]
        if missing:
            raise DataError(f"genai's engine has no {' and no '.join(missing)}; use the other one")
        if len(request.ids) >= self.context:
            raise DataError(
                f"the prompt has {len(request.ids)} tokens and leaves no room for an answer: at "
                f"most {self.context} are kept for both"
            )
        odd = next((one for one in request.ids if not 0 <= one < self.vocabulary), None)
        if odd is not None:
            raise DataError(f"the prompt has token {odd}, and there are {self.vocabulary}")

    def _begin(self, request: Request) -> Any:
        options = _library().RequestOptions()
        options.set_max_session_tokens(len(request.ids) + self._most(request))
        return self._engine.create_request(options=options)

    def _most(self, request: Request) -> int:
        wanted = request.max_new_tokens or self._most_new
        return min(wanted, self.context - len(request.ids))

    def _options(self, theirs: Any, request: Request, index: int) -> Any:
        one, most = request.sampling, self._most(request)
        options = _library().TurnOptions(theirs)
        options.set_max_generated_tokens(most)
        if request.ignore_eos:
            options.set_min_generated_tokens(most)
        options.set_do_sample(not one.is_greedy)
        options.set_repetition_penalty(one.repetition_penalty)
        if not one.is_greedy:
            options.set_temperature(one.temperature)
            options.set_top_k(one.top_k)
            options.set_top_p(one.top_p)
            if one.seed is not None:
                # Another seed for each of the answers, and no two requests share a row of them.
                options.set_seed(zlib.crc32(f"{one.seed} {index}".encode()))
        if request.grammar is not None:
            options.set_guidance(_GUIDES[request.grammar.kind], request.grammar.text)
        return options

    def _taken(self, answer: _Answer, event: Any) -> list[Piece]:
        """What an event brings to an answer, which may end with it."""
        flags = int(event.flags)
        kinds = _library().EngineEventFlags
        if flags & int(kinds.FAILED) and not flags & int(kinds.RETRYABLE):
            raise ExportError(f"genai cannot answer a request: {event.error_code.name}")
        ids: tuple[int, ...] = ()
        text = ""
        if flags & int(kinds.TOKEN):
            token = int(event.token)
            ids = (token,)
            self._written += 1
            if token in answer.stops:
                answer.finish = "stop"
            elif answer.stream is not None:
                text = answer.stream.add(token)
                answer.finish = "stop" if answer.stream.stopped else None
        if flags & int(kinds.TURN_FINISHED):
            self._read += int(event.usage.prompt_tokens) - int(event.usage.cached_prompt_tokens)
            self._reused += int(event.usage.cached_prompt_tokens)
            if answer.finish is None:
                reasons = _library().FinishReason
                longest = (reasons.MAX_GENERATED_TOKENS, reasons.MAX_SESSION_TOKENS)
                answer.finish = "length" if event.finish_reason in longest else "stop"
        if answer.finish is not None:
            if answer.stream is not None:
                text += answer.stream.end()
            self._close(answer)
        if not ids and answer.finish is None:
            return []
        return [Piece(answer.number, answer.index, ids, text, finish=answer.finish)]

    def _close(self, answer: _Answer) -> None:
        del self._answers[answer.theirs]
        answer.theirs.cancel_turn(answer.turn)
        answer.theirs.close()


def _library() -> Any:
    try:
        import onnxruntime_genai
    except ImportError as error:
        raise ExportError(
            "this engine needs onnxruntime-genai, which is not installed; "
            "pip install onnxruntime-genai"
        ) from error
    if not hasattr(onnxruntime_genai, "TurnOptions"):
        raise ExportError("this engine needs onnxruntime-genai 0.18 or newer")
    return onnxruntime_genai
