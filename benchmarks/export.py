"""Claim: what an export costs beside the bare builder, and how fast its bundle answers.

``cost`` times the whole ``risen export``, merging, checking and publishing included, against the
model builder alone, each in a process of its own. ``speed`` times prompts and steps of a bundle's
variants against PyTorch and other routes, past any end of text. What cannot be run is left out,
with the reason.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.export_arms import Arm, arms_of, bandwidth
from benchmarks.shared import (
    ROOT,
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

MEMORY_LIMIT = 2.5
"""Most resident memory of an fp32 export, in sizes of the model's fp32 weights."""
TIME_LIMIT = 2.0
"""Longest whole export, in times of the bare builder."""
_LARGE = 300_000_000
_PROMPT = 128  # tokens of a prompt
_STEPS = 24  # tokens that are decoded after it
_BARE = """
import sys
from onnxruntime_genai.models import builder
model, out, precision, cache = sys.argv[1:]
options = builder.parse_extra_options(model, model, out, precision, 'cpu', cache, [])
builder.create_model(model, model, out, precision, 'cpu', cache, **options)
"""
_RISEN = "from risen_plugin.cli import main; main()"
_RANDOM = """
import sys, torch, transformers
torch.manual_seed(0)
config = transformers.Qwen2Config(
    vocab_size=32_000, hidden_size=896, intermediate_size=4864, num_hidden_layers=28,
    num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=4096,
    tie_word_embeddings=True, bos_token_id=None, eos_token_id=1021, pad_token_id=1020)
transformers.Qwen2ForCausalLM(config).save_pretrained(sys.argv[1])
from risen_plugin.embedded import base_model
transformers.AutoTokenizer.from_pretrained(base_model()).save_pretrained(sys.argv[1])
"""


@click.group()
def main() -> None:
    """Measure exports and what they make."""


@main.command("random-model")
@click.argument("out", type=click.Path(path_type=Path))
def random_model(out: Path) -> None:
    """Write a random Qwen2 of 0.45 B parameters to OUT, 1.8 GB."""
    _run([sys.executable, "-c", _RANDOM, str(out)])
    click.echo(f"{_parameters(out):,} parameters in {out}")


@main.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--precision", "precisions", multiple=True, default=["fp32"], show_default=True)
@click.option("--scratch", type=click.Path(path_type=Path), help="Folder for what is built.")
@threads_option
@measuring(repeats=3)
def cost(
    *,
    model: Path,
    precisions: tuple[str, ...],
    scratch: Path | None,
    threads: int,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Time and memory of exporting MODEL, against the builder alone."""
    before = machine()
    parameters = _parameters(model)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        arms = {
            (route, precision): partial(make, model, Path(folder), precision, threads)
            for precision in precisions
            for route, make in (("bare builder", _bare), ("risen export", _export))
        }
        named = {" ".join(key): key for key in arms}
        runs = interleave({name: arms[key] for name, key in named.items()}, repeats)
    rows, results = [], {}
    for precision in precisions:
        bare, whole = (runs[f"{route} {precision}"] for route in ("bare builder", "risen export"))
        times = ratio([one["seconds"] for one in whole], [one["seconds"] for one in bare])
        work = ratio([one["cpu_seconds"] for one in whole], [one["cpu_seconds"] for one in bare])
        memory = Spread.of([one["peak"] / (4 * parameters) for one in whole])
        alone = Spread.of([one["peak"] / (4 * parameters) for one in bare])
        rows.append(
            (
                precision,
                Spread.of([one["seconds"] for one in bare]).show(1),
                Spread.of([one["seconds"] for one in whole]).show(1),
                times.show(2),
                work.show(2),
                alone.show(2),
                memory.show(2),
                f"{whole[0]['bytes'] / 1e6:.1f}",
                f"{whole[0]['bytes'] / parameters:.3f}",
            )
        )
        results[precision] = {"bare": bare, "export": whole, "times": times, "work": work}
        results[precision] |= {"memory": memory}
    print_table(
        f"Exporting {parameters / 1e6:.1f} M parameters, {threads} threads, {repeats} interleaved "
        "runs, median (least to most)",
        (
            "",
            "bare builder, s",
            "risen export, s",
            "times the builder",
            "in CPU time",
            "builder's peak / fp32 weights",
            "export's peak / fp32 weights",
            "bundle, MB",
            "bytes per parameter",
        ),
        rows,
    )
    if "fp32" in results:
        _judge(results["fp32"], parameters)
    settings = {"model": model.name, "threads": threads, "repeats": repeats}
    write_results(json_file, settings=settings, machine=before, results=results)


@main.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--arm", "chosen", multiple=True, help="Only these; default: all that can be run.")
@click.option("--batch", "batches", multiple=True, type=int, default=[1, 8], show_default=True)
@threads_option
@measuring(repeats=5)
def speed(
    *,
    model: Path,
    bundle: Path,
    chosen: tuple[str, ...],
    batches: tuple[int, ...],
    threads: int,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Prompts and steps per second of BUNDLE's variants and their peers, run on MODEL."""
    before = machine()
    arms, left_out = arms_of(model, bundle, threads, chosen)
    for name, why in left_out.items():
        click.echo(f"left out: {name}: {why}")
    copied: list[float] = []
    results: dict[str, Any] = {"left_out": left_out}
    for rows in batches:
        prompts = [[(7 * row + place) % 900 + 5 for place in range(_PROMPT)] for row in range(rows)]
        for arm in arms.values():
            arm.answer(prompts, 2)  # warms up

        def measure(arm: Arm, prompts: Sequence[Sequence[int]] = prompts) -> dict[str, float]:
            return _rates(arm, prompts)

        def copy() -> dict[str, float]:
            copied.append(bandwidth(threads))
            return {"prefill": 0.0, "decode": 0.0}

        measured = interleave(
            {name: partial(measure, arm) for name, arm in arms.items()} | {"memory": copy}, repeats
        )
        del measured["memory"]
        results[f"batch {rows}"] = measured
        bytes_per_s = Spread.of(copied).median
        click.secho(
            f"\nBatch {rows}, prompt {_PROMPT}, {_STEPS} steps, {threads} threads, {repeats} "
            f"interleaved rounds, median (least to most); memory {bytes_per_s / 1e9:.1f} GB/s",
            bold=True,
        )
        _show(rows, measured, arms, bytes_per_s)
    results["bandwidth_bytes_per_s"] = Spread.of(copied)
    settings = {"model": model.name, "threads": threads, "repeats": repeats, "prompt": _PROMPT}
    write_results(json_file, settings=settings, machine=before, results=results)


def _show(
    rows: int,
    measured: Mapping[str, Sequence[Mapping[str, float]]],
    arms: Mapping[str, Arm],
    bytes_per_s: float,
) -> None:
    """A table of one batch size; the first arm is what the others are compared with."""
    first = next(iter(measured))
    table = []
    for name, runs in measured.items():
        prefill, decode = ([one[kind] for one in runs] for kind in ("prefill", "decode"))
        limit = bytes_per_s / arms[name].weights  # steps per second, were weights all that is read
        table.append(
            (
                name,
                Spread.of(prefill).show(0),
                ratio(prefill, [one["prefill"] for one in measured[first]]).show(2),
                Spread.of(decode).show(1),
                ratio(decode, [one["decode"] for one in measured[first]]).show(2),
                f"{Spread.of(decode).median / rows / limit:.0%}",
            )
        )
    print_table(
        "Each route by itself, all rows together",
        (
            "",
            "prompt tokens/s",
            f"times {first}",
            "decoded tokens/s",
            f"times {first}",
            "of the limit",
        ),
        table,
    )


def _rates(arm: Arm, prompts: Sequence[Sequence[int]]) -> dict[str, float]:
    """Tokens per second, all rows together: of the prompt up to one token, and of steps alone."""
    short, long = arm.answer(prompts, 1), arm.answer(prompts, 1 + _STEPS)
    rows = len(prompts)
    return {
        "prefill": rows * len(prompts[0]) / short,
        "decode": rows * _STEPS / max(long - short, 1e-9),
    }


def _judge(results: Mapping[str, Any], parameters: int) -> None:
    """Say whether the limits hold; on small models the libraries themselves weigh more."""
    memory, times = results["memory"].median, results["times"].median
    if parameters < _LARGE:
        click.echo(f"\nthe limits are for models of at least {_LARGE / 1e9} B parameters")
        return
    click.echo(
        f"\npeak memory {memory:.2f} of the fp32 weights, at most {MEMORY_LIMIT}: "
        f"{held(memory <= MEMORY_LIMIT)}"
    )
    click.echo(
        f"whole export {times:.2f} of the builder's time, at most {TIME_LIMIT}: "
        f"{held(times <= TIME_LIMIT)}"
    )


def _bare(model: Path, scratch: Path, precision: str, threads: int) -> dict[str, float]:
    return _cost(
        ["-c", _BARE, str(model), "{out}", precision, str(scratch / "cache")], scratch, threads
    )


def _export(model: Path, scratch: Path, precision: str, threads: int) -> dict[str, float]:
    command = ["-c", _RISEN, "export", str(model), "{out}", "--quiet"]
    return _cost([*command, "--precision", precision], scratch, threads)


def _cost(arguments: Sequence[str], scratch: Path, threads: int) -> dict[str, float]:
    """Seconds, peak bytes of memory and bytes written of a process that fills ``{out}``."""
    out = Path(tempfile.mkdtemp(dir=scratch)) / "out"
    filled = [one.format(out=out) if one == "{out}" else one for one in arguments]
    started = time.perf_counter()
    usage = _run([sys.executable, *filled], threads)
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out.parent)
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
        "bytes": size,
    }


def _run(command: Sequence[str], threads: int | None = None) -> resource.struct_rusage:
    """What a process used: time with its children, and the peak memory of the largest of them.

    This process loads no model before: on Linux a child begins with its parent's peak.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise click.ClickException(said.read().decode(errors="replace")[-3000:])
    return usage


def _parameters(model: Path) -> int:
    """Parameters stored in a model folder, shared ones once."""
    total = 0
    for path in model.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        for entry in header.values():
            count = 1
            for size in entry["shape"]:
                count *= size
            total += count
    return total


if __name__ == "__main__":
    main()
