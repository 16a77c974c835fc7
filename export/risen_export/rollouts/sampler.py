"""Sample the answers of a phase with the engine, from a graph of the base and live LoRA factors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.backends.builder import ModelBuilder
from risen_export.bundles.variants import PRECISIONS, read_precisions, variants
from risen_plugin.contracts import Drawn
from risen_plugin.errors import ConfigError, ExportError

if TYPE_CHECKING:
    from risen_export.bundles.lora import Lora
    from risen_export.bundles.sites import Site
    from risen_export.engine.engine import Engine

_ADAPTER = "trained"
_PAGE = 64  # tokens, by which the room of a row grows


class OnnxRollout:
    """Sample from an ONNX graph of the base on onnxruntime, with the adapter as it is now.

    A group of answers reads its prompt once. With int8 or int4 the answers are those of the model
    as it will be deployed.

    :param precision: of the graph, as ``risen export --precision`` takes it.
    :param rows: most answers that are written at once; None for a whole batch.
    :param memory: bytes for keys and values.
    :param threads: of one operator; None leaves the choice to onnxruntime.
    """

    def __init__(
        self,
        precision: str = "fp32",
        rows: int | None = None,
        memory: int = 2 * 1024**3,
        threads: int | None = None,
    ) -> None:
        try:
            names = read_precisions((precision,))
            if names[0] not in PRECISIONS:
                raise ExportError(f"precision '{precision}' is for risen export alone")
            variants(("cpu",), names)
        except ExportError as error:
            raise ConfigError(str(error)) from error
        self.precision = names[0]
        self.rows = rows
        self.memory = memory
        self.threads = threads

    def refuses(self, config: Mapping[str, Any]) -> str | None:
        """Why no graph of such a model takes adapters; None if one does."""
        return ModelBuilder().refuses(config, "cpu", self.precision)

    def __call__(
        self, *, model: Any, tokenizer: Any, folder: str, rows: int, **context: Any
    ) -> OnnxSampler:
        """Export the base, unless that was done, and open it."""
        from risen_export.bundles.manifest import GRAPH
        from risen_export.bundles.sites import of_graph
        from risen_export.engine.engine import Engine
        from risen_export.engine.settings import EngineSettings
        from risen_export.rollouts.base import export_base

        made = export_base(model, tokenizer, Path(folder), self.precision)

        def opened(context: int | None) -> Engine:
            settings = EngineSettings(
                rows=min(rows, self.rows or rows),
                context=context,
                memory=self.memory,
                threads=self.threads,
                waiting=2**20,
            )
            return Engine.open(made, settings=settings, check_hashes=False)

        return OnnxSampler(opened, of_graph(made / GRAPH))


class OnnxSampler:
    """An engine that follows the adapter in training.

    Attention takes twice as long where each of 32 rows has room for 1,456 tokens in place of 160
    (SmolLM2-135M, int8-fast), so the engine is opened again with the room that the first prompts
    take, and whenever longer ones come.

    :param opened: an engine with room for so many tokens, or the most that fit where that is None.
    :param sites: where its graph takes the factors.
    """

    def __init__(self, opened: Callable[[int | None], Engine], sites: Sequence[Site]) -> None:
        self._opened = opened
        self._engine: Engine | None = opened(None)
        self._sites = sites
        self._room: int | None = None
        self._inputs: Mapping[str, Any] = {}
        self.context = self._engine.context

    def follow(self, factors: Mapping[str, tuple[Any, Any]]) -> None:
        """Answer with these factors from now on.

        :raises ExportError: if the graph has no place for one of them.
        """
        from risen_export.bundles import lora

        self._inputs = lora.pack(_as_lora(factors), self._sites) if factors else {}
        self._load(self._engine)

    def sample(
        self,
        prompts: Sequence[tuple[Sequence[int], int]],
        *,
        max_new_tokens: int,
        temperature: float,
        ends: Iterable[int],
        seed: int,
    ) -> list[list[Drawn]]:
        """Answers to each prompt, as many as its number says."""
        from risen_export.engine.requests import Request, Sampling

        engine = self._with_room(max(len(ids) for ids, _ in prompts) + max_new_tokens)
        stops = frozenset(ends)
        requests = [
            Request(
                tuple(ids),
                max_new_tokens,
                Sampling(
                    temperature=temperature,
                    seed=(seed + place) % 2**63,
                    logprobs=0,
                    scaled_logprobs=True,
                ),
                n=count,
                adapter=_ADAPTER if self._inputs else None,
                stop_ids=stops,
                ignore_eos=True,
                follow_settings=False,
                text=False,
            )
            for place, (ids, count) in enumerate(prompts)
        ]
        return [
            [Drawn(one.ids, [each.logprob for each in one.logprobs]) for one in group]
            for group in engine.run(requests)
        ]

    def close(self) -> None:
        """Let go of the graph and its keys and values."""
        self._engine = None

    def _with_room(self, tokens: int) -> Engine:
        """The engine, with room for prompts and answers of so many tokens together."""
        if self._engine is None or self._room is None or tokens > self._room:
            self._engine = None  # before there is another one
            self._room = min(self.context, -(-tokens // _PAGE) * _PAGE)
            self._engine = self._opened(self._room)
            self._load(self._engine)
        return self._engine

    def _load(self, engine: Engine | None) -> None:
        if engine is not None and self._inputs:
            engine.load_adapter(_ADAPTER, self._inputs)


def _as_lora(factors: Mapping[str, tuple[Any, Any]]) -> Lora:
    from risen_export.bundles.lora import Factors, Lora

    named = {name: Factors(a, b) for name, (a, b) in factors.items()}
    return Lora(Path("in training"), named, None, None)
