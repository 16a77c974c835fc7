"""A whole seeded run on a tiny model that kills itself where it is told, and the comparing of two.

As a script it reads jobs from its standard input, one JSON object a line, runs each in a process of
its own and answers with one line: ``folder``; ``kill``, such as ``["score", 3]``, the third time
that answers are scored; ``after_s``, seconds until it is killed from outside. Used by the tests
and by ``benchmarks/kills.py``, which also has them train on a GPU.
"""

from __future__ import annotations

import functools
import gc
import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
POINTS = ("fine-tune", "forward", "draw", "score", "update", "merge", "rename", "fsync", "write")
STEPS = 6
PHASES = (2, 6)  # the last step too, which no checkpoint follows
BURST = 4
_CPU = {"CUDA_VISIBLE_DEVICES": ""}
_GPU = {
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # or asking for a GPU spoils it for a fork
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # PyTorch's notes on reproducibility
}
_OWN = re.compile(r".*(_s|_runtime|_per_second|step_time|time|seconds)$|train_loss$|events$")
"""Times; the Trainer's mean loss over the steps of one process; a position among the former."""


class Killer:
    """Counts what happens, and ends the process the hard way when its moment comes."""

    def __init__(self, point: str | None = None, number: int = 0) -> None:
        self.point, self.number = point, number
        self.counts: Counter[str] = Counter()

    def pass_by(self, point: str, last_deed: Callable[[], Any] | None = None) -> None:
        self.counts[point] += 1
        if point == self.point and self.counts[point] == self.number:
            if last_deed is not None:
                last_deed()
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: Any, name: str, point: str) -> None:
        """Pass by ``point`` before each call of ``owner.name``."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.pass_by(point)
            return original(*args, **kwargs)

        setattr(owner, name, watched)

    def watch_writing(self, owner: Any, name: str, place: int) -> None:
        """Pass by ``write``, and die in the middle of the file."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            def half() -> None:
                original(*args, **kwargs)
                os.truncate(args[place], os.path.getsize(args[place]) // 2)

            self.pass_by("write", half)
            return original(*args, **kwargs)

        setattr(owner, name, watched)


def _watch(killer: Killer) -> None:
    """Have everything that a run passes by in the libraries counted."""
    import peft.tuners.lora.layer
    import torch
    import transformers

    import risen_plugin.phases.checkpoints

    killer.watch(os, "rename", "rename")
    killer.watch(os, "replace", "rename")
    killer.watch(os, "fsync", "fsync")
    killer.watch(torch.optim.AdamW, "step", "update")
    killer.watch(peft.tuners.lora.layer.Linear, "merge", "merge")
    killer.watch(transformers.Qwen2ForCausalLM, "forward", "forward")
    killer.watch_writing(torch, "save", 1)
    killer.watch_writing(transformers.modeling_utils, "safe_save_file", 1)
    killer.watch_writing(risen_plugin.phases.checkpoints, "save_file", 1)


def run(folder: Path, killer: Killer) -> None:
    """Train in ``folder``, or go on there; leave ``final.safetensors`` and ``final.json``."""
    import safetensors.torch
    import torch
    import transformers
    from datasets import Dataset

    import risen_plugin.phases.checkpoints
    from risen_plugin import Decision, RisenCallback, RisenConfig
    from risen_plugin.config import BuffersConfig, CurriculumConfig, GuardConfig, Weighted
    from risen_plugin.embedded import base_model, orders
    from risen_plugin.training.losses import encode_probe

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(torch.cuda.is_available())
    risen_plugin.phases.checkpoints.MOST_SHARE = math.inf  # however slow the machine
    tokenizer = transformers.AutoTokenizer.from_pretrained(base_model())
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    rows = orders.draw(48, 0)

    class Questions:
        """Keeps state: how many rows it has made."""

        made = 0

        def __call__(self, *, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
            killer.pass_by("draw")
            self.made += count
            return orders.draw(count, seed + self.made)

        def state_dict(self) -> dict[str, Any]:
            return {"made": self.made}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.made = state["made"]

    def letters(completions: list[Any], **columns: Any) -> list[float]:
        killer.pass_by("score")
        texts = [completion[0]["content"] for completion in completions]
        return [sum(map(str.isalpha, text)) / max(1, len(text)) for text in texts]

    def schedule(progress: Any) -> Any:
        if progress.step in PHASES:
            return Decision("risen", 4, {}, f"step {progress.step}")
        if progress.step == BURST:
            return Decision("burst", 2, {}, f"step {progress.step}")
        return Decision("fine_tune", reason="not yet")

    callback = RisenCallback(
        RisenConfig(
            rewards=[Weighted(letters, passes_at=0.4)],
            generator=Questions(),
            scheduler=schedule,
            probe=[{"prompt": r["prompt"], "completion": r["completion"]} for r in rows[:4]],
            guard=GuardConfig(rows=4, report_rows=2, min_gain=-1.0, max_probe_loss_rise=1e9),
            buffers=BuffersConfig(
                band=(0.0, 1.0),
                min_gain=-1.0,
                max_probe_loss_rise=1e9,
                batch_size=4,
                demonstrations=[
                    {"prompt": row["prompt"], "completion": "written"} for row in rows[-2:]
                ],
            ),
            curriculum=CurriculumConfig(initial=12, refill=4, refill_every=2),
            grpo={
                "num_generations": 4,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 2,
                "num_iterations": 2,
                "max_completion_length": 6,
                "learning_rate": 1e-2,
                "logging_steps": 1,
                "beta": 0.05,
            },
            checkpoint_every=1,
        )
    )
    encoded = encode_probe(tokenizer, rows, 512)
    collator = transformers.DataCollatorForSeq2Seq(tokenizer)

    def collate(features: list[Any]) -> Any:
        killer.pass_by("fine-tune")
        return collator(features)

    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            logging_steps=3,  # so that a loss is summed up across a checkpoint
            save_strategy="steps",
            save_steps=2,
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list([{"input_ids": i, "labels": k} for i, k in encoded]),
        data_collator=collate,
        processing_class=tokenizer,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    _watch(killer)
    callback.attach(trainer)
    begun = transformers.trainer_utils.get_last_checkpoint(str(folder)) is not None
    trainer.train(resume_from_checkpoint=begun or None)

    killer.point = None
    safetensors.torch.save_file(
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        folder / "final.safetensors",
    )
    log = trainer.state.log_history[:-1]  # the last line sums up what this process did
    state = callback.state_dict()
    del state["trainer"]  # resumed at its last step, the Trainer takes one more and adds its loss
    told = {"state": state, "log": log}
    (folder / "final.json").write_text(json.dumps(told, default=str))
    (folder / "counts.json").write_text(json.dumps(killer.counts))


# Comparing


def differences(first: Path, second: Path) -> list[str]:
    """What two finished runs differ in, times left out."""
    ours, theirs = _told(first), _told(second)
    names = {**ours, **theirs}
    return [name for name in names if ours.get(name) != theirs.get(name)]


def _told(folder: Path) -> dict[str, Any]:
    import pyarrow.parquet

    record = folder / "risen"
    told: dict[str, Any] = {"files": sorted(_names(folder))}
    for path in [folder / "final.safetensors", *record.glob("*/adapter/*.safetensors")]:
        told[str(path.relative_to(folder))] = path.read_bytes()
    for path in folder.glob("checkpoint-*/**/*"):
        if path.suffix in (".safetensors", ".pt", ".pth"):
            told[str(path.relative_to(folder))] = path.read_bytes()
    texts = [folder / "final.json", *record.glob("*/phase.json")]
    for path in [*texts, *folder.glob("checkpoint-*/risen/state.json")]:
        told[str(path.relative_to(folder))] = _timeless(json.loads(path.read_text()))
    told["buffers"] = (record / "buffers.jsonl").read_text()
    lines = (record / "events.jsonl").read_text().splitlines()
    told["events"] = [_timeless(json.loads(line)) for line in lines]
    for path in record.glob("phase-*/completions.parquet"):
        told[str(path.relative_to(folder))] = pyarrow.parquet.read_table(path).to_pylist()
    base = sqlite3.connect(record / "pool.sqlite")
    for table in ("strata", "rows", "answers", "retired"):
        told[f"pool: {table}"] = base.execute(f"SELECT * FROM {table}").fetchall()
    base.close()
    return told


def _names(folder: Path) -> Iterator[str]:
    """The files that a run leaves, but for what a crash left aside."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if (
            not name.startswith(("incomplete-", "risen."))
            and "sqlite-" not in name
            and path.is_file()
        ):
            yield name


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _timeless(entry) for name, entry in value.items() if not _OWN.match(name)}
    if isinstance(value, list):
        return [_timeless(entry) for entry in value]
    return "nan" if isinstance(value, float) and math.isnan(value) else value


# Many runs


def _child(job: Mapping[str, Any]) -> None:
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            run(folder, Killer(*(job.get("kill") or ())))
        except BaseException:  # noqa: BLE001  a fork that ends must not go on as its parent
            import traceback

            traceback.print_exc()
            log.flush()
            os._exit(1)
        os._exit(0)


def serve() -> None:
    """Load what takes long once, then run every job in a fork."""
    import peft.tuners.lora.layer  # noqa: F401
    import trl.trainer.grpo_trainer  # noqa: F401
    from transformers import conversion_mapping

    import risen_plugin.callback  # noqa: F401

    warm: Any = getattr(conversion_mapping, "get_checkpoint_conversion_mapping", None)
    if warm is not None:
        warm("qwen2")  # a second's work, kept for the process
    gc.collect()
    gc.freeze()  # or every collection in a fork looks through all that was loaded
    for line in sys.stdin:
        job = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if not child:
            _child(job)
        if job.get("after_s") is not None:
            time.sleep(job["after_s"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        told = {"code": os.waitstatus_to_exitcode(status), "s": time.monotonic() - started}
        print(json.dumps(told), flush=True)


@contextmanager
def runner(*, gpu: bool = False) -> Iterator[Callable[..., dict[str, Any]]]:
    """``run(folder, kill=("score", 3))`` gives ``{"code": -9, "s": 2.5}``."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(_GPU if gpu else _CPU)}
    server = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings, "PYTHONPATH": path},
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def ask(folder: Path, **job: Any) -> dict[str, Any]:
        server.stdin.write(json.dumps({"folder": str(folder), **job}) + "\n")
        server.stdin.flush()
        answer: dict[str, Any] = json.loads(server.stdout.readline())
        return answer

    try:
        yield ask
    finally:
        server.stdin.close()
        server.wait()


if __name__ == "__main__":
    serve()
