"""The engines that ``benchmarks.serving`` times: each answers requests that come when they come."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import click

from benchmarks.shared import ROOT

NODE_LLAMA = "RISEN_NODE_LLAMA"
"""Environment variable: the folder of the npm package node-llama-cpp."""
Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Asked:
    """Prompts, how many tokens of answer each, and the seconds after which each comes."""

    prompts: Prompts
    tokens: Sequence[int]
    arrivals: Sequence[float] | None = None

    def arrival(self, number: int) -> float:
        return 0.0 if self.arrivals is None else self.arrivals[number]


@dataclass(frozen=True)
class Served:
    """What came back.

    :param ids: of each answer.
    :param times: seconds after the beginning at which each token came.
    """

    ids: list[list[int]]
    times: list[list[float]]

    @property
    def seconds(self) -> float:
        """Until the last token."""
        return max(times[-1] for times in self.times)


class Arm(Protocol):
    """An engine.

    :param weights: bytes of the weights that one step reads.
    """

    weights: int

    def serve(self, asked: Asked) -> Served:
        """Answer greedily, past any end of text."""

    def peak(self) -> float:
        """Bytes that were resident at most."""


class UnavailableError(Exception):
    """Why an engine is left out."""


@dataclass(frozen=True)
class Size:
    """Answers at once, tokens of each with its prompt, and threads."""

    rows: int
    context: int
    threads: int


def makers_of(
    model: Path, bundle: Path, gguf: Path | None, size: Size
) -> dict[str, Callable[[], Arm]]:
    """The engines by name, each made when it is called.

    :param gguf: folder with the model's GGUF files.
    """
    makers: dict[str, Callable[[], Arm]] = {}
    for folder in sorted(path.parent for path in bundle.glob("*/model.onnx")):
        makers[f"engine {folder.name}"] = partial(Ours, folder, size)
        makers[f"genai engine {folder.name}"] = partial(Genai, folder, size)
        makers[f"genai generator {folder.name}"] = partial(Generator, folder, size.threads)
    for file in sorted(gguf.glob("*.gguf") if gguf else ()):
        makers[f"llama.cpp {file.stem}"] = partial(Llama, file, size)
    for word, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        makers[f"PyTorch generate {word}"] = partial(Torch, model, dtype, size.threads)
        makers[f"transformers batching {word}"] = partial(Continuous, model, dtype, size)
    return makers


def _bundle_weights(folder: Path) -> int:
    from risen_export import bytes_by_kind

    without = ("tokenizer_and_configs", "rotary_tables", "graph")
    return sum(size for kind, size in bytes_by_kind(folder).items() if kind not in without)


def _own_peak() -> float:
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


class Remote:
    """An engine in a process of its own, so that its memory is its own too.

    :raises UnavailableError: if it cannot be run here.
    """

    def __init__(self, make: Callable[[], Arm]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run_remote, args=(theirs, make), daemon=True)
        self._process.start()
        theirs.close()
        self.weights = int(self._read())

    def serve(self, asked: Asked) -> Served:
        """Answer greedily, past any end of text."""
        self._pipe.send(asked)
        served = self._read()
        assert isinstance(served, Served)
        return served

    def peak(self) -> float:
        """Bytes that were resident at most."""
        self._pipe.send(None)
        return float(self._read())

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        self._process.kill()

    def _read(self) -> Any:
        try:
            read = self._pipe.recv()
        except EOFError as error:
            raise UnavailableError("its process ended") from error
        if isinstance(read, Exception):
            raise read
        return read


def _run_remote(pipe: Connection, make: Callable[[], Arm]) -> None:
    try:
        arm = make()
    except Exception as error:  # noqa: BLE001 - whatever it is, the engine cannot be run here
        pipe.send(UnavailableError(f"{type(error).__name__}: {error}"[:300]))
        return
    pipe.send(arm.weights)
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(arm.peak() if asked is None else arm.serve(asked))
        except UnavailableError as error:
            pipe.send(error)


class _Stepping:
    """An engine of this project, driven by one thread."""

    engine: Any
    weights: int

    def serve(self, asked: Asked) -> Served:
        from risen_export.engine.requests import Request

        todo = sorted(range(len(asked.prompts)), key=asked.arrival)
        places: dict[int, int] = {}
        ids: list[list[int]] = [[] for _ in asked.prompts]
        times: list[list[float]] = [[] for _ in asked.prompts]
        begun = time.perf_counter()
        while todo or self.engine.busy:
            while todo and asked.arrival(todo[0]) <= time.perf_counter() - begun:
                place = todo.pop(0)
                request = Request(
                    tuple(asked.prompts[place]),
                    asked.tokens[place],
                    ignore_eos=True,
                    follow_settings=False,
                    text=False,
                )
                places[self.engine.submit(request)] = place
            if not self.engine.busy:
                wait = asked.arrival(todo[0]) - (time.perf_counter() - begun)
                time.sleep(max(0.0, wait))
                continue
            pieces = self.engine.step()
            now = time.perf_counter() - begun
            for piece in pieces:
                ids[places[piece.request]] += piece.ids
                times[places[piece.request]] += [now] * len(piece.ids)
        return Served(ids, times)

    def peak(self) -> float:
        return _own_peak()


class Ours(_Stepping):
    """The engine on plain onnxruntime."""

    def __init__(self, folder: Path, size: Size) -> None:
        from risen_export.engine.engine import Engine
        from risen_export.engine.settings import EngineSettings

        settings = EngineSettings(
            rows=size.rows,
            context=size.context,
            threads=size.threads,
            waiting=1024,
            share=False,
        )
        self.engine = Engine.open(folder, settings=settings, check_hashes=False)
        self.weights = _bundle_weights(folder)


class Genai(_Stepping):
    """onnxruntime-genai's own engine."""

    def __init__(self, folder: Path, size: Size) -> None:
        from risen_export.engine.genai import GenaiEngine
        from risen_export.engine.settings import EngineSettings

        settings = EngineSettings(
            rows=size.rows, context=size.context, threads=size.threads, waiting=1024
        )
        self.engine = GenaiEngine.open(folder, settings=settings, check_hashes=False)
        self.weights = _bundle_weights(folder)


class Generator:
    """onnxruntime-genai's generator: prompts of one length that come together."""

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime_genai as og

        config = og.Config(str(folder))
        session = {"session_options": {"intra_op_num_threads": threads}}
        config.overlay(json.dumps({"model": {"decoder": session}}))
        self._model = og.Model(config)
        self.weights = _bundle_weights(folder)

    def serve(self, asked: Asked) -> Served:
        import numpy as np
        import onnxruntime_genai as og

        _check_static(asked)
        most = len(asked.prompts[0]) + asked.tokens[0]
        begun = time.perf_counter()
        params = og.GeneratorParams(self._model)
        # End-of-text tokens are forbidden until then, so that every answer has its length.
        params.set_search_options(
            batch_size=len(asked.prompts), max_length=most, min_length=most, do_sample=False
        )
        generator = og.Generator(self._model, params)
        generator.append_tokens(np.asarray(asked.prompts, dtype=np.int32))
        ids: list[list[int]] = [[] for _ in asked.prompts]
        times: list[list[float]] = [[] for _ in asked.prompts]
        for _ in range(asked.tokens[0]):
            generator.generate_next_token()
            for place, token in enumerate(generator.get_next_tokens()):
                ids[place].append(int(token))
                times[place].append(time.perf_counter() - begun)
        return Served(ids, times)

    def peak(self) -> float:
        return _own_peak()


class Torch:
    """PyTorch's ``generate``: prompts of one length that come together."""

    def __init__(self, model: Path, dtype: str, threads: int) -> None:
        self._model = _load(model, dtype, threads)
        self.weights = _torch_weights(self._model)

    def serve(self, asked: Asked) -> Served:
        import torch

        _check_static(asked)
        times: list[float] = []

        def note(ids: Any, scores: Any) -> Any:
            times.append(time.perf_counter())
            return scores

        ids = torch.tensor(asked.prompts)
        begun = time.perf_counter()
        with torch.no_grad():
            made = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=asked.tokens[0],
                do_sample=False,
                pad_token_id=0,
                logits_processor=[note],
            )
        answers = made[:, ids.shape[1] :].tolist()
        return Served(answers, [[one - begun for one in times] for _ in answers])

    def peak(self) -> float:
        return _own_peak()


class Continuous:
    """transformers' continuous batching."""

    def __init__(self, model: Path, dtype: str, size: Size) -> None:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        self._model = _load(model, dtype, size.threads)
        self.weights = _torch_weights(self._model)
        page = 32
        self._manager = self._model.init_continuous_batching(
            GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
            ContinuousBatchingConfig(
                page_size=page,
                num_blocks=size.rows * -(-size.context // page),
                max_batch_tokens=512,
                max_requests_per_batch=size.rows,
                allow_block_sharing=False,
            ),
        )
        self._manager.start()
        self._asked = 0

    def serve(self, asked: Asked) -> Served:
        order = sorted(range(len(asked.prompts)), key=asked.arrival)
        ids: list[list[int]] = [[] for _ in asked.prompts]
        times: list[list[float]] = [[] for _ in asked.prompts]
        places: dict[str, int] = {}
        left = len(order)
        begun = time.perf_counter()
        while left:
            now = time.perf_counter() - begun
            while order and asked.arrival(order[0]) <= now:
                place = order.pop(0)
                name = f"asked {self._asked}"
                self._asked += 1
                places[name] = place
                self._manager.add_request(
                    list(asked.prompts[place]),
                    request_id=name,
                    max_new_tokens=asked.tokens[place],
                    streaming=True,
                    eos_token_id=-1,
                )
            wait = asked.arrival(order[0]) - now if order else 1.0
            result = self._manager.get_result(timeout=max(0.001, min(wait, 1.0)))
            if result is None:
                continue
            if result.error:
                raise click.ClickException(f"transformers' continuous batching: {result.error}")
            place = places[result.request_id]
            new = result.generated_tokens[len(ids[place]) :]
            ids[place] += new
            times[place] += [time.perf_counter() - begun] * len(new)
            left -= result.is_finished()
        return Served(ids, times)

    def peak(self) -> float:
        return _own_peak()


class Llama:
    """llama.cpp in a process of node: the npm package has its library, and no server."""

    def __init__(self, file: Path, size: Size) -> None:
        package, node = os.environ.get(NODE_LLAMA), shutil.which("node")
        if not package or node is None:
            raise UnavailableError(f"{NODE_LLAMA} names no folder of node-llama-cpp, or no node")
        script = ROOT / "benchmarks" / "llama_serving.mjs"
        self._process = subprocess.Popen(
            [node, str(script), str(file), str(size.rows), str(size.context), str(size.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._peak = 0.0
        self._read()
        # The tables of the format are small beside the weights.
        self.weights = file.stat().st_size

    def serve(self, asked: Asked) -> Served:
        assert self._process.stdin is not None
        question = {"prompts": asked.prompts, "tokens": asked.tokens, "arrivals": asked.arrivals}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        self._peak = float(answer["peak"])
        answers = answer["answers"]
        return Served([one["ids"] for one in answers], [one["times"] for one in answers])

    def peak(self) -> float:
        return self._peak

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                read: dict[str, Any] = json.loads(line)
                return read
        raise UnavailableError("llama.cpp ended without an answer")


def _check_static(asked: Asked) -> None:
    lengths = {len(prompt) for prompt in asked.prompts}
    if asked.arrivals is not None or len(lengths) > 1 or len(set(asked.tokens)) > 1:
        raise UnavailableError("it takes prompts of one length that come together")


def _load(model: Path, dtype: str, threads: int) -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise UnavailableError("transformers is not installed")
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    loaded.generation_config.eos_token_id = None
    return loaded


def _torch_weights(model: Any) -> int:
    return sum(one.numel() * one.element_size() for one in model.parameters())
