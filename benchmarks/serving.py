"""Claim: how fast the engine serves, against the other engines that run on a CPU.

``decode`` times prompts and steps of requests that come together; ``load`` lets requests come by
chance at rising rates, ``late`` one while others are answered; ``sampling`` and ``adapters`` say
what these cost. Each engine has a process of its own. What cannot be run is left out, with the
reason.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import click

from benchmarks.export_arms import bandwidth
from benchmarks.serving_arms import (
    Asked,
    Remote,
    Served,
    Size,
    UnavailableError,
    makers_of,
)
from benchmarks.shared import (
    Spread,
    held,
    interleave,
    machine,
    measuring,
    print_table,
    ratio,
    threads_option,
    write_results,
)

_PROMPT = 32  # tokens of a prompt
_STEPS = 24  # tokens that are decoded after it
_CONTEXT = 512
_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def main() -> None:
    """Measure engines."""


def _compared(command: _Command) -> _Command:
    """The arguments and options of the commands that compare engines."""
    for add in (
        click.option("--arm", "chosen", multiple=True, help="Only these; default: all."),
        click.option(
            "--gguf",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="Folder with the model's GGUF files, by benchmarks.llama_gguf.",
        ),
        click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False)),
        click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False)),
        threads_option,
    ):
        command = add(command)
    return command


def _opened(
    makers: Mapping[str, Callable[[], Any]], chosen: Sequence[str]
) -> tuple[dict[str, Remote], dict[str, str]]:
    """The chosen engines, and why others are left out."""
    arms: dict[str, Remote] = {}
    left_out: dict[str, str] = {}
    odd = [name for name in chosen if name not in makers]
    if odd:
        raise click.ClickException(f"no engine '{odd[0]}'; choose from: {', '.join(makers)}")
    for name in chosen or makers:
        try:
            arms[name] = Remote(makers[name])
        except UnavailableError as error:
            left_out[name] = str(error)
            click.echo(f"left out: {name}: {error}")
    return arms, left_out


def prompts_of(count: int, lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Random prompts of tokens that every vocabulary has."""
    chance = random.Random(seed)
    return [[chance.randrange(5, 900) for _ in range(lengths[n])] for n in range(count)]


@main.command()
@_compared
@click.option("--batch", "batches", multiple=True, type=int, default=[1, 8, 16], show_default=True)
@measuring(repeats=3)
def decode(
    *,
    model: Path,
    bundle: Path,
    gguf: Path | None,
    chosen: tuple[str, ...],
    batches: tuple[int, ...],
    threads: int,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Prompts and steps per second of requests that come together, on BUNDLE made of MODEL."""
    before = machine()
    makers = makers_of(model, bundle, gguf, Size(max(batches), _CONTEXT, threads))
    arms, left_out = _opened(makers, chosen)
    results: dict[str, Any] = {"left_out": left_out, "agreement": _agreement(arms)}
    copied: list[float] = []
    for rows in batches:
        prompts = prompts_of(rows, [_PROMPT] * rows, seed=rows)
        usable = _warm(arms, Asked(prompts, [2] * rows))
        measured = interleave(
            {name: partial(_rates, arm, prompts) for name, arm in usable.items()}, repeats
        )
        copied += [bandwidth(threads) for _ in range(2)]
        results[f"batch {rows}"] = measured
        _show(rows, measured, {name: arm.weights for name, arm in usable.items()}, max(copied))
    results["bandwidth_bytes_per_s"] = Spread.of(copied)
    settings = {"model": model.name, "threads": threads, "prompt": _PROMPT, "steps": _STEPS}
    write_results(json_file, settings=settings, machine=before, results=results)


def _warm(arms: Mapping[str, Remote], asked: Asked) -> dict[str, Remote]:
    """Those that answer such requests."""
    usable = {}
    for name, arm in arms.items():
        try:
            arm.serve(asked)
            usable[name] = arm
        except UnavailableError as error:
            click.echo(f"left out: {name}: {error}")
    return usable


def _agreement(arms: Mapping[str, Remote]) -> dict[str, int]:
    """How many of 24 greedy tokens each engine shares with the first one."""
    asked = Asked(prompts_of(1, [_PROMPT], seed=99), [24])
    answers = {name: arm.serve(asked).ids[0] for name, arm in arms.items()}
    first = next(iter(answers.values()))
    shared = {}
    for name, ids in answers.items():
        differing = [n for n, (a, b) in enumerate(zip(ids, first, strict=True)) if a != b]
        shared[name] = differing[0] if differing else len(ids)
    click.echo(f"greedy tokens shared with {next(iter(answers))}, of 24: {shared}")
    return shared


def _rates(arm: Remote, prompts: Sequence[Sequence[int]]) -> dict[str, float]:
    """Tokens per second, all rows together: of prompts until all have a token, and of steps then.

    Where rows go in waves, steps are those of the last wave.
    """
    rows = len(prompts)
    served = arm.serve(Asked(prompts, [1 + _STEPS] * rows))
    first = max(times[0] for times in served.times)
    after = sum(time > first for times in served.times for time in times)
    return {
        "prefill": sum(map(len, prompts)) / first,
        "decode": after / (served.seconds - first),
    }


def _show(
    rows: int,
    measured: Mapping[str, Sequence[Mapping[str, float]]],
    weights: Mapping[str, int],
    bytes_per_s: float,
) -> None:
    """A table of one batch size; the first engine is what the others are compared with."""
    first = next(iter(measured))
    table = []
    for name, runs in measured.items():
        prefill, steps = ([one[kind] for one in runs] for kind in ("prefill", "decode"))
        limit = bytes_per_s / weights[name]  # steps per second, were weights all that is read
        table.append(
            (
                name,
                Spread.of(prefill).show(0),
                ratio([one["prefill"] for one in measured[first]], prefill).show(2),
                Spread.of(steps).show(1),
                ratio([one["decode"] for one in measured[first]], steps).show(2),
                f"{Spread.of(steps).median / rows / limit:.0%}",
            )
        )
    print_table(
        f"{rows} requests together, prompts of {_PROMPT}, {_STEPS} steps; memory "
        f"{bytes_per_s / 1e9:.1f} GB/s",
        (
            "",
            "prompt tokens/s",
            f"{first} is so many times as fast",
            "decoded tokens/s",
            f"{first} is so many times as fast",
            "of the limit",
        ),
        table,
    )


# Requests that come by chance --------------------------------------------------------------------


def traffic(count: int, rate: float, seed: int) -> Asked:
    """Requests of mixed lengths that come by chance, ``rate`` in a second in the mean."""
    chance = random.Random(seed)
    arrivals, at = [], 0.0
    for _ in range(count):
        arrivals.append(at)
        at += chance.expovariate(rate)
    lengths = [chance.choice([16, 32, 64, 128]) for _ in range(count)]
    tokens = [chance.choice([8, 16, 32, 64]) for _ in range(count)]
    return Asked(prompts_of(count, lengths, seed), tokens, arrivals)


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def figures(asked: Asked, served: Served) -> dict[str, float]:
    """Times in seconds of first tokens and between tokens, and tokens per second."""
    first = [times[0] - asked.arrival(n) for n, times in enumerate(served.times)]
    between = [later - sooner for times in served.times for sooner, later in pairwise(times)]
    return {
        "first_p50": _quantile(first, 0.5),
        "first_p99": _quantile(first, 0.99),
        "between_p50": _quantile(between, 0.5),
        "between_p99": _quantile(between, 0.99),
        "tokens_per_s": sum(map(len, served.ids)) / served.seconds,
    }


@main.command()
@_compared
@click.option("--rows", default=16, show_default=True, help="Answers written at once.")
@click.option("--requests", "count", default=40, show_default=True, help="Of each rate.")
@click.option(
    "--rate", "rates", multiple=True, type=float, default=[1.0, 2.0, 4.0], show_default=True
)
@measuring(repeats=1)
def load(
    *,
    model: Path,
    bundle: Path,
    gguf: Path | None,
    chosen: tuple[str, ...],
    rows: int,
    count: int,
    rates: tuple[float, ...],
    threads: int,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Requests that come by chance at rising rates (per second)."""
    before = machine()
    arms, left_out = _opened(makers_of(model, bundle, gguf, Size(rows, _CONTEXT, threads)), chosen)
    arms = _warm(arms, traffic(2, 100.0, seed=1))
    results: dict[str, Any] = {"left_out": left_out}
    for rate in rates:
        asked = traffic(count, rate, seed=0)

        def one(arm: Remote, asked: Asked = asked) -> dict[str, float]:
            return figures(asked, arm.serve(asked))

        measured = interleave({name: partial(one, arm) for name, arm in arms.items()}, repeats)
        results[f"rate {rate:g}"] = measured
        table = []
        for name, runs in measured.items():
            shown = {key: Spread.of([run[key] for run in runs]) for key in runs[0]}
            times = [key for key in shown if key != "tokens_per_s"]
            table.append(
                (
                    name,
                    *(shown[key].show(0, 1000) for key in times),
                    shown["tokens_per_s"].show(0),
                    f"{arms[name].peak() / 1e6:.0f}",
                )
            )
        print_table(
            f"{count} requests, {rate:g} in a second, {rows} rows",
            (
                "",
                "first token, p50 ms",
                "p99",
                "between tokens, p50 ms",
                "p99",
                "tokens/s",
                "peak MB",
            ),
            table,
        )
    settings = {"model": model.name, "threads": threads, "rows": rows, "requests": count}
    write_results(json_file, settings=settings, machine=before, results=results)


@main.command()
@_compared
@click.option("--busy", "running", default=8, show_default=True, help="Requests before it.")
@click.option("--tokens", default=96, show_default=True, help="Of each of their answers.")
@measuring(repeats=3)
def late(
    *,
    model: Path,
    bundle: Path,
    gguf: Path | None,
    chosen: tuple[str, ...],
    running: int,
    tokens: int,
    threads: int,
    repeats: int,
    json_file: Path | None,
) -> None:
    """The time to the first token of a request that comes while others are answered."""
    before = machine()
    arms, left_out = _opened(makers_of(model, bundle, gguf, Size(16, _CONTEXT, threads)), chosen)
    arms = _warm(arms, traffic(2, 100.0, seed=1))
    measured = interleave(
        {name: partial(_late, arm, running, tokens) for name, arm in arms.items()}, repeats
    )
    first = next(iter(measured))
    print_table(
        f"A request of {_PROMPT} tokens while {running} of {tokens} new tokens are answered",
        ("", "first token, ms", f"of {first}'s"),
        [
            (name, Spread.of(runs).show(0, 1000), ratio(runs, measured[first]).show(2))
            for name, runs in measured.items()
        ],
    )
    settings = {"model": model.name, "threads": threads, "running": running, "tokens": tokens}
    results = {"left_out": left_out, "late": measured}
    write_results(json_file, settings=settings, machine=before, results=results)


def _late(arm: Remote, running: int, tokens: int) -> float:
    prompts = prompts_of(running + 1, [_PROMPT] * (running + 1), seed=3)
    served = arm.serve(Asked(prompts, [*[tokens] * running, 4], [*[0.0] * running, 1.0]))
    if max(times[-1] for times in served.times[:-1]) < 1:
        raise click.ClickException("the others were done before it came; give more --tokens")
    return served.times[-1][0] - 1.0


# What sampling and adapters cost -----------------------------------------------------------------


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rows", default=16, show_default=True)
@threads_option
@measuring(repeats=3)
def sampling(
    *, bundle: Path, rows: int, threads: int, repeats: int, json_file: Path | None
) -> None:
    """What writing tokens takes of a step, by the kind of sampling; BUNDLE is a variant."""
    from risen_export.engine.requests import GREEDY, Sampling

    before = machine()
    kinds = {
        "greedy": GREEDY,
        "temperature 0.8": Sampling(0.8, seed=1),
        "top_p 0.9": Sampling(0.8, top_p=0.9, seed=1),
        "log-probabilities": Sampling(0.8, seed=1, logprobs=0, scaled_logprobs=True),
    }
    engine = _engine(bundle, rows, threads)
    arms = {name: partial(_share, engine, one, rows) for name, one in kinds.items()}
    _share(engine, GREEDY, rows)
    measured = interleave(arms, repeats)
    shares = {
        name: [one["writing"] / one["all"] for one in runs] for name, runs in measured.items()
    }
    print_table(
        f"Writing tokens in a step of {rows} rows over {engine.vocabulary} tokens",
        ("", "step, ms", "writing, ms", "share"),
        [
            (
                name,
                Spread.of([one["all"] for one in runs]).show(2, 1000),
                Spread.of([one["writing"] for one in runs]).show(2, 1000),
                Spread.of(shares[name]).show(1, 100) + " %",
            )
            for name, runs in measured.items()
        ],
    )
    worst = Spread.of(shares["temperature 0.8"]).median
    click.echo(f"\nover the whole vocabulary {worst:.1%}, at most 10 %: {held(worst <= 0.1)}")
    settings = {"bundle": bundle.name, "threads": threads, "rows": rows}
    write_results(json_file, settings=settings, machine=before, results=measured)


def _engine(bundle: Path, rows: int, threads: int) -> Any:
    from risen_export.engine.engine import Engine
    from risen_export.engine.settings import EngineSettings

    settings = EngineSettings(rows=rows, context=_CONTEXT, threads=threads, share=False)
    return Engine.open(bundle, settings=settings, check_hashes=False)


def _requests(rows: int, one: Any = None, adapters: Sequence[str | None] = (None,)) -> list[Any]:
    from risen_export.engine.requests import GREEDY, Request

    return [
        Request(
            tuple(prompt),
            2 * _STEPS,
            one or GREEDY,
            adapter=adapters[n % len(adapters)],
            ignore_eos=True,
            follow_settings=False,
            text=False,
        )
        for n, prompt in enumerate(prompts_of(rows, [_PROMPT] * rows))
    ]


def _steps(engine: Any, requests: Sequence[Any], note: Callable[[], None] | None = None) -> float:
    """Seconds of a step while all of these are answered; ``note`` is called before the first."""
    for one in requests:
        engine.submit(one)
    begun: set[int] = set()
    while len(begun) < len(requests):
        begun |= {piece.request for piece in engine.step()}
    if note:
        note()
    seconds = []
    for _ in range(_STEPS):
        started = time.perf_counter()
        engine.step()
        seconds.append(time.perf_counter() - started)
    for piece in engine.step():
        engine.cancel(piece.request)
    while engine.busy:
        engine.step()
    return Spread.of(seconds).median


def _share(engine: Any, one: Any, rows: int) -> dict[str, float]:
    """Seconds of a step, and of writing its tokens from their logits."""
    writer, seconds = engine._writer, []
    write = writer.write

    def timed(*arguments: Any) -> Any:
        started = time.perf_counter()
        pieces = write(*arguments)
        seconds.append(time.perf_counter() - started)
        return pieces

    writer.write = timed
    try:
        whole = _steps(engine, _requests(rows, one), seconds.clear)
    finally:
        del writer.write
    return {"all": whole, "writing": Spread.of(seconds[:_STEPS]).median}


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rank", default=16, show_default=True)
@click.option("--batch", "batches", multiple=True, type=int, default=[1, 16], show_default=True)
@threads_option
@measuring(repeats=5)
def adapters(
    *,
    bundle: Path,
    rank: int,
    batches: tuple[int, ...],
    threads: int,
    repeats: int,
    json_file: Path | None,
) -> None:
    """What adapters cost; BUNDLE is a variant that keeps them apart."""
    from benchmarks.engine_mixes import factors
    from risen_export import Bundle

    before = machine()
    sites = Bundle.open(bundle, check_hashes=False).sites
    rows = max(batches)
    plain, loaded = _engine(bundle, rows, threads), _engine(bundle, rows, threads)
    for number in range(4):
        loaded.load_adapter(f"adapter {number}", factors(sites, number, rank))
    names = [f"adapter {number}" for number in range(4)]
    results = {}
    for batch in batches:
        arms = {
            "none loaded": partial(_steps, plain, _requests(batch)),
            "loaded, none used": partial(_steps, loaded, _requests(batch)),
            "one used": partial(_steps, loaded, _requests(batch, None, names[:1])),
            "mixed, base and four": partial(_steps, loaded, _requests(batch, None, [None, *names])),
        }
        if batch == 1:
            del arms["mixed, base and four"]
        for arm in arms.values():
            arm()
        measured = interleave(arms, repeats)
        results[f"batch {batch}"] = measured
        none = measured["none loaded"]
        print_table(
            f"Four adapters of rank {rank}, {batch} rows",
            ("", "step, ms", "times a step with none loaded"),
            [
                (name, Spread.of(runs).show(2, 1000), ratio(runs, none).show(3))
                for name, runs in measured.items()
            ],
        )
        unused = ratio(measured["loaded, none used"], none).median
        click.echo(f"\nnone used: {unused:.3f} times, at most 1.03: {held(unused <= 1.03)}")
    settings = {"bundle": bundle.name, "threads": threads, "rank": rank}
    write_results(json_file, settings=settings, machine=before, results=results)


if __name__ == "__main__":
    main()
