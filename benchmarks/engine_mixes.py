"""Claim: an engine answers every request as if it were alone, and draws from the softmax.

Mixes of lengths, arrivals, cancellations, adapters and common beginnings are drawn from a seed, and
each answer is compared with that of ``Bundle.generate_ids`` to the same request by itself. Then
single tokens are drawn by the thousand and compared with what their logits say, by chi-square.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from benchmarks.shared import machine, measuring, print_table, write_results
from risen_export import Bundle
from risen_export.bundles.sites import Site
from risen_export.engine.engine import Engine
from risen_export.engine.requests import Request, Sampling
from risen_export.engine.settings import EngineSettings
from risen_export.runtime.adapters import as_values

ADAPTERS = {"one": 4, "two": 9}
"""Names and ranks of the adapters that requests may ask for."""
LEAST_P = 1e-4
"""A chi-square test fails below it."""
_FEWEST = 5.0  # draws that a token must expect to be counted by itself
Values = Mapping[str, npt.NDArray[np.float32]]


def factors(sites: Sequence[Site], seed: int, rank: int) -> dict[str, npt.NDArray[np.float32]]:
    """An adapter as inputs of the graph, strong enough to change the answers of a tiny model."""
    numbers = np.random.default_rng(seed)
    made = {}
    for site in sites:
        made[site.down] = numbers.normal(0, 0.3, (1, site.inputs, rank)).astype(np.float32)
        made[site.up] = numbers.normal(0, 0.3, (1, rank, site.outputs)).astype(np.float32)
    return made


def adapters_for(sites: Sequence[Site]) -> dict[str, Values]:
    """The factors of each of :data:`ADAPTERS`."""
    return {name: factors(sites, seed, rank) for seed, (name, rank) in enumerate(ADAPTERS.items())}


def requests(seed: int, count: int, vocabulary: int, adapters: Sequence[str]) -> list[Request]:
    """Requests with random prompts; many begin alike, and some are for an adapter."""
    chance = random.Random(seed)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(chance.randrange(vocabulary) for _ in range(length))

    stem = tokens(40)
    return [
        Request(
            (*stem[: chance.choice([0, 5, 17, 40])], *tokens(chance.randint(1, 60))),
            max_new_tokens=chance.randint(1, 12),
            adapter=chance.choice([None, None, *adapters]),
            ignore_eos=True,
            text=False,
        )
        for _ in range(count)
    ]


def alone(bundle: Bundle, one: Request, adapters: Mapping[str, Values]) -> list[int]:
    """The tokens that a request is answered with when there is no other."""
    weights = as_values(adapters[one.adapter]) if one.adapter else None
    return bundle.generate_ids(
        [one.ids], max_new_tokens=one.max_new_tokens, ignore_eos=True, adapter=weights
    )[0]


def mixes(
    engine: Engine,
    known: Mapping[Request, Sequence[int]],
    adapters: Mapping[str, Values],
    count: int,
    seed: int,
) -> Iterator[list[str]]:
    """Run random mixes of known requests one after another; what went wrong in each.

    :param known: requests with their answers when they are alone.
    """
    chance = random.Random(seed)
    choices = list(known)
    for _ in range(count):
        asked: dict[int, Request] = {}
        got: dict[int, list[int]] = {}
        dropped: set[int] = set()
        for _ in range(chance.randint(1, 9)):
            chosen = chance.choice(choices)
            number = engine.submit(chosen)
            asked[number], got[number] = chosen, []
            for _ in range(chance.choice([0, 0, 1, 4])):
                _take(engine, got)
            if chance.random() < 0.15:
                number = chance.choice(list(asked))
                dropped.add(number)
                engine.cancel(number)
            if adapters and chance.random() < 0.05:
                name = chance.choice(list(adapters))
                engine.load_adapter(name, adapters[name])  # a new version with the same answers
        while engine.busy:
            _take(engine, got)
        wrong = []
        for number, request in asked.items():
            expected = list(known[request])
            cut = expected[: len(got[number])] if number in dropped else expected
            if got[number] != cut:
                wrong.append(f"{request} gave {got[number]} and not {expected}")
        yield wrong


def _take(engine: Engine, got: dict[int, list[int]]) -> None:
    for piece in engine.step():
        got[piece.request] += piece.ids


def chi_square(counts: Mapping[int, int], expected: npt.NDArray[np.float64]) -> tuple[float, float]:
    """How far draws are from what was expected of each token, (V,): chi-square and its p-value.

    Tokens of which few are expected are counted together. The p-value is that of Wilson and
    Hilferty's normal approximation.
    """
    common = np.flatnonzero(expected >= _FEWEST)
    rare = np.flatnonzero(expected < _FEWEST)
    wanted = [float(expected[token]) for token in common]
    found = [float(counts.get(int(token), 0)) for token in common]
    if expected[rare].sum() >= _FEWEST:
        wanted.append(float(expected[rare].sum()))
        found.append(float(sum(counts.get(int(token), 0) for token in rare)))
    statistic = sum((a - b) ** 2 / b for a, b in zip(found, wanted, strict=True))
    freedom = len(wanted) - 1
    if freedom < 1:
        return statistic, 1.0
    spread = 2 / (9 * freedom)
    deviation = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return statistic, 0.5 * math.erfc(deviation / math.sqrt(2))


SAMPLINGS = {
    "temperature 1": Sampling(seed=1),
    "temperature 0.5": Sampling(0.5, seed=2),
    "temperature 2": Sampling(2.0, seed=3),
    "top_k 10": Sampling(top_k=10, seed=4),
    "top_p 0.8": Sampling(top_p=0.8, seed=5),
    "min_p 0.1": Sampling(min_p=0.1, seed=6),
    "all of them": Sampling(1.5, top_k=40, top_p=0.9, min_p=0.02, seed=7),
}


def distribution(logits: npt.NDArray[Any], one: Sampling) -> npt.NDArray[np.float64]:
    """What a token is drawn from, (V,), by sorting all of them."""
    scaled = logits.astype(np.float64) / one.temperature
    whole = np.exp(scaled - scaled.max())
    order = np.argsort(-whole, kind="stable")
    kept = whole[order] / whole.sum()
    if one.top_k:
        kept[one.top_k :] = 0
    if one.top_p < 1:
        before = kept.cumsum() - kept
        kept[before >= one.top_p * kept.sum()] = 0
    kept[kept < one.min_p * kept[0]] = 0
    made: npt.NDArray[np.float64] = np.zeros_like(whole)
    made[order] = kept / kept.sum()
    return made


def draws(engine: Engine, prompt: Sequence[int], one: Sampling, count: int) -> Counter[int]:
    """How often each token was drawn after a prompt."""
    request = Request(tuple(prompt), 1, one, n=count, ignore_eos=True, text=False)
    return Counter(answer.ids[0] for answer in engine.run([request])[0])


def make_bundle(folder: Path) -> Path:
    """A tiny random model with places for adapters; its variant."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from risen_export import export
    from risen_plugin.embedded import base_model

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base_model())
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    export(folder / "model", folder / "bundle", ("fp32",), separate=True, progress=False)
    return folder / "bundle" / "fp32"


def _run_mixes(bundle: Path, count: int, seed: int) -> dict[str, Any]:
    """Mixes in hundreds, each with other requests and an engine of another size."""
    whole = Bundle.open(bundle)
    adapters = adapters_for(whole.sites) if whole.sites else {}
    wrong: list[str] = []
    answered = right = reused = 0
    with tqdm(total=count, unit="mix", leave=False) as bar:
        for begin in range(0, count, 100):
            chance = random.Random(seed + begin)
            settings = EngineSettings(
                rows=chance.randint(1, 6), chunk=chance.choice([1, 7, 16, 64]), context=160
            )
            engine = Engine.open(bundle, settings=settings)
            for name, values in adapters.items():
                engine.load_adapter(name, values)
            choices = requests(seed + begin, 24, engine.vocabulary, list(adapters))
            known = {one: alone(whole, one, adapters) for one in choices}
            size = min(100, count - begin)
            for faults in mixes(engine, known, adapters, size, seed + begin):
                right += not faults
                wrong += faults
                bar.update(1)
            answered += engine.stats().written
            reused += engine.stats().reused
    return {"mixes": count, "right": right, "tokens": answered, "reused": reused, "wrong": wrong}


def _run_draws(bundle: Path, count: int) -> dict[str, dict[str, float]]:
    engine = Engine.open(bundle, settings=EngineSettings(waiting=count, context=128))
    prompt = requests(5, 1, engine.vocabulary, [])[0].ids
    logits = Bundle.open(bundle).logits(np.asarray([prompt]))[0][-1]
    results = {}
    for name, one in tqdm(SAMPLINGS.items(), unit="sampling", leave=False):
        expected = distribution(logits, one) * count
        statistic, p = chi_square(draws(engine, prompt, one, count), expected)
        results[name] = {"tokens": int((expected > 0).sum()), "chi_square": statistic, "p": p}
    return results


@click.command()
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder of a variant; a tiny random model unless given.",
)
@click.option("--count", default=1000, show_default=True, help="Mixes.")
@click.option("--draws", "drawn", default=20_000, show_default=True, help="Tokens of a sampling.")
@click.option("--seed", default=0, show_default=True)
@measuring(repeats=1)
def main(
    *, bundle: Path | None, count: int, drawn: int, seed: int, repeats: int, json_file: Path | None
) -> None:
    """Answer random mixes of requests, and draw tokens by the thousand."""
    before = machine()
    with tempfile.TemporaryDirectory() as place:
        folder = bundle or make_bundle(Path(place))
        begun = time.monotonic()
        mixed = [_run_mixes(folder, count, seed + 10_000 * turn) for turn in range(repeats)]
        seconds = time.monotonic() - begun
        sampled = _run_draws(folder, drawn)
    right, of = (sum(one[key] for one in mixed) for key in ("right", "mixes"))
    for fault in [fault for one in mixed for fault in one["wrong"]][:5]:
        click.echo(f"FAULT {fault}")
    click.echo(
        f"{right} of {of} mixes answered as each request alone; "
        f"{sum(one['tokens'] for one in mixed)} tokens written, "
        f"{sum(one['reused'] for one in mixed)} of prompts reused, {seconds:.0f} s"
    )
    print_table(
        f"{drawn} draws of one token against its distribution",
        ("", "tokens", "chi-square", "p"),
        [
            (name, str(one["tokens"]), f"{one['chi_square']:.1f}", f"{one['p']:.3f}")
            for name, one in sampled.items()
        ],
    )
    settings = {"count": count, "draws": drawn, "seed": seed}
    results = {"mixes": mixed, "draws": sampled}
    write_results(json_file, settings=settings, machine=before, results=results)
    fits = all(one["p"] >= LEAST_P for one in sampled.values())
    raise SystemExit(right != of or not fits)


if __name__ == "__main__":
    main()
