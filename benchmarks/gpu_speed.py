"""Tokens per second of a bundle's CUDA graphs in onnxruntime-genai, beside PyTorch's generate.

    python benchmarks/gpu_speed.py MODEL BUNDLE

In turn, three rounds, medians; greedy, 128 new tokens after 128, at batch 1 and 8. PyTorch runs in
fp16 with its default attention. Prints a table for README.md with the GPU's name.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT, NEW, ROUNDS = 128, 128, 3


def torch_route(model: str) -> Callable[[int], float]:
    """``tokens_per_second(batch)`` of PyTorch."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float16).to("cuda").eval()

    def run(batch: int) -> float:
        ids = torch.arange(10, 10 + PROMPT, device="cuda").repeat(batch, 1)
        torch.cuda.synchronize()
        begun = time.perf_counter()
        made = loaded.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
        )
        torch.cuda.synchronize()
        return float((made.shape[1] - PROMPT) * batch / (time.perf_counter() - begun))

    return run


def genai_route(folder: Path) -> Callable[[int], float]:
    """``tokens_per_second(batch)`` of one variant."""
    import numpy as np
    import onnxruntime_genai as og

    model = og.Model(str(folder))

    def run(batch: int) -> float:
        params = og.GeneratorParams(model)
        length = PROMPT + NEW
        params.set_search_options(
            batch_size=batch, max_length=length, min_length=length, do_sample=False
        )
        begun = time.perf_counter()
        generator = og.Generator(model, params)
        generator.append_tokens(np.tile(np.arange(10, 10 + PROMPT, dtype=np.int32), (batch, 1)))
        steps = 0
        while not generator.is_done():
            generator.generate_next_token()
            steps += 1
        return steps * batch / (time.perf_counter() - begun)

    return run


def main(model: str, bundle: Path) -> None:
    """Measure and print the table."""
    import torch

    routes = {"PyTorch fp16": torch_route(model)}
    for folder in sorted(bundle.glob("cuda-*")):
        routes[folder.name] = genai_route(folder)
    print(
        f"\n{torch.cuda.get_device_name()}\n\n| route | batch 1 | batch 8 |\n| --- | ---: | ---: |"
    )
    figures: dict[tuple[str, int], list[float]] = {}
    for round_ in range(ROUNDS + 1):
        for batch in (1, 8):
            for name, run in routes.items():
                rate = run(batch)
                if round_:  # the first one warms up
                    figures.setdefault((name, batch), []).append(rate)
    for name in routes:
        cells = (f"{statistics.median(figures[name, batch]):.0f} tokens/s" for batch in (1, 8))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
