"""Claim: what a bundle of ``risen export`` weighs, and how fast it answers beside PyTorch.

The graphs are run by ``risen_export.Bundle``, the merged model by ``model.generate``; both greedy,
on the demo's questions, in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click

from benchmarks.shared import (
    Spread,
    interleave,
    machine,
    measuring,
    print_table,
    ratio,
    threads_option,
    write_results,
)

TORCH = "PyTorch fp32"
_SINGLE = 4  # prompts that are decoded one at a time


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--model", help="The model it was made from; default: the hub id that its manifest has."
)
@click.option("--prompts", default=128, show_default=True, help="Questions answered at once.")
@click.option("--tokens", default=64, show_default=True, help="Longest answer, in tokens.")
@threads_option
@measuring(repeats=7)
def main(
    *,
    bundle: Path,
    model: str | None,
    prompts: int,
    tokens: int,
    threads: int,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Weigh BUNDLE, the folder that risen export wrote, and time it against PyTorch."""
    before = machine()
    from benchmarks import training
    from risen_export.bundles import manifest

    training.prepare(threads)
    spanning = manifest.read(bundle) or {}
    if "variants" not in spanning:
        raise click.ClickException(f"{bundle} is not a folder that risen export wrote")
    source = model or str(spanning["source"])
    if "/" not in source and not Path(source).is_dir():
        raise click.ClickException(
            f"the manifest names '{source}' without its folder; give --model"
        )
    torch_arm = _Torch(source)
    arms: dict[str, _Arm] = {TORCH: torch_arm}
    arms |= {name: _Graph(bundle, name, threads) for name in spanning["variants"]}
    texts = [row["prompt"] for row in training.instructions(prompts, 4)]
    told = {name: arm.answers(texts, tokens) for name, arm in arms.items()}  # warms up too
    equal = {
        name: sum(a == b for a, b in zip(one, told[TORCH], strict=True)) / prompts
        for name, one in told.items()
    }
    single = [torch_arm.ids(text) for text in texts[:_SINGLE]]
    decoded = interleave(
        {name: partial(_decode_rate, arm, single, tokens) for name, arm in arms.items()}, repeats
    )
    answered = interleave(
        {name: partial(_answer_rate, arm, texts, tokens) for name, arm in arms.items()}, repeats
    )
    weights = {name: _weigh(bundle / name) for name in spanning["variants"]}
    _show_weights(weights, torch_arm.parameters)
    print_table(
        f"Greedy, {threads} threads, {repeats} interleaved runs, median (least to most)",
        (
            "",
            "decode tokens/s, 1 row",
            "times PyTorch",
            f"answers/s, {prompts} rows",
            "times PyTorch",
            "answers equal to PyTorch's",
        ),
        [
            (
                name,
                Spread.of(decoded[name]).show(0),
                ratio(decoded[name], decoded[TORCH]).show(2),
                Spread.of(answered[name]).show(1),
                ratio(answered[name], answered[TORCH]).show(2),
                f"{equal[name]:.1%}",
            )
            for name in arms
        ],
    )
    results = {
        "parameters": torch_arm.parameters,
        "bytes": weights,
        "decode_tokens_per_s": {name: Spread.of(v) for name, v in decoded.items()},
        "decode_over_torch": {name: ratio(v, decoded[TORCH]) for name, v in decoded.items()},
        "answers_per_s": {name: Spread.of(v) for name, v in answered.items()},
        "answers_over_torch": {name: ratio(v, answered[TORCH]) for name, v in answered.items()},
        "equal_answers": equal,
    }
    settings = {"prompts": prompts, "tokens": tokens, "threads": threads, "repeats": repeats}
    write_results(json_file, settings=settings, machine=before, results=results)


class _Arm(Protocol):
    """Something that answers."""

    def answers(self, prompts: Sequence[Any], tokens: int) -> list[str]:
        """Greedy answers of at most ``tokens`` tokens, all prompts in one batch."""

    def go_on(self, ids: list[int], tokens: int) -> None:
        """Exactly ``tokens`` tokens after one prompt, past any end of text."""


class _Torch:
    """The merged model, run by transformers."""

    def __init__(self, source: str) -> None:
        from risen_export import merge
        from risen_export.merging.source import resolve

        merged = merge.load(resolve(source))
        self.model, self.tokenizer = merged.model, merged.tokenizer
        self.parameters = sum(p.numel() for p in self.model.parameters())  # tied ones once

    def ids(self, prompt: Any) -> list[int]:
        from risen_plugin.training.answering import prompt_ids

        return prompt_ids(self.tokenizer, prompt)

    def answers(self, prompts: Sequence[Any], tokens: int) -> list[str]:
        from risen_plugin.contracts import text_of
        from risen_plugin.training.answering import answers

        made = answers(
            self.model, self.tokenizer, prompts, max_new_tokens=tokens, batch_size=len(prompts)
        )
        return [text_of(answer) for answer in made]

    def go_on(self, ids: list[int], tokens: int) -> None:
        import torch

        row = torch.tensor([ids])  # (1, T)
        with torch.no_grad():
            self.model.generate(
                input_ids=row,
                attention_mask=torch.ones_like(row),
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                do_sample=False,
            )


class _Graph:
    """One precision of the bundle, run by onnxruntime."""

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        from risen_export.runtime.bundle import Bundle

        self.bundle = Bundle.open(folder, precision, threads)

    def answers(self, prompts: Sequence[Any], tokens: int) -> list[str]:
        return self.bundle.generate(prompts, max_new_tokens=tokens, batch_size=len(prompts))

    def go_on(self, ids: list[int], tokens: int) -> None:
        self.bundle.generate_ids([ids], max_new_tokens=tokens, ignore_eos=True)


def _decode_rate(arm: _Arm, rows: Sequence[list[int]], tokens: int) -> float:
    """Tokens per second, one row at a time, the prompt's own time taken away."""

    def answer(count: int) -> None:
        for row in rows:
            arm.go_on(row, count)

    longer = _seconds(partial(answer, tokens)) - _seconds(partial(answer, 1))
    return len(rows) * (tokens - 1) / longer


def _answer_rate(arm: _Arm, prompts: Sequence[Any], tokens: int) -> float:
    """Answers per second, all prompts in one batch, tokenizer and prompt included."""
    return len(prompts) / _seconds(partial(arm.answers, prompts, tokens))


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _weigh(folder: Path) -> dict[str, int]:
    from risen_export import bytes_by_kind

    return bytes_by_kind(folder)


def _show_weights(weights: dict[str, dict[str, int]], parameters: int) -> None:
    kinds = list(dict.fromkeys(kind for one in weights.values() for kind in one))
    rows = [
        (kind.replace("_", " "), *(f"{one.get(kind, 0):,}" for one in weights.values()))
        for kind in kinds
    ]
    rows.append(("all files", *(f"{sum(one.values()):,}" for one in weights.values())))
    model = [sum(v for k, v in w.items() if k != "tokenizer_and_configs") for w in weights.values()]
    rows.append(("bytes per parameter, tokenizer aside", *(f"{m / parameters:.3f}" for m in model)))
    print_table(f"Bytes, {parameters:,} parameters", ("", *weights), rows)


if __name__ == "__main__":
    main()
