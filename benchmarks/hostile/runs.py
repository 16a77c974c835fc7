"""A real small run, and copies of it that are damaged: by chance, with a seed, in many ways."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.hostile.trying import Try

_RUN = """
model: embedded
data: rows.jsonl
evaluation: 4
seed: 1
fine_tune: {max_steps: 4, per_device_train_batch_size: 2, logging_steps: 1, save_steps: 2,
  eval_strategy: steps, eval_steps: 2, learning_rate: 0.001}
risen:
  rewards: [{use: "mine.py:letters", passes_at: 0.9}]
  generator: {use: jsonl, options: {path: instructions.jsonl}}
  scheduler: {use: after, options: {steps: 2}}
  guard: {rows: 4, report_rows: 2, min_gain: -1.0, max_probe_loss_rise: 1.0e+9}
  grpo: {num_generations: 4, per_device_train_batch_size: 8, max_completion_length: 8}
"""
_REWARD = """
def letters(completions, **columns):
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [sum(x.isalpha() for x in t) / max(1, len(t)) for t in texts]
"""
_ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 10**400, 1e308, 1.5, float("nan"), float("inf"), "", "x",
    "\x1b[2J\x1b[31m", "\u202eback", "\ud800", "<script>alert(1)</script>", "9" * 5000, [], {},
    [[]], [None], {"": None}, {"a": {"b": {}}}, [1, "2", None], "n" * 100_000, [0] * 1000,
)  # fmt: skip


_REPLAYED = ("after", "-o", "steps=2", "--trace", ".")


def train(place: Path) -> Path:
    """Train the run whose copies are damaged; returns its folder."""
    place.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"Say the letter {c}.", "completion": c * 3} for c in "abcdefghijklmnop"]
    for name in ("rows.jsonl", "instructions.jsonl"):
        (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "run.yaml").write_text(_RUN)
    (place / "mine.py").write_text(_REWARD)
    words = ["train", "run.yaml", "--output", "out", "--quiet"]
    program = [sys.executable, "-c", "from risen_plugin.cli import main; main()", *words]
    done = subprocess.run(program, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return place / "out"


def recorded(place: Path) -> Path:
    """A record that is written as a run writes it, in moments and without a model."""
    from risen_plugin.record.rollouts import RolloutLog
    from risen_plugin.record.run_record import Record
    from risen_plugin.rewards.batch import Batch

    record = Record(place)
    rewards = [{"name": "letters", "weight": 1.0}]
    versions = {"torch": "2.0"}
    record.begin({"rewards": rewards, "versions": versions, "environment": {"gpu": []}})
    measured = {"guard/adherence_strict_before": 0.5, "guard/probe_loss_before": 2.0}
    for step in range(1, 5):
        record.event("log", step=step, loss=2.0 / step)
    record.event("evaluation", step=4, metrics={"eval_loss": 1.0})
    record.event("decision", step=4, number=1, phase="risen", steps=2, reason="now")
    record.event("guard", step=4, number=1, when="before", measured=measured, intervals={})
    record.event("control", step=4, number=1, grpo_step=1, kl=0.1, reward=0.5)
    record.event(
        "phase",
        step=4,
        number=1,
        kind="risen",
        steps=2,
        accepted=True,
        reason="x",
        metrics=measured,
    )
    record.event("plugin_error", step=4, number=1, plugin="x", reason="down", count=1)
    folder = record.phase_folder(1)
    with RolloutLog(folder / "completions.parquet") as log:
        rows = {"family": ["a", "b"]}
        log.add(Batch(1, ["p", "p"], ["x", "y"], rows, {"letters": [0.5, 1.0]}), phase=1)
    (folder / "phase.json").write_text(json.dumps({"logs": [{"step": 1, "reward": 0.5}]}))
    record.close()
    return place


def damaged(run: Path, place: Path, seed: int) -> Path:
    """A copy of the record of ``run`` that is damaged in one to three ways."""
    rng = random.Random(seed)
    folder = place / f"run-{seed}"
    folder.mkdir(parents=True)
    shutil.copytree(run / "risen", folder / "risen")
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        files = [
            file
            for file in sorted((folder / "risen").rglob("*"))
            if file.is_file()
            and not file.is_symlink()
            and file.suffix in (".json", ".jsonl", ".parquet")
        ]
        if not files:
            break
        # The record's own files more often than those of a phase, whose numbers are many.
        weights = [4 if file.name in ("events.jsonl", "run.json") else 1 for file in files]
        [file] = rng.choices(files, weights)
        ways = [*_OF_ANY, *_OF[file.suffix] * 3]
        rng.choice(ways)(file, rng)
    return folder


def tries(folder: Path, seed: int) -> Iterator[Try]:
    """The commands that read a record."""
    name = f"damaged run {seed}"
    (folder / "mine.py").write_text(_REWARD)

    def one(*words: str, **more: Any) -> Try:
        return Try(name, words, folder, **more)

    yield one("watch", ".", "--once")
    if seed % 2:
        yield one("report", ".", "--output", "report.html")
    else:
        yield one("simulate", *_REPLAYED, "--json", json=True)
        yield one("rescore", ".", "--rewards", "mine.py:letters", "--json", json=True)
        yield one("unsolved", ".", "--json", json=True)
    if seed % 8 == 0:
        yield one("simulate", *_REPLAYED, "--html", "simulated.html")
        yield one("rescore", ".", "--rewards", "mine.py:letters")
        yield one("unsolved", ".")


# Ways to damage any file


def _cut(file: Path, rng: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(len(data) + 1)])


def _flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 3, 20)) if data else 0):
        data[rng.randrange(len(data))] = rng.randrange(256)
    file.write_bytes(data)


def _noise(file: Path, rng: random.Random) -> None:
    file.write_bytes(rng.randbytes(rng.choice((0, 1, 100, 5000))))


def _zeros(file: Path, rng: random.Random) -> None:
    data = file.read_bytes()
    start = rng.randrange(len(data) + 1)
    file.write_bytes(data[:start] + bytes(len(data) - start))


def _gone(file: Path, rng: random.Random) -> None:
    file.unlink()


def _folder(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.mkdir()


def _link(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.symlink_to(rng.choice((file.name, "/dev/zero", "/dev/null", "nowhere", "..")))


def _pipe(file: Path, rng: random.Random) -> None:
    file.unlink()
    os.mkfifo(file)


# Ways to damage JSON


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _odd(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value:
        return copy.deepcopy(rng.choice(_ODD))
    holder, key = rng.choice(list(_places(value)))
    way = rng.random()
    if way < 0.75:
        holder[key] = copy.deepcopy(rng.choice(_ODD))
    elif way < 0.9:
        del holder[key]
    elif isinstance(holder, dict):
        holder[rng.choice(("\x1b[31m", "", "step", "metrics", "\ud800"))] = holder.pop(key)
    return value


def _odd_json(file: Path, rng: random.Random) -> None:
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        _flip(file, rng)
        return
    for _ in range(rng.choice((1, 1, 2, 5))):
        value = _odd(value, rng)
    file.write_text(json.dumps(value))


def _deep_json(file: Path, rng: random.Random) -> None:
    file.write_text("[" * 100_000)


def _lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines(keepends=True)


def _odd_line(file: Path, rng: random.Random) -> None:
    lines = _lines(file)
    for _ in range(rng.choice((1, 1, 3, 8)) if lines else 0):
        index = rng.randrange(len(lines))
        try:
            value = _odd(json.loads(lines[index]), rng)
            lines[index] = json.dumps(value).encode() + b"\n"
        except (ValueError, RecursionError):
            continue
    file.write_bytes(b"".join(lines))


def _mixed_lines(file: Path, rng: random.Random) -> None:
    lines = _lines(file)
    rng.shuffle(lines)
    file.write_bytes(b"".join(lines + lines[: rng.randrange(3)]))


def _other_lines(file: Path, rng: random.Random) -> None:
    lines = _lines(file)
    more = (
        b"\n",
        b"null\n",
        b"[]\n",
        b"7\n",
        b'"x"\n',
        b"{}\n",
        b"\xff\xfe\n",
        b"[" * 9999 + b"\n",
    )
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(more))
    file.write_bytes(b"".join(lines))


# Ways to damage Parquet


def _odd_table(file: Path, rng: random.Random) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (OSError, ValueError):
        _flip(file, rng)
        return
    name = rng.choice(table.column_names)
    index = table.column_names.index(name)
    count = table.num_rows
    columns: list[Callable[[], Any]] = [
        lambda: pa.nulls(count),
        lambda: pa.array(["x\x1b[31m"] * count),
        lambda: pa.array([None if i % 2 else 1.5 for i in range(count)]),
        lambda: pa.array([float("nan")] * count),
        lambda: pa.array([2**62] * count),
        lambda: pa.array([-5] * count),
        lambda: pa.array([[1, 2]] * count),
        lambda: pa.array([{"a": 1}] * count),
        lambda: pa.array([b"\xff"] * count),
        lambda: pa.array(["null"] * count),
        lambda: pa.array(["{}"] * count),
        lambda: pa.array(["[[]]"] * count),
        lambda: pa.array(['[{"role": 1}]'] * count),
        lambda: pa.array([True] * count),
    ]
    if rng.random() < 0.2:
        table = table.drop_columns([name])
    elif rng.random() < 0.1:
        table = table.slice(0, 0)
    elif rng.random() < 0.1:
        table = table.append_column(name, table.column(index))
    elif rng.random() < 0.1:
        table = table.rename_columns(["\x1b[31m" if n == name else n for n in table.column_names])
    else:
        table = table.set_column(index, name, rng.choice(columns)())
    pq.write_table(table, file)


_OF_ANY = [_cut, _flip, _noise, _zeros, _gone, _folder, _link, _pipe]
_OF = {
    ".json": [_odd_json, _odd_json, _odd_json, _deep_json],
    ".jsonl": [_odd_line, _odd_line, _odd_line, _mixed_lines, _other_lines],
    ".parquet": [_odd_table, _odd_table],
}
