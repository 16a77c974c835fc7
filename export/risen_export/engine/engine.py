"""Answer many requests at once: rows join and leave at every step, prompts are read in pieces.

One engine belongs to one thread. ``worker`` gives it a thread of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from risen_export.bundles import lora
from risen_export.bundles.opening import open_folder
from risen_export.engine import scheduler
from risen_export.engine.answering import Stats, answer_all
from risen_export.engine.grammars import Grammars
from risen_export.engine.graphs import Graphs
from risen_export.engine.requests import Completion, Grammar, Piece, Request
from risen_export.engine.rows import Answer
from risen_export.engine.settings import BusyError, EngineSettings, room
from risen_export.engine.text import TextStream
from risen_export.engine.writing import Writer
from risen_export.runtime.bundle import DEFAULT_NEW_TOKENS, ids_of
from risen_export.runtime.chat import ChatTokenizer
from risen_export.runtime.longrope import switch_of
from risen_export.runtime.session import require_runtime
from risen_export.runtime.settings import read_config, read_genai, read_generation
from risen_plugin.errors import DataError, ExportError

if TYPE_CHECKING:
    from risen_export.engine.sampling import Logits

_ALONE = 8  # times the chunk, where nobody waits for a step


class Engine:
    """Answers requests from one variant of a bundle::

        engine = Engine.open("out/bundle")
        number = engine.submit(Request(tuple(engine.tokenizer.encode("Hello"))))
        while engine.busy:
            for piece in engine.step():
                print(piece.text, end="")

    ``context``, ``vocabulary``: in tokens. Not for more than one thread.
    """

    def __init__(self, folder: Path, settings: EngineSettings, device: str = "cpu") -> None:
        if device != "cpu":
            raise ExportError(
                f"{folder} is for {device}, and this engine runs on the CPU; on {device} take "
                "onnxruntime-genai's: open_engine(..., kind='genai')"
            )
        self.path = folder
        self.settings = settings
        self.tokenizer = ChatTokenizer(folder)
        genai = read_genai(folder)
        generation = read_generation(folder)
        self.vocabulary = int(genai["model"]["vocab_size"])
        self.eos_ids = ids_of(generation.get("eos_token_id"))
        self._writer = Writer(folder, generation)
        self._most_new = int(generation.get("max_new_tokens") or 0) or None
        self._longest = int(generation.get("max_length") or 0) or None
        if genai.get("search", {}).get("past_present_share_buffer") is False:
            raise ExportError(
                f"{folder} does not share its past and present, so rows cannot join and leave; "
                "answer with: risen generate"
            )
        self._graphs = Graphs(folder, settings.threads)
        shapes = self._graphs.shapes
        context = int(genai["model"]["context_length"])
        # Past the switch of a long rope, what was read would have to be read again.
        context = min(context, switch_of(read_config(folder)) or context)
        self.context = room(settings, context, shapes.token_bytes, str(folder))
        self._cache = self._graphs.allocate(settings.rows, self.context)
        self._grammars = Grammars(folder, self.vocabulary, min(self.eos_ids, default=0))
        self._slots = [scheduler.Slot() for _ in range(settings.rows)]
        self._share = settings.share and not shapes.states
        self._waiting: list[Answer] = []
        self._running: list[Answer] = []
        self._cancelled: set[int] = set()
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
    ) -> Engine:
        """Open ``OUT`` (its fp32 graph unless ``precision`` says otherwise) or ``OUT/<precision>``.

        :raises ExportError: if it is no bundle, lacks the precision, is damaged, or its graph is
            not of the kind that rows can join and leave.
        :raises DataError: if what ``settings`` ask for does not fit the model or the memory.
        """
        folder, content = open_folder(Path(path), precision, check_hashes=check_hashes)
        require_runtime(content["requires"], folder)
        return cls(folder, settings or EngineSettings(), device or str(content["target"]))

    # What is asked

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._waiting or self._running)

    def submit(self, request: Request) -> int:
        """Take a request; the number that its pieces will carry.

        :raises DataError: if it does not fit the context, or names an unknown adapter.
        :raises BusyError: if too many wait already.
        """
        if request.n + len(self._waiting) > self.settings.waiting + len(self._free()):
            ahead = len(self._waiting) + len(self._running)
            raise BusyError(
                f"{len(self._waiting)} answers wait and {len(self._running)} are being written; "
                "try again later",
                retry_after=max(1.0, ahead / self.settings.rows),
            )
        limit = self._limit(request)
        adapter = None if request.adapter is None else self._graphs.adapter(request.adapter)
        stops = request.stop_ids | (frozenset() if request.ignore_eos else self.eos_ids)
        matchers = [
            None if request.grammar is None else self._grammars.begin(request.grammar)
            for _ in range(request.n)
        ]
        number, self._next = self._next, self._next + 1
        seed = request.sampling.seed
        for index, matcher in enumerate(matchers):
            random = np.random.default_rng(None if seed is None else [seed % 2**64, index])
            answer = Answer(number, index, request, limit, stops, adapter, random, matcher=matcher)
            answer.ids = list(request.ids)
            if request.text:
                answer.stream = TextStream(self.tokenizer.decode, request.stop)
            self._waiting.append(answer)
        return number

    def prepare(self, grammar: Grammar) -> None:
        """Compile a grammar, from any thread, so that :meth:`submit` need not.

        :raises DataError: if it cannot be read.
        :raises ExportError: if llguidance is missing.
        """
        self._grammars.prepare(grammar)

    def cancel(self, number: int) -> None:
        """End a request; its last pieces come with the next step. Unknown numbers are ignored."""
        self._cancelled.add(number)

    def run(self, requests: Sequence[Request], *, progress: bool = False) -> list[list[Completion]]:
        """Answer all requests, and nothing else; the ``n`` answers of each."""
        return answer_all(self, requests, progress=progress)

    # Adapters

    @property
    def adapters(self) -> dict[str, int]:
        """The loaded adapters with their versions."""
        return self._graphs.versions

    def load_adapter(self, name: str, source: str | Path | Mapping[str, lora.Array]) -> int:
        """Add an adapter, or replace one; its version. Rows that run keep the one they began with.

        :param source: the name of an adapter of the bundle, the folder of a saved PEFT adapter, or
            inputs of the graph.
        :raises ExportError: if the bundle takes no adapters, or it cannot be read.
        :raises DataError: if it was made for another graph.
        """
        return self._graphs.load(name, source)

    def open_adapters(self) -> None:
        """Open the graph that takes adapters; from any thread, so that no step waits for it."""
        self._graphs.open_adapted()

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter; rows that run with it go on.

        :raises DataError: if there is none of that name.
        """
        self._graphs.remove(name)

    # One step

    def step(self) -> list[Piece]:
        """Let rows join, read of prompts what a step allows, and write one token for each row."""
        pieces = self._drop_cancelled()
        self._admit()
        writing = [row for row in self._running if scheduler.pending(row) == 1]
        budget = self.settings.chunk * (1 if writing else _ALONE)
        ready: list[tuple[Answer, Logits]] = []
        for chunk in scheduler.chunks(self._running, budget):
            row = chunk.row
            assert isinstance(row, Answer)
            logits = self._read_chunk(row, chunk.stop)
            if row.computed == len(row.ids):
                ready.append((row, logits))
        if ready:
            pieces += self._write([row for row, _ in ready], np.stack([one for _, one in ready]))
        if writing:
            pieces += self._write(writing, self._step(writing))
        return pieces

    def stats(self) -> Stats:
        """What it does now and has done."""
        return Stats(
            running=len(self._running),
            waiting=len(self._waiting),
            rows=self.settings.rows,
            read=self._read,
            reused=self._reused,
            written=self._written,
            steps=self._steps,
            cache_bytes=self._cache.bytes,
        )

    def _drop_cancelled(self) -> list[Piece]:
        pieces = []
        for row in [*self._waiting, *self._running] if self._cancelled else ():
            if row.number in self._cancelled:
                pieces.append(row.cancel())
                self._leave(row)
        self._cancelled.clear()
        return pieces

    def _admit(self) -> None:
        """Give slots to those that wait, first come, first served."""
        for row in list(self._waiting):
            if not self._free():
                return
            place = scheduler.place(self._slots, row, share=self._share)
            if place is None:
                continue
            if place.source != place.slot:
                self._cache.copy(place.source, place.slot, place.shared)
            if not place.shared:
                self._cache.clear_state(place.slot)
            row.slot, row.computed = place.slot, place.shared
            slot = self._slots[place.slot]
            slot.row, slot.key, slot.ids = row, row.key, row.ids[: place.shared]
            self._reused += place.shared
            self._waiting.remove(row)
            self._running.append(row)

    def _read_chunk(self, row: Answer, stop: int) -> Logits:
        ids = row.ids[row.computed : stop]
        logits = self._graphs.read(row, ids)
        self._read += len(ids)
        self._has_read(row, ids)
        return logits

    def _step(self, rows: list[Answer]) -> Logits:
        """Run the graph over one token of each row; logits in the order of the rows."""
        for hole, taken in scheduler.swaps(row.slot for row in rows):
            self._swap(hole, taken)
        rows.sort(key=lambda row: row.slot)
        logits = self._graphs.step(rows)
        self._steps += 1
        for row in rows:
            self._has_read(row, row.ids[-1:])
        return logits

    def _has_read(self, row: Answer, ids: Sequence[int]) -> None:
        slot = self._slots[row.slot]
        row.computed += len(ids)
        slot.ids.extend(ids)
        slot.used = self._steps

    def _swap(self, one: int, other: int) -> None:
        slots = self._slots
        self._cache.swap(one, other, max(len(slots[one].ids), len(slots[other].ids)))
        slots[one], slots[other] = slots[other], slots[one]
        for number in (one, other):
            row = slots[number].row
            if row is not None:
                row.slot = number

    def _write(self, rows: Sequence[Answer], logits: Logits) -> list[Piece]:
        """Write the next token of each row, whose logits are (B, V)."""
        pieces = self._writer.write(rows, logits)
        for row in rows:
            if row.finish is not None:
                self._leave(row)
        self._written += len(rows)
        return pieces

    def _leave(self, row: Answer) -> None:
        if row.slot < 0:
            self._waiting.remove(row)
            return
        self._slots[row.slot].row = None
        self._running.remove(row)

    def _free(self) -> list[int]:
        return [number for number, slot in enumerate(self._slots) if slot.row is None]

    def _limit(self, request: Request) -> int:
        """Most tokens of prompt and answer together.

        :raises DataError: if the prompt leaves no room, or names no token of the model.
        """
        length = len(request.ids)
        if length >= self.context:
            raise DataError(
                f"the prompt has {length} tokens and leaves no room for an answer: at most "
                f"{self.context} are kept for both"
            )
        odd = next((one for one in request.ids if not 0 <= one < self.vocabulary), None)
        if odd is not None:
            raise DataError(f"the prompt has token {odd}, and there are {self.vocabulary}")
        odd = next(
            (one for one in request.sampling.logit_bias if not 0 <= one < self.vocabulary), None
        )
        if odd is not None:
            raise DataError(f"logit_bias has token {odd}, and there are {self.vocabulary}")
        wanted = request.max_new_tokens or self._most_new
        if wanted is not None:
            return min(length + wanted, self.context)
        longest = min(self._longest or self.context, self.context)
        if length >= longest:
            raise DataError(
                f"the prompt has {length} tokens, and the model's generation settings end prompt "
                f"and answer at {longest} (max_length); say how long an answer may be"
            )
        return min(length + DEFAULT_NEW_TOKENS, longest)
