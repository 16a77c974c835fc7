"""A whole outer run: Trainer or SFTTrainer on a tiny model, with parts that can be swapped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from risen_plugin import Decision, Progress
from risen_plugin.config import GuardConfig, RisenConfig, Weighted
from risen_plugin.embedded import orders

from .run_commands import CODE

ROWS = orders.draw(48, 0)
PROBE = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS[:6]]


class Messages:
    """Order-desk instructions."""

    def __call__(self, *, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
        return orders.draw(count, seed)


def ascii_share(completions: list[Any], **columns: Any) -> list[float]:
    """A TRL reward function as people write them: pays for plain letters."""
    texts = [completion[0]["content"] for completion in completions]
    return [sum(c.isascii() and c.isalpha() for c in text) / max(1, len(text)) for text in texts]


def is_at_end(trainer_state: Any) -> bool:
    """Whether a reward is asked by the guard, which judges as a phase does at its end."""
    return bool(trainer_state.global_step == trainer_state.max_steps)


def never(progress: Progress) -> Decision:
    return Decision("fine_tune", reason="never")


def at_step(*steps: int, **parameters: Any) -> Callable[[Progress], Decision]:
    """Two GRPO steps after each of the given outer steps."""

    def decide(progress: Progress) -> Decision:
        if progress.step in steps:
            return Decision("risen", 2, parameters, f"step {progress.step}")
        return Decision("fine_tune", reason="not yet")

    return decide


def phase_events(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """The events that begin and end phases, without what was measured and steered between."""
    told = [event for event in events if event.get("phase") != "fine_tune"]
    return [event["event"] for event in told if event["event"] in ("decision", "phase")]


KEEP = GuardConfig(rows=4, report_rows=2, min_gain=-1.0, max_probe_loss_rise=1e9)
DROP = GuardConfig(rows=4, report_rows=2, min_gain=2.0)


@pytest.fixture
def config() -> Callable[..., RisenConfig]:
    def make(**changes: Any) -> RisenConfig:
        fields: dict[str, Any] = {
            "rewards": [Weighted(ascii_share, passes_at=0.0)],
            "generator": Messages(),
            "scheduler": at_step(2),
            "probe": PROBE,
            "guard": KEEP,
            "reserve": 0,
            "grpo": {
                "num_generations": 4,
                "per_device_train_batch_size": 8,
                "max_completion_length": 8,
                "learning_rate": 1e-2,
                **changes.pop("grpo", {}),
            },
        }
        return RisenConfig(**{**fields, **changes})

    return make


@pytest.fixture
def make_trainer(tokenizer: Any, tmp_path: Path) -> Callable[..., Any]:
    """An unmodified ``transformers.Trainer``, or TRL's SFTTrainer with ``sft=True``."""

    def make(
        model: Any,
        *,
        sft: bool = False,
        folder: str = "run",
        evaluate: bool = False,
        **arguments: Any,
    ) -> Any:
        settings: dict[str, Any] = {
            "output_dir": str(tmp_path / folder),
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": "RISEN_TEST_ON_GPU" not in os.environ,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **arguments,
        }
        return (
            _sft(model, tokenizer, settings, evaluate)
            if sft
            else _plain(model, tokenizer, settings, evaluate)
        )

    return make


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``disk("size=64k")``: a small file system of its own, where this user may mount one."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / "disk"
        place.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs the right to mount a file system")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _sft(model: Any, tokenizer: Any, settings: dict[str, Any], evaluate: bool) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [{"prompt": r["prompt"], "completion": r["completion"]} for r in ROWS]
    return SFTTrainer(
        model=model,
        args=SFTConfig(**{"bf16": False, **settings}),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:8]) if evaluate else None,
        processing_class=tokenizer,
    )


def _plain(model: Any, tokenizer: Any, settings: dict[str, Any], evaluate: bool) -> Any:
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    from risen_plugin.training.losses import encode_probe

    encoded = encode_probe(tokenizer, ROWS, 512)
    dataset = Dataset.from_list([{"input_ids": i, "labels": k} for i, k in encoded])
    return Trainer(
        model=model,
        args=TrainingArguments(**settings),
        train_dataset=dataset,
        eval_dataset=dataset.select(range(8)) if evaluate else None,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )


@pytest.fixture(params=[True, False], ids=["attached", "callbacks"])
def attached(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_model: Callable[..., Any], tokenizer: Any
) -> Iterator[None]:
    """A folder with a model, rows, instructions and a reward."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    make_model().save_pretrained("model")
    tokenizer.save_pretrained("model")
    for name, rows in (("train", orders.draw(40, 1)), ("instructions", orders.draw(40, 2))):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("mine.py").write_text(CODE)
    yield
    sys.modules.pop("mine", None)
