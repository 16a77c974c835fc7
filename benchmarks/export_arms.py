"""The routes that ``benchmarks.export`` times: each answers rows of token ids, past end of text."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click

Rows = Sequence[Sequence[int]]
OPTIMUM = "RISEN_OPTIMUM_PYTHON"
"""Environment variable: a Python with optimum-onnx, whose transformers is an older one."""


class Arm(Protocol):
    """Something that answers.

    :param weights: bytes of the weights that one step reads.
    """

    weights: int

    def answer(self, prompts: Rows, tokens: int) -> float:
        """Seconds for exactly ``tokens`` tokens after each of the prompts, which are as long."""


class _UnavailableError(Exception):
    """Why a route is left out."""


def arms_of(
    model: Path, bundle: Path, threads: int, chosen: Sequence[str]
) -> tuple[dict[str, Arm], dict[str, str]]:
    """The routes that can be run here, PyTorch in fp32 first, and why others are left out."""
    makers: dict[str, Callable[[], Arm]] = {
        "PyTorch fp32": lambda: _Torch(model, "float32", threads),
        "PyTorch bf16": lambda: _Torch(model, "bfloat16", threads),
    }
    for folder in sorted(path.parent for path in bundle.glob("*/model.onnx")):
        makers[f"bundle {folder.name}"] = partial(_Bundle, folder, threads)
    makers["optimum, on the bundle"] = lambda: _Optimum(bundle / "fp32", bundle / "fp32", threads)
    makers["optimum, its own export"] = lambda: _Optimum(model, bundle / "fp32", threads)
    makers["transformers' exporter"] = lambda: _traced(model, threads)
    arms: dict[str, Arm] = {}
    left_out = {}
    for name, make in makers.items():
        if chosen and name not in chosen:
            continue
        try:
            arms[name] = make()
        except _UnavailableError as error:
            left_out[name] = str(error)
    if not arms:
        raise click.ClickException(f"no such arm; choose from: {', '.join(makers)}")
    return arms, left_out


def bandwidth(threads: int) -> float:
    """Bytes per second that copying an array moves, read and written, by all threads."""
    import numpy as np

    source = np.ones(64 * 1024 * 1024, dtype=np.float32)
    target = np.empty_like(source)
    target.fill(0)
    size = source.size // threads
    slices = [slice(part * size, (part + 1) * size) for part in range(threads)]

    def copy(part: slice) -> None:
        np.copyto(target[part], source[part])

    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            started = time.perf_counter()
            list(pool.map(copy, slices))
            best = min(best, time.perf_counter() - started)
    return 2 * source.nbytes / best


class _Torch:
    """transformers' ``generate``."""

    def __init__(self, model: Path, dtype: str, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
        self._model.generation_config.eos_token_id = None
        self.weights = sum(p.numel() * p.element_size() for p in self._model.parameters())

    def answer(self, prompts: Rows, tokens: int) -> float:
        import torch

        ids = torch.tensor(prompts)
        started = time.perf_counter()
        with torch.no_grad():
            made = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
        seconds = time.perf_counter() - started
        assert made.shape[1] == ids.shape[1] + tokens
        return seconds


class _Bundle:
    """One variant of a bundle, through :class:`risen_export.Bundle`."""

    def __init__(self, folder: Path, threads: int) -> None:
        from risen_export import Bundle, bytes_by_kind

        self._bundle = Bundle.open(folder, threads=threads)
        kinds = bytes_by_kind(folder)
        without = ("tokenizer_and_configs", "rotary_tables", "graph")
        self.weights = sum(size for kind, size in kinds.items() if kind not in without)

    def answer(self, prompts: Rows, tokens: int) -> float:
        started = time.perf_counter()
        made = self._bundle.generate_ids(
            prompts, max_new_tokens=tokens, batch_size=len(prompts), ignore_eos=True
        )
        seconds = time.perf_counter() - started
        assert all(len(row) == tokens for row in made)
        return seconds


def _traced(model: Path, threads: int) -> Arm:
    """The graph of transformers' own exporter, as the bundle's backend of that name makes it."""
    if importlib.util.find_spec("risen_export.backends.traced") is None:
        raise _UnavailableError("this release has no backend for it")
    folder = Path(tempfile.mkdtemp()) / "bundle"
    command = [sys.executable, "-c", "from risen_plugin.cli import main; main()"]
    done = subprocess.run(
        [*command, "export", str(model), str(folder), "--backend", "transformers", "--no-verify"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise _UnavailableError(done.stderr.strip()[-300:])
    return _Bundle(folder / "fp32", threads)


_OPTIMUM = """
import json, sys, time
import torch, onnxruntime
from optimum.onnxruntime import ORTModelForCausalLM
folder, own, threads = sys.argv[1], sys.argv[2] == "own", int(sys.argv[3])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
torch.set_num_threads(threads)
model = ORTModelForCausalLM.from_pretrained(folder, export=own, session_options=options)
model.generation_config.eos_token_id = None
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    ids = torch.tensor(asked["prompts"])
    started = time.perf_counter()
    made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                          max_new_tokens=asked["tokens"], pad_token_id=0)
    seconds = time.perf_counter() - started
    assert made.shape[1] == ids.shape[1] + asked["tokens"]
    print(seconds, flush=True)
"""


class _Optimum:
    """optimum's ``generate`` in an environment of its own, asked line by line.

    :param folder: the bundle's variant, or the model that it exports itself.
    :param variant: where the configuration stands that its older transformers reads rightly.
    """

    def __init__(self, folder: Path, variant: Path, threads: int) -> None:
        python = os.environ.get(OPTIMUM)
        if not python:
            raise _UnavailableError(f"{OPTIMUM} does not name a Python with optimum-onnx")
        self._scratch = tempfile.TemporaryDirectory()
        own = folder != variant
        if own:
            # The weights with the bundle's configuration, in the words of transformers 4.
            made = Path(self._scratch.name)
            for path in folder.glob("*.safetensors"):
                (made / path.name).symlink_to(path.resolve())
            for name in ("config.json", "generation_config.json"):
                (made / name).write_bytes((variant / name).read_bytes())
            folder = made
        self._process = subprocess.Popen(
            [python, "-c", _OPTIMUM, str(folder), "own" if own else "bundle", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read("ready")
        self.weights = sum(_bytes(path) for path in variant.rglob("*.onnx_data"))

    def answer(self, prompts: Rows, tokens: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self, awaited: str = "") -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if awaited in line and (awaited or line[0].isdigit()):
                return line
        raise _UnavailableError("optimum ended without an answer")


def _bytes(path: Path) -> int:
    return path.stat().st_size
