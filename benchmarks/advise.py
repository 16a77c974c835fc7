"""Claim: ``risen advise`` recommends what the situation calls for, and knows how long it takes.

Seven situations are constructed with the embedded model and the demo's order desk: its files, its
models and its rewards are written into a folder, ``risen advise`` measures each in a process of
its own, and where something is to be trained ``risen train`` follows the advice. The estimate is
compared with the time of that command, start-up and saving included. On a busy machine ``--cpu``
counts the processor's time in place of the clock's, on both sides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.shared import ROOT, held, machine, print_table, write_results

LIMIT = 1.5  # the estimate is within this factor of the measured time
_REWARD = """\
from risen_plugin import text_of
from risen_plugin.embedded import orders


def right_fields(completions, answer, **columns):
    pairs = zip(completions, answer, strict=True)
    return [float(orders.is_right(text_of(text), wanted)) for text, wanted in pairs]
"""
_START = "from risen_plugin.cli import main; main()"
_START_CPU = (
    "import time; time.perf_counter = time.process_time; "
    "import risen_plugin.commands.advise.machine as m; "
    "m.process_age_s = time.process_time; " + _START
)
_REWARDS = ("--instructions", "instructions.jsonl", "--rewards", "constraints,desk.py:right_fields")
_SETTINGS = (
    *("--set", "fine_tune.learning_rate=0.001", "--set", "fine_tune.logging_steps=50"),
    *("--set", "fine_tune.per_device_train_batch_size=16"),
)
_RISEN_SETTINGS = (
    *("--set", "risen.grpo.learning_rate=0.001", "--set", "risen.grpo.max_completion_length=64"),
    *("--set", "risen.guard={rows: 48, report_rows: 0}"),
)


@dataclass(frozen=True)
class Situation:
    """A model with data or rewards, and the course that the mission takes there.

    :param memory: bytes beyond the least that an adapter needs; None for no limit.
    """

    title: str
    course: str
    model: str
    data: str | None = None
    rewards: bool = False
    memory: int | None = None

    def arguments(self) -> list[str]:
        """What follows ``risen advise``."""
        given = [self.model]
        if self.data is not None:
            given += ["--data", self.data, *_SETTINGS]
        if self.rewards:
            given += [*_REWARDS, *_RISEN_SETTINGS]
        return given


SITUATIONS = (
    Situation("rich domain data that follows", "fine_tune", "base", "following.jsonl", True),
    Situation("no data but rewards", "risen", "tuned", None, True),
    Situation("changing instructions", "risen", "tuned", "plain.jsonl", True),
    Situation("the domain and the manners", "both", "base", "recorded.jsonl", True),
    Situation("already adherent", "nothing", "adherent", None, True),
    Situation("far too weak for any reward", "nothing", "untrained", None, True),
    Situation("tight memory", "fine_tune", "base", "recorded.jsonl", memory=5 * 10**6),
)


@dataclass(frozen=True)
class Outcome:
    """What was advised, and how following it went."""

    situation: Situation
    advice: Mapping[str, Any]
    measured: Mapping[str, Any]
    advised_s: float
    followed_s: float | None = None
    followed_peak: int | None = None
    load: float = 0.0

    @property
    def ratio(self) -> float | None:
        """Measured time over the estimate."""
        return None if self.followed_s is None else self.followed_s / self.advice["seconds"]

    @property
    def is_right(self) -> bool:
        advised = self.advice["course"] == self.situation.course
        return advised and (self.situation.memory is None or self.advice["only_adapter"])


@dataclass(frozen=True)
class Risen:
    """Runs ``risen`` in a process of its own.

    :param place: the folder that it runs in.
    :param start: Python that starts it.
    """

    place: Path
    start: str

    def __call__(self, *arguments: str) -> tuple[str, float, int]:
        """Standard output, seconds, and bytes at the peak."""
        path = os.pathsep.join([str(ROOT), str(ROOT / "export"), os.environ.get("PYTHONPATH", "")])
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", self.start, *arguments],
            cwd=self.place,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            said = child.stdout.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise click.ClickException(f"risen {' '.join(arguments)} ended with {child.returncode}")
        seconds = time.perf_counter() - began
        if self.start == _START_CPU:
            seconds = usage.ru_utime + usage.ru_stime
        return said, seconds, usage.ru_maxrss * 1024


@click.command()
@click.option("--budget", default="40s", show_default=True, help="Of each measurement.")
@click.option("--within", default="60s", show_default=True, help="Of following each advice.")
@click.option("--only", multiple=True, help="Situations by a part of their title.")
@click.option("--cpu", is_flag=True, help="Count the processor's time, for a busy machine.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
def main(
    budget: str, within: str, only: tuple[str, ...], cpu: bool, json_file: Path | None
) -> None:
    """Ask for advice in each situation, follow it, and compare."""
    before = machine()
    chosen = [s for s in SITUATIONS if not only or any(part in s.title for part in only)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        risen = Risen(place, _START_CPU if cpu else _START)
        _prepare(risen, {s.model for s in chosen})
        outcomes = [_outcome(s, risen, budget, within) for s in chosen]
    _show(outcomes)
    write_results(
        json_file,
        settings={"budget": budget, "within": within, "limit": LIMIT, "cpu": cpu},
        machine=before,
        results={
            o.situation.title: {
                "advice": o.advice,
                "measurements": o.measured,
                "advised_s": o.advised_s,
                "followed_s": o.followed_s,
                "followed_peak": o.followed_peak,
                "load": o.load,
            }
            for o in outcomes
        },
    )


def _prepare(risen: Risen, models: set[str]) -> None:
    """Write the files, and make the models that the situations begin with."""
    from risen_plugin.embedded import base_model, orders

    place = risen.place
    (place / "desk.py").write_text(_REWARD, encoding="utf-8")
    recorded = orders.draw(2000, 1)
    # The same ids in all of them but the plain ones, whose rows ask for nothing but facts.
    _write(place / "recorded.jsonl", recorded)
    _write(place / "following.jsonl", [row for row in orders.draw(4000, 2) if all(row["obeyed"])])
    _write(place / "plain.jsonl", orders.draw(600, 3, wish_counts=(0,)))
    _write(place / "instructions.jsonl", orders.draw(800, 4, wish_counts=(1, 1, 2)))
    (place / "base").symlink_to(base_model())
    if "untrained" in models:
        _untrained(place / "untrained", base_model())
    for name, data, steps in (("tuned", "plain.jsonl", 120), ("adherent", "following.jsonl", 250)):
        if name in models:
            click.secho(f"making the model '{name}'", bold=True, err=True)
            settings = {
                "max_steps": steps,
                "learning_rate": 1e-3,
                "per_device_train_batch_size": 32,
                "save_strategy": "no",
            }
            run = {"model": "base", "data": data, "fine_tune": settings, "output": name}
            (place / f"{name}.yaml").write_text(json.dumps(run), encoding="utf-8")
            risen("train", f"{name}.yaml", "--quiet")


def _untrained(folder: Path, like: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(like)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)


def _outcome(situation: Situation, risen: Risen, budget: str, within: str) -> Outcome:
    click.secho(situation.title, bold=True, err=True)
    ask = ["advise", *situation.arguments(), "--budget", budget, "--within", within, "--json"]
    if situation.memory is not None:
        # The least that is needed depends on what the libraries take, so it is asked for first.
        least, _, _ = risen(*ask, "--memory", "1MB", "--quiet")
        needed = json.loads(least)["measurements"]["memory"]["needed"]
        ask += ["--memory", f"{needed + situation.memory}"]
    run = f"{situation.title.replace(' ', '-')}.yaml"
    told, advised_s, _ = risen(*ask, "--write", run, "--quiet")
    data = json.loads(told)
    load = os.getloadavg()[0]
    followed_s = peak = None
    if data["run"] is not None:
        output = f"{run}-out"
        _, followed_s, peak = risen("train", run, "--output", output, "--quiet")
    return Outcome(
        situation, data["advice"], data["measurements"], advised_s, followed_s, peak, load
    )


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _show(outcomes: Sequence[Outcome]) -> None:
    rows = []
    for o in outcomes:
        found = o.measured["rewards"] or {}
        data = o.measured["data"] or {}
        drop = (
            f"{data['loss']:.3f} -> {data['loss_after']:.3f}" if data.get("steps") else "not taken"
        )
        rows.append(
            [
                o.situation.title,
                drop,
                f"{found['adherence']:.2f}" if found else "-",
                f"{found['pass_at_k']:.2f}" if found else "-",
                f"{found['zero_variance']:.2f}" if found else "-",
                o.advice["course"],
                held(o.is_right),
                f"{o.advice['seconds']:.0f}" if o.followed_s else "-",
                f"{o.followed_s:.0f}" if o.followed_s else "-",
                f"{o.ratio:.2f}" if o.ratio else "-",
                f"{o.load:.1f}",
            ]
        )
    head = ["situation", "held-out loss", "adherence", "pass@k", "no variance", "advice", "right"]
    print_table("Advice", [*head, "estimated s", "measured s", "ratio", "load"], rows)
    ratios = [o.ratio for o in outcomes if o.ratio is not None]
    is_close = all(1 / LIMIT <= ratio <= LIMIT for ratio in ratios)
    click.echo(
        f"\nadvice: {held(all(o.is_right for o in outcomes))}; time within a factor of {LIMIT}: "
        f"{held(is_close)} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"
    )
    for o in outcomes:
        if o.situation.memory is not None and o.followed_peak is not None:
            limit = o.measured["memory"]["available"]
            click.echo(
                f"memory: {o.followed_peak / 1e6:.0f} MB at the peak, {limit / 1e6:.0f} MB given: "
                f"{held(o.followed_peak <= limit)}"
            )
        for reason in o.advice["reasons"]:
            click.echo(f"{o.situation.title}: {reason}")


if __name__ == "__main__":
    main()
