"""Claim: the report of a run with 100,000 sampled answers takes under 10 s and 15 MB.

The run is made up: twenty phases with the events, logs and Parquet files that a run writes, answers
of a few hundred characters, three rewards, six families. The report is made in a fresh process, as
``risen report`` makes it, imports included.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.shared import (
    Spread,
    held,
    machine,
    measuring,
    print_table,
    run_python,
    write_results,
)
from risen_plugin.contracts import Failed
from risen_plugin.kit.files import write_json
from risen_plugin.record.rollouts import FILE, RolloutLog
from risen_plugin.record.run_record import Record
from risen_plugin.rewards.batch import Batch

LIMIT_S = 10.0
LIMIT_MB = 15.0
_FAMILIES = ("billing", "changes", "damage", "delivery", "returns", "praise")
_IDS = (
    ("punctuation:no_comma", {}),
    ("change_case:english_lowercase", {}),
    ("length_constraints:number_words", {"num_words": 60, "relation": "less than"}),
    ("startend:quotation", {}),
)
_WORDS = ["order", "parcel", "invoice", "Tuesday", "please", "refund", "delay", "4711", "sincerely"]
_WORDS += ["customer", "door", "courier", "account", "kettle,", "<b>bold</b>", "naïve", "東京"]
_MAKE = """
import resource, sys, time
started = time.perf_counter()
from risen_plugin.commands.report.page import write_report
path = write_report(sys.argv[1], sys.argv[2])
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


@click.command()
@click.option("--answers", type=click.IntRange(min=1000), default=100_000, show_default=True)
@click.option("--phases", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Make the run here, and keep it.")
@measuring(repeats=3)
def main(
    answers: int, phases: int, keep: Path | None, repeats: int, json_file: Path | None
) -> None:
    """Time the report of a long run and weigh it."""
    before = machine()
    with tempfile.TemporaryDirectory() as temporary:
        run = keep or Path(temporary) / "run"
        write_run(run, answers=answers, phases=phases)
        page = run / "report.html"
        made = [run_python("-c", _MAKE, str(run), str(page)).split() for _ in range(repeats)]
        size = page.stat().st_size / 1e6
    seconds, computing, memory = (
        Spread.of(list(map(float, column))) for column in zip(*made, strict=True)
    )
    print_table(
        f"The report of {phases} phases and {answers:,} answers",
        ("", "median (least to most)"),
        [
            ("seconds, imports included", seconds.show(1)),
            ("of them computing", computing.show(1)),
            ("peak resident memory, MB", memory.show(0)),
            ("size of the file, MB", f"{size:.1f}"),
        ],
    )
    click.echo(f"\nunder {LIMIT_S:.0f} s: {held(seconds.most < LIMIT_S)}")
    click.echo(f"under {LIMIT_MB:.0f} MB: {held(size < LIMIT_MB)}")
    results = {"seconds": seconds, "cpu_s": computing, "memory_mb": memory, "size_mb": size}
    settings = {"answers": answers, "phases": phases, "repeats": repeats}
    write_results(json_file, settings=settings, machine=before, results=results)


def write_run(place: Path, *, answers: int, phases: int, seed: int = 0) -> None:
    """A made-up record of a run, as a run itself would have written it."""
    rng = random.Random(seed)
    clock = [0.0]
    record = Record(place, lambda: clock[0])
    record.begin(_description(place))
    adherence, loss, step, domain = 0.3, 0.06, 0, 0.9
    for number in range(1, phases + 1):
        for _ in range(10):
            step += 10
            clock[0] += 6 + rng.random()
            record.event("log", step=step, loss=0.1 + 2.0 / (step + 9), learning_rate=1e-4)
        domain = min(0.99, domain + 0.01 * rng.random())
        record.event("evaluation", step=step, metrics={"eval_loss": loss, "eval_accuracy": domain})
        loss *= 0.97
        reason = f"plateau: the held-out loss fell by {loss / 50:.4f} in 100 steps"
        decision = {"number": number, "phase": "risen", "steps": 25, "parameters": {}}
        record.event("decision", step=step, **decision, reason=reason)
        accepted = rng.random() < 0.7
        after = min(0.98, adherence + (0.12 * rng.random() if accepted else -0.02 * rng.random()))
        metrics = _metrics(rng, adherence, after, loss, domain)
        clock[0] += metrics["seconds"]
        kept = {"kind": "risen", "steps": 25, "at_step": step, "reason": reason}
        phase = {**kept, "accepted": accepted, "metrics": metrics}
        if number % 6 == 0:
            error = {"plugin": "judge", "reason": "HTTP 503", "count": rng.randrange(1, 9)}
            record.event("plugin_error", step=step, number=number, **error)
        record.event("phase", step=step, number=number, **phase)
        folder = record.phase_folder(number)
        write_json(folder / "phase.json", {**phase, "logs": list(_logs(rng, adherence))})
        _log_answers(rng, folder, number, answers // phases, adherence)
        adherence = after if accepted else adherence * 0.99
    record.close()


def _description(place: Path) -> dict[str, Any]:
    rewards = [("constraints", 1.0), ("right_fields", 1.0), ("judge", 0.3)]
    return {
        "risen_plugin": "0.1.0",
        "rewards": [{"name": name, "weight": weight} for name, weight in rewards],
        "reserved": ["billing"],
        "seed": 0,
        "output_dir": str(place),
        "environment": {"python": sys.version.split()[0], "devices": ["cpu"]},
    }


def _metrics(
    rng: random.Random, before: float, after: float, loss: float, domain: float
) -> dict[str, Any]:
    def counts(rate: float) -> dict[str, list[int]]:
        return {name: [round(rate * 40 + rng.uniform(-3, 3)), 43] for name in _FAMILIES}

    def met(rate: float) -> dict[str, list[int]]:
        return {name: [round(rate * 50 + rng.uniform(0, 6)), 57] for name, _ in _IDS}

    return {
        "guard/adherence_strict_before": before,
        "guard/adherence_strict_after": after,
        "guard/probe_loss_before": loss,
        "guard/probe_loss_after": loss * (1 + 0.1 * rng.random()),
        "adherence_strict_before": before - 0.02,
        "adherence_strict_after": after - 0.03,
        "unseen/adherence_strict_before": before - 0.05,
        "unseen/adherence_strict_after": after - 0.08,
        "domain/accuracy_before": domain,
        "domain/accuracy_after": domain - 0.004 * rng.random(),
        "families_before": counts(before),
        "families_after": counts(after),
        "constraints_before": met(before),
        "constraints_after": met(after),
        "gap": 0.03 * rng.random(),
        "trip_wire_rate": 0.02 * rng.random(),
        "trip_wires": {"repetition": 0.01},
        "seconds": 60 + 20 * rng.random(),
        "verdict": f"adherence {before:.3f} -> {after:.3f}, probe loss {loss:.4f}",
    }


def _logs(rng: random.Random, adherence: float) -> Iterator[dict[str, float]]:
    for step in range(1, 26):
        yield {
            "step": step,
            "reward": adherence * 2 + step / 60 + 0.1 * rng.random(),
            "kl": step * 0.0004 * rng.random(),
            "entropy": 0.4 - step * 0.004 + 0.02 * rng.random(),
            "learning_rate": 1e-3 * (1 - step / 30),
            "beta": 0.02 + 0.001 * step,
        }


def _log_answers(
    rng: random.Random, folder: Path, number: int, count: int, adherence: float
) -> None:
    with RolloutLog(folder / FILE) as log:
        for start in range(0, count, 200):
            size = min(200, count - start)
            families = [rng.choice(_FAMILIES) for _ in range(size)]
            wanted = [rng.sample(_IDS, 2) for _ in range(size)]
            outcomes = {
                "constraints": [rng.choice((0.0, 0.5, 1.0)) for _ in range(size)],
                "right_fields": [float(rng.random() < adherence) for _ in range(size)],
                "judge": [_judged(rng) for _ in range(size)],
            }
            log.add(
                Batch(
                    step=start // 200,
                    prompts=[[{"role": "user", "content": _text(rng, 25)}] for _ in range(size)],
                    completions=[
                        [{"role": "assistant", "content": _text(rng, 45)}] for _ in range(size)
                    ],
                    columns={
                        "family": families,
                        "instruction_id_list": [[id_ for id_, _ in ids] for ids in wanted],
                        "kwargs": [[kwargs for _, kwargs in ids] for ids in wanted],
                    },
                    scores=outcomes,
                    group=8,
                ),
                phase=number,
            )


def _judged(rng: random.Random) -> float | Failed | None:
    if rng.random() < 0.01:
        return Failed("HTTP 503")
    return None if rng.random() < 0.1 else round(rng.betavariate(4, 2), 3)


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randrange(words // 2, words * 2)))


if __name__ == "__main__":
    main()
