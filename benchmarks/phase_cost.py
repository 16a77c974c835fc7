"""Claim: entering and leaving a RISEN phase is cheap beside what happens in it.

Runs phases of one GRPO step in a plain Trainer, kept and dropped in turns, on the embedded model
and on a random Qwen2 of about 100 M parameters. ``enter_s`` and ``leave_s`` come from the phase's
record; the parts are timed inside the same phases, by wrapping the calls that make them up.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import click

from benchmarks.shared import (
    Spread,
    interleave,
    machine,
    measuring,
    print_table,
    threads_option,
    write_results,
)

_KEPT = {"min_gain": -1.0, "max_probe_loss_rise": 1e9}
_DROPPED = {"min_gain": 2.0}  # a share cannot rise by more than 1
_WHOLE = ("enter_s", "leave_s", "guard_s", "reinforce_s")
_PARTS = {
    "enter the clean room": "",
    "build TRL's trainer": "enter_s",
    "save the adapter": "leave_s",
    "merge the adapter": "leave_s",
    "gc.collect()": "leave_s",
    "leave the clean room": "",
}
Seconds = dict[str, float]


@click.command()
@click.option("--small-only", is_flag=True, help="Leave the model of 100 M parameters out.")
@threads_option
@measuring(repeats=7)
def main(small_only: bool, threads: int, repeats: int, json_file: Path | None) -> None:
    """Time what a RISEN phase costs beside its measurements and its GRPO steps."""
    before = machine()
    from benchmarks import training

    training.prepare(threads)
    small, tokenizer = training.load()
    models = {"embedded": small}
    if not small_only:
        models["random"] = _random_model(tokenizer)
    results: dict[str, Any] = {}
    for name, model in models.items():
        parameters = sum(p.numel() for p in model.parameters())
        with tempfile.TemporaryDirectory() as folder:
            phase = partial(_phase, model, tokenizer, Path(folder))
            phase(_KEPT)  # warms up
            runs = interleave(
                {"kept": partial(phase, _KEPT), "dropped": partial(phase, _DROPPED)}, repeats
            )
        spreads = {
            verdict: {
                part: Spread.of([run[part] for run in made]) for part in made[0] if part in made[-1]
            }
            for verdict, made in runs.items()
        }
        results[name] = {"parameters": parameters, **spreads}
        _show(f"{name} model, {parameters / 1e6:.1f} M parameters", repeats, spreads)
    settings = {"threads": threads, "repeats": repeats, "grpo_steps": 1}
    write_results(json_file, settings=settings, machine=before, results=results)


def _show(title: str, repeats: int, spreads: dict[str, dict[str, Spread]]) -> None:
    def cell(verdict: str, part: str) -> str:
        spread = spreads[verdict].get(part)
        return "" if spread is None else spread.show(1, 1e3)

    rows = []
    for whole in ("enter_s", "leave_s"):
        rows.append((whole, cell("kept", whole), cell("dropped", whole)))
        parts = [part for part, owner in _PARTS.items() if owner == whole]
        rows += [(f"· {part}", cell("kept", part), cell("dropped", part)) for part in parts]
    for part in (part for part, owner in _PARTS.items() if not owner):
        rows.append((part, cell("kept", part), cell("dropped", part)))
    rows.append(("all but measuring and GRPO", cell("kept", "rest"), cell("dropped", "rest")))
    print_table(
        f"{title}: ms, median (least to most) of {repeats} phases each",
        ("", "kept", "dropped"),
        rows,
    )


def _phase(model: Any, tokenizer: Any, folder: Path, guard: dict[str, float]) -> Seconds:
    """Run one phase of one small GRPO step; the seconds of its stretches and parts."""
    from benchmarks.training import InOrder, Rewards, instructions, run_one_phase
    from risen_plugin import use
    from risen_plugin.config import GuardConfig, RisenConfig

    rows = instructions(8, 3)
    config = RisenConfig(
        rewards=Rewards().functions(),
        generator=InOrder(tuple(rows[:4])),
        held_out=InOrder(tuple(rows[4:])),
        scheduler=use("after", steps=1),
        probe=rows[4:6],
        guard=GuardConfig(rows=2, report_rows=0, **guard),  # type: ignore[arg-type]
        grpo={
            "num_generations": 2,
            "per_device_train_batch_size": 4,
            "max_completion_length": 8,
            "learning_rate": 1e-6,
        },
    )
    with tempfile.TemporaryDirectory(dir=folder) as run, _timed_parts() as parts:
        made = run_one_phase(model, tokenizer, config, Path(run))
    whole = {name: float(made.record.metrics[name]) for name in _WHOLE}
    rest = made.whole_s - whole["guard_s"] - whole["reinforce_s"]
    if made.record.accepted is not (guard is _KEPT):
        raise click.ClickException(f"unexpected verdict: {made.record.metrics['verdict']}")
    return {**whole, **parts, "rest": rest}


@contextmanager
def _timed_parts() -> Iterator[Seconds]:
    """Seconds by part of the phases that run in here. A part that phases no longer have is left
    out.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraModel

    from benchmarks.training import timed
    from risen_plugin.phases import risen
    from risen_plugin.training.clean_room import clean_room

    spent: defaultdict[str, float] = defaultdict(float)

    def add(part: str) -> Callable[[float], None]:
        def told(seconds: float) -> None:
            spent[part] += seconds

        return told

    wrapped = {
        "build_trainer": (risen, "build TRL's trainer"),
        "save_pretrained": (PeftModel, "save the adapter"),
        "merge_adapter": (LoraModel, "merge the adapter"),
    }
    with ExitStack() as patches:
        for name, (owner, part) in wrapped.items():
            call = timed(getattr(owner, name), add(part))
            patches.enter_context(mock.patch.object(owner, name, call))
        room = _timed_room(clean_room, add("enter the clean room"), add("leave the clean room"))
        patches.enter_context(mock.patch.object(risen, "clean_room", room))
        if hasattr(risen, "gc"):
            collector = SimpleNamespace(**{n: getattr(gc, n) for n in dir(gc) if n[0] != "_"})
            collector.collect = timed(gc.collect, add("gc.collect()"))
            patches.enter_context(mock.patch.object(risen, "gc", collector))
        yield spent


def _timed_room(
    room: Callable[..., contextlib.AbstractContextManager[None]],
    entered: Callable[[float], None],
    left: Callable[[float], None],
) -> Callable[..., contextlib.AbstractContextManager[None]]:
    from benchmarks.training import timed

    class Room:
        def __init__(self, *arguments: Any) -> None:
            self.inner = room(*arguments)

        def __enter__(self) -> None:
            timed(self.inner.__enter__, entered)()

        def __exit__(self, *exception: Any) -> Any:
            return timed(self.inner.__exit__, left)(*exception)

    return Room


def _random_model(tokenizer: Any) -> Any:
    """A Qwen2 of 100 M parameters with random weights, which the embedded tokenizer feeds."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=32_000,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=12,
            num_attention_heads=12,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


if __name__ == "__main__":
    main()
