"""One process of a run on several, started by torchrun; leaves what it saw as JSON.

``python distributed_worker.py SCENARIO FOLDER``, where FOLDER has a tokenizer.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from risen_plugin import Decision, Progress, RisenCallback, hookimpl
from risen_plugin.config import (
    AnchorConfig,
    BuffersConfig,
    CurriculumConfig,
    GuardConfig,
    MendingConfig,
    RisenConfig,
    TaskProbe,
    Weighted,
)
from risen_plugin.embedded import orders
from risen_plugin.phases.checkpoints import PhaseCheckpoints
from risen_plugin.training.outer_trainer import leave_processes

RANK = int(os.environ["RANK"])
ROWS = orders.draw(48, 0)
PROBE = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS[:6]]
SEEN: dict[str, Any] = {
    "asked": [],
    "rows": [],
    "drawn": 0,
    "observed": [],
    "scored": 0,
    "checkpoints_of_phases": 0,
}


class Messages:
    """Order-desk instructions; counts how often this process asked for them."""

    def __call__(self, *, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
        SEEN["drawn"] += 1
        return orders.draw(count, seed)


def by_clock(progress: Progress) -> Decision:
    """Decides by what differs between processes: the time, and the rank."""
    SEEN["asked"].append(progress.step)
    if RANK:
        return Decision("risen", 7, reason="not this process's to decide")
    if progress.step == 2 and progress.elapsed_s > 0:
        return Decision("risen", 2, {}, f"after {progress.elapsed_s:.9f} s")
    if progress.step == 3:
        return Decision("burst", 2, {}, f"{progress.buffered} answers")
    return Decision("fine_tune", reason="by clock")


def half(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """Passes the first answer of each pair."""
    SEEN["rows"].append([prompt[-1]["content"] for prompt in prompts])
    SEEN["scored"] += len(completions)
    return [float(index % 2 == 0) for index in range(len(completions))]


def broken(completions: list[Any], trainer_state: Any, **columns: Any) -> list[float]:
    if RANK == 1 and trainer_state.global_step < trainer_state.max_steps:  # not the guard's
        raise ValueError("the service of this process is gone")
    return [0.0] * len(completions)


def hangs(completions: list[Any], trainer_state: Any, **columns: Any) -> list[float]:
    if RANK == 1 and trainer_state.global_step < trainer_state.max_steps:  # not the guard's
        threading.Event().wait()  # for ever; its thread ends with the process
    return [0.0] * len(completions)


class Harmed:
    """A task whose rows fail when they are answered for the second time, and only then."""

    __name__ = "harmed"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, completions: list[Any], **columns: Any) -> list[float]:
        self.asked += 1
        return [float(self.asked != 2)] * len(completions)


class Onlooker:
    @hookimpl
    def risen_phase_ended(self, phase: Any) -> None:
        SEEN["observed"].append(phase.kind)


ANCHOR = AnchorConfig(prompts=["Which city?", "Who is it?", "When?"], rows=4, tokens=4)
MENDING = MendingConfig(rows=8, tokens=6, batch_size=4)


def configuration(scenario: str) -> RisenConfig:
    reward = {
        "broken": Weighted(broken),
        "hangs": Weighted(hangs, timeout_s=1.0),
    }.get(scenario, Weighted(half))
    guard = GuardConfig(rows=5, report_rows=2, min_gain=-1.0, max_probe_loss_rise=1e9)
    if scenario == "shrunk":
        rows = [{"prompt": row["prompt"]} for row in ROWS[:16]]
        task = TaskProbe(rows, Harmed(), max_drop=0.1)
        guard = replace(guard, tasks={"old": task}, strengths=(0.5, 0.25))
    return RisenConfig(
        rewards=[reward],
        generator=Messages(),
        scheduler=by_clock,
        reserve=0,
        probe=PROBE,
        guard=guard,
        anchor=ANCHOR if scenario == "shrunk" else None,
        mending=MENDING if scenario == "shrunk" else None,
        buffers=BuffersConfig(min_gain=-1.0, max_probe_loss_rise=1e9, batch_size=4),
        curriculum=CurriculumConfig(initial=16) if scenario == "resumed" else None,
        grpo={
            "num_generations": 4,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "max_completion_length": 8,
            "learning_rate": 1e-2,
            "beta": 0.1,
        },
    )


def trainer_of(folder: Path, tokenizer: Any, scenario: str, seed: int = 0) -> Any:
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        DataCollatorForSeq2Seq,
        Qwen2Config,
        Qwen2ForCausalLM,
        Trainer,
        TrainingArguments,
    )

    from risen_plugin.training.losses import encode_probe

    torch.manual_seed(seed)
    model: Any = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=288,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    if scenario == "shrunk":  # answers that end can be learned from
        model.generation_config.eos_token_id = [*range(0, 288, 2)]
    if scenario == "peft":
        model = get_peft_model(
            model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    encoded = encode_probe(tokenizer, ROWS, 512)
    return Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / scenario),
            max_steps=5,
            per_device_train_batch_size=2,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="steps",
            save_steps=2 if scenario == "resumed" else 5,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            ddp_timeout=240,
        ),
        train_dataset=Dataset.from_list([{"input_ids": i, "labels": k} for i, k in encoded]),
        eval_dataset=Dataset.from_list([{"input_ids": i, "labels": k} for i, k in encoded[:5]]),
        compute_metrics=lambda predicted: {"rows": float(len(predicted.label_ids))},
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )


def weights_of(model: Any) -> float:
    return float(sum(p.double().abs().sum() for p in model.state_dict().values()))


def run(scenario: str, folder: Path) -> dict[str, Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    trainer = trainer_of(folder, tokenizer, scenario)
    callback = RisenCallback(configuration(scenario)).attach(trainer)
    callback.run_state.parts.plugins.register(Onlooker(), "onlooker")
    error = None
    try:
        trainer.train()
    except Exception as raised:  # noqa: BLE001 what each process says is what is tested
        error = f"{type(raised).__name__}: {raised}"
    found = {
        **SEEN,
        "error": error,
        "world": dist.get_world_size(),
        "phases": [[p.kind, p.steps, p.accepted, p.reason, p.metrics] for p in callback.phases],
        "weights": weights_of(trainer.model),
        "rollouts": callback.run_state.pass_rates.rollouts,
        "tokens": callback.run_state.pass_rates.tokens,
        "pass_rates": callback.run_state.pass_rates.rates(),
        "buffers": callback.run_state.buffers.state_dict(),
        "counts": callback.run_state.buffers.counts(),
        "guard": [row["prompt"] for row in callback.run_state.instructions.held_out.guard],
    }
    if scenario == "resumed" and error is None:
        again = trainer_of(folder, tokenizer, scenario, seed=9)
        second = RisenCallback(configuration(scenario)).attach(again)
        again.train(resume_from_checkpoint=str(folder / scenario / "checkpoint-2"))
        found["again"] = {
            "checkpoints_of_phases": SEEN["checkpoints_of_phases"],
            "weights": weights_of(again.model),
            "phases": [[p.kind, p.steps, p.accepted] for p in second.phases],
            "buffers": second.run_state.buffers.state_dict(),
            "rollouts": second.run_state.pass_rates.rollouts,
        }
    return found


def count_checkpoints() -> None:
    """Count what this process writes of the checkpoints that a phase alone has."""
    write = PhaseCheckpoints.write

    def counted(ours: PhaseCheckpoints, *arguments: Any, **named: Any) -> None:
        SEEN["checkpoints_of_phases"] += bool(ours.every)
        write(ours, *arguments, **named)

    PhaseCheckpoints.write = counted  # type: ignore[method-assign]


class Lingering(torch.Tensor):
    """A tensor that is let go of once a garbage collection is over."""

    collected = threading.Event()

    def __del__(self) -> None:
        SEEN["died_in"] = threading.current_thread().name
        self.collected.wait(60)


def have_a_thread_wait_for_python() -> None:
    """Have a thread of the group end with a tensor in its hands, and its model by a collection."""
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    model.knot = model  # type: ignore[assignment]
    gc.disable()  # until ``leave`` asks for it
    gc.callbacks.append(lambda phase, _: phase == "stop" and Lingering.collected.set())
    store = dist.distributed_c10d._get_default_store()
    if RANK:
        store.wait(["let go"])
        dist.all_reduce(torch.ones(1))
    else:
        held = torch.ones(1).as_subclass(Lingering)
        work = dist.all_reduce(held, async_op=True)
        del held, work  # the thread has the last one: it needs the other process to be done
        store.set("let go", "")


if __name__ == "__main__":
    count_checkpoints()
    place = Path(sys.argv[2])
    for name in sys.argv[1].split(","):
        SEEN.update(asked=[], rows=[], drawn=0, observed=[], scored=0)
        told = run(name, place)
        (place / f"{name}-{RANK}.json").write_text(json.dumps(told, default=str), encoding="utf-8")
    have_a_thread_wait_for_python()
    faulthandler.dump_traceback_later(60, exit=True)
    leave_processes()
    faulthandler.cancel_dump_traceback_later()
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    (place / f"left-{RANK}.json").write_text(
        json.dumps({"threads": threads, "died_in": SEEN.get("died_in")}), encoding="utf-8"
    )
