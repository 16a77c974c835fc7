"""Answer from a bundle on plain onnxruntime: batched, with a shared key-value cache, no torch.

Rows are padded on the right, as the graph's attention takes them. ``chat`` turns text into tokens
and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from risen_export.bundles.manifest import GRAPH
from risen_export.bundles.opening import open_folder
from risen_export.bundles.sites import Site
from risen_export.runtime.adapters import Adapter, Adapters, Values, sites_of
from risen_export.runtime.chat import ChatTokenizer
from risen_export.runtime.growing import GrowingCache
from risen_export.runtime.logits import Row, Settings
from risen_export.runtime.longrope import Cache, TwoTableCache, switch_of
from risen_export.runtime.session import KeyValueCache, open_session, require_runtime
from risen_export.runtime.settings import read_config, read_genai, read_generation
from risen_plugin.contracts import Prompt
from risen_plugin.errors import DataError, ExportError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
# Picks the next token of each row from (B, V) logits and the indices of the rows, (B,).
Pick = Callable[[Logits, Sequence[int]], Ids]

DEFAULT_NEW_TOKENS = 256
# Logits of a prefill are (B, T, V) in float32; a batch is cut so that they stay below this.
_PREFILL_LOGITS = 64 * 1024 * 1024


class Bundle:
    """An opened ``OUT/<precision>`` folder that answers prompts::

        bundle = Bundle.open("out/bundle")
        answers = bundle.generate([[{"role": "user", "content": "Who ordered?"}]])

    Open one with :meth:`open`. ``context_length`` and ``vocabulary`` are in tokens.
    """

    def __init__(self, folder: Path, *, threads: int | None = None, device: str = "cpu") -> None:
        self.path = folder
        self.tokenizer = ChatTokenizer(folder)
        self._adapters = Adapters(folder)
        self._how = (threads, device)
        self._session = open_session(self._adapters.plain or folder / GRAPH, threads, device)
        told = read_genai(folder)
        genai = told["model"]
        self._grows = told.get("search", {}).get("past_present_share_buffer") is False
        generation = read_generation(folder)
        self.context_length = int(genai["context_length"])
        self.vocabulary = int(genai["vocab_size"])
        self.eos_ids = ids_of(generation.get("eos_token_id"))
        self.settings = Settings(generation, str(folder / "generation_config.json"))
        self._replaces_nan = "remove_invalid_values" in self.settings.followed
        self.max_length = int(generation.get("max_length") or self.context_length)
        self.max_new_tokens = int(generation.get("max_new_tokens") or 0) or None
        self._switch = switch_of(read_config(folder))

    @classmethod
    def open(
        cls,
        path: str | Path,
        precision: str | None = None,
        threads: int | None = None,
        *,
        check_hashes: bool = True,
        device: str | None = None,
    ) -> Bundle:
        """Open ``OUT`` (its fp32 graph unless ``precision`` says otherwise) or ``OUT/<precision>``.

        :param threads: threads of one operator; None leaves the choice to onnxruntime.
        :param check_hashes: compare the content of every file with the manifest, once for each
            change of a file; else names and sizes alone.
        :param device: ``cpu`` or ``cuda``; None for the one that the variant was built for.
        :raises ExportError: if it is no bundle, lacks the precision, needs a newer onnxruntime or
            a device that is not there, or a file is missing or not as the manifest says.
        """
        folder, content = open_folder(Path(path), precision, check_hashes=check_hashes)
        require_runtime(content["requires"], folder)
        return cls(folder, threads=threads, device=device or str(content["target"]))

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters that lie in the bundle now."""
        return self._adapters.names

    @property
    def sites(self) -> list[Site]:
        """Where the graph takes adapters; none if they were merged into it."""
        return sites_of(self._with_places(), self.path / GRAPH)

    def _with_places(self) -> InferenceSession:
        """The session of the graph that takes adapters, which stays open from now on."""
        if self._adapters.plain is not None:
            self._adapters.plain = None
            self._session = open_session(self.path / GRAPH, *self._how)
        return self._session

    def _weights(self, adapter: Adapter | None) -> Values:
        """The inputs that make the graph compute an adapter; none for the base."""
        return {} if adapter is None else self._adapters.values(adapter, self._with_places)

    def logits(
        self,
        ids: Ids,
        lengths: Sequence[int] | Ids | None = None,
        *,
        adapter: Adapter | None = None,
    ) -> Logits:
        """Logits (B, T, V) of right-padded ``ids`` (B, T); cells past a row's length mean nothing.

        :param lengths: tokens of each row, (B,); None if all rows are full.
        :param adapter: one of :attr:`adapters`, or the graph's inputs that make one; the base model
            if None.
        """
        if lengths is None:
            lengths = [ids.shape[1]] * ids.shape[0]
        weights = self._weights(adapter)
        cache = self._cache(ids.shape[0], 0, weights)
        return cache.prefill(ids, np.asarray(lengths))

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int | None = None,
        batch_size: int = 32,
        do_sample: bool = False,
        temperature: float = 1.0,
        seed: int = 0,
        progress: bool = False,
        adapter: Adapter | None = None,
    ) -> list[str]:
        """Answers in the order of the prompts, without the prompt and special tokens.

        Follows the model's own generation settings (``repetition_penalty``, ``bad_words_ids``,
        ...), as transformers does; ``settings.followed`` names those that it has.

        :param prompts: texts, taken as they are, or lists of chat messages.
        :param max_new_tokens: most tokens of an answer; the model's own default if None.
        :param do_sample: draw from the distribution at ``temperature``; else the likeliest token.
        :param seed: each prompt has its own stream, so a draw does not depend on ``batch_size``.
        :param adapter: one of :attr:`adapters`; the base model answers if None.
        :raises DataError: if a prompt is empty or leaves no room in the context.
        :raises ExportError: if there is no such adapter.
        """
        answers = self.generate_ids(
            [self.tokenizer.encode(prompt) for prompt in prompts],
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            pick=sampler(seed, temperature) if do_sample else greedy,
            progress=progress,
            adapter=adapter,
        )
        return [self.tokenizer.decode(answer) for answer in answers]

    def generate_ids(
        self,
        rows: Sequence[Sequence[int]],
        *,
        max_new_tokens: int | None = None,
        batch_size: int = 32,
        pick: Pick | None = None,
        ignore_eos: bool = False,
        follow_settings: bool = True,
        progress: bool = False,
        adapter: Adapter | None = None,
    ) -> list[list[int]]:
        """Like :meth:`generate` on token ids; an answer ends before its end-of-text token.

        :param ignore_eos: go on past end-of-text until ``max_new_tokens`` or the context's end.
        :param follow_settings: apply the model's generation settings to the logits; without them
            the graph's own likeliest tokens are taken.
        """
        self._check(rows)
        limits = [self._limit(len(row), max_new_tokens) for row in rows]
        weights = self._weights(adapter)
        answers: list[list[int]] = [[] for _ in rows]
        stops = frozenset() if ignore_eos else self.eos_ids
        with tqdm(total=len(rows), desc="answers", unit="row", disable=not progress) as bar:
            for group in self._groups(rows, batch_size):
                self._answer(
                    group,
                    rows,
                    answers,
                    limits=limits,
                    stops=stops,
                    pick=pick or greedy,
                    settings=self.settings if follow_settings else None,
                    weights=weights,
                )
                bar.update(len(group))
        return answers

    def _cache(self, rows: int, capacity: int, weights: Values) -> Cache:
        """The state of a batch; capacity in tokens, 0 if nothing is kept after a prefill."""
        if self._grows:
            return GrowingCache(self._session, rows, capacity)
        if self._switch is None:
            return KeyValueCache(self._session, rows, capacity, weights)
        return TwoTableCache(
            lambda count: KeyValueCache(self._session, count, capacity, weights), self._switch
        )

    def _check(self, rows: Sequence[Sequence[int]]) -> None:
        for index, row in enumerate(rows):
            if not row:
                raise DataError(f"prompt {index} is empty")
            if len(row) >= self.context_length:
                raise DataError(
                    f"prompt {index} has {len(row)} tokens and leaves no room for an answer: "
                    f"the model's context is {self.context_length}"
                )

    def _limit(self, prompt: int, max_new_tokens: int | None) -> int:
        """Most tokens of a prompt of this length together with its answer."""
        wanted = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        if wanted is not None:
            return min(prompt + wanted, self.context_length)
        if prompt >= self.max_length:
            raise DataError(
                f"a prompt has {prompt} tokens, and the model's generation settings end prompt and "
                f"answer at {self.max_length} (max_length); say how long an answer may be"
            )
        return min(prompt + DEFAULT_NEW_TOKENS, self.max_length, self.context_length)

    def _check_numbers(self, logits: Logits) -> None:
        """Refuse to go on from NaN, which is no distribution and would give token 0 for ever."""
        if np.isnan(logits.max(axis=-1)).any() and not self._replaces_nan:
            raise ExportError(
                f"the graph {self.path / GRAPH} gives NaN in place of logits; its weights are "
                "damaged, or their precision is too low for this model"
            )

    def _groups(self, rows: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
        """Indices of rows to answer together: like lengths, bounded by rows and by prefill logits.

        The longest come first, so that a lack of memory shows at the start.
        """
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        while order:
            cells = len(rows[order[0]]) * self.vocabulary
            size = max(1, min(batch_size, _PREFILL_LOGITS // cells))
            yield order[:size]
            order = order[size:]

    def _answer(
        self,
        group: list[int],
        rows: Sequence[Sequence[int]],
        answers: list[list[int]],
        *,
        limits: Sequence[int],
        stops: frozenset[int],
        pick: Pick,
        settings: Settings | None,
        weights: Values,
    ) -> None:
        lengths = np.array([len(rows[index]) for index in group])
        longest = int(lengths.max())
        room = {index: limits[index] - len(rows[index]) for index in group}
        if max(room.values()) < 1:
            return
        ids = np.zeros((len(group), longest), dtype=np.int64)
        for line, index in enumerate(group):
            ids[line, : lengths[line]] = rows[index]
        capacity = max(limits[index] for index in group)
        cache = self._cache(len(group), capacity, weights)
        logits = cache.prefill(ids, lengths)[np.arange(len(group)), lengths - 1]  # (B, V)
        live = list(group)
        while True:
            self._check_numbers(logits)
            if settings is not None:
                so_far = [
                    Row(rows[index], answers[index], limits[index], self.eos_ids) for index in live
                ]
                logits = settings.adjust(logits, so_far)
            tokens = pick(logits, live)
            going_on = []
            for line, index in enumerate(live):
                token = int(tokens[line])
                if token in stops:
                    continue
                answers[index].append(token)
                if len(answers[index]) < room[index]:
                    going_on.append(line)
            if not going_on:
                return
            if len(going_on) < len(live):
                live = [live[line] for line in going_on]
                tokens = tokens[going_on]
                cache.select(going_on)
            logits = cache.step(tokens)


def greedy(logits: Logits, rows: Sequence[int]) -> Ids:
    """The likeliest token of each row; the lowest id among equals."""
    tokens: Ids = logits.argmax(axis=-1)
    return tokens


def sampler(seed: int, temperature: float) -> Pick:
    """Draw at ``temperature``, each prompt from its own stream of random numbers.

    By the Gumbel-max trick, which needs no softmax and no sorted vocabulary.
    """
    if temperature <= 0:
        return greedy
    streams: dict[int, np.random.Generator] = {}

    def pick(logits: Logits, rows: Sequence[int]) -> Ids:
        noise = np.stack(
            [
                streams.setdefault(row, np.random.default_rng([seed, row])).gumbel(
                    size=logits.shape[-1]
                )
                for row in rows
            ]
        )
        tokens: Ids = (logits / temperature + noise).argmax(axis=-1)
        return tokens

    return pick


def ids_of(value: Any) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset(value if isinstance(value, list) else [value])
