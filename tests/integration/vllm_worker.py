"""Runs with phases that sample by a stand-in for vLLM; leaves what they saw as JSON.

``python vllm_worker.py FOLDER``, with the stand-in on the path; FOLDER has a model and a tokenizer.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import torch
import vllm
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)
from trl.generation.vllm_client import VLLMClient
from vllm.server import Server

from risen_plugin import Decision, Progress, RisenCallback
from risen_plugin.config import GuardConfig, RisenConfig, Weighted
from risen_plugin.embedded import orders
from risen_plugin.training import vllm as ours

ROWS = orders.draw(24, 0)
PROBE = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS[:4]]
KEEP = {"min_gain": -1.0, "max_probe_loss_rise": 1e9}
DROP = {"min_gain": 2.0}


def on_cpu() -> None:
    """Have TRL take the CPU for a GPU: the stand-in's weights travel without NCCL."""
    begin = VLLMClient.init_communicator

    def init_communicator(self: Any, device: Any) -> None:
        begin(self, "cuda")

    VLLMClient.init_communicator = init_communicator  # type: ignore[method-assign]
    ours.DEVICE = "cpu"


class Messages:
    def __call__(self, *, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
        return orders.draw(count, seed)


def letters(completions: list[Any], **columns: Any) -> list[float]:
    texts = [completion[0]["content"] for completion in completions]
    return [sum(c.isascii() and c.isalpha() for c in text) / max(1, len(text)) for text in texts]


def run(folder: Path, name: str, guard: dict[str, Any], grpo: dict[str, Any], lora: bool) -> Any:
    """Fine-tuning that changes nothing, with a phase after each of its first two steps."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model")
    torch.manual_seed(0)
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    seen: list[dict[str, torch.Tensor]] = []

    def decide(progress: Progress) -> Decision:
        seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        if progress.step <= 2:
            return Decision("risen", 2, reason="now")
        return Decision("fine_tune", reason="enough")

    ids = tokenizer("order: 51234")["input_ids"]
    trainer = Trainer(
        model,
        TrainingArguments(
            str(folder / name),
            max_steps=3,
            learning_rate=0.0,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            per_device_train_batch_size=2,
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list([{"input_ids": ids, "labels": ids}] * 8),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )
    config = RisenConfig(
        rewards=[Weighted(letters, passes_at=0.0)],
        generator=Messages(),
        scheduler=decide,
        probe=PROBE,
        guard=GuardConfig(rows=4, report_rows=0, **guard),
        reserve=0,
        rollout="vllm",
        grpo={
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "max_completion_length": 6,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            **grpo,
        },
    )
    callback = RisenCallback(config).attach(trainer)
    vllm.ENGINES[:] = vllm.ENGINES[:1] if "vllm_server_base_url" in grpo else []
    first = len(vllm.ENGINES[0].resets) if vllm.ENGINES else 0
    asked = sum(engine.asked for engine in vllm.ENGINES)
    trainer.train()
    logs = [
        json.loads(path.read_text())["logs"]
        for path in sorted((folder / name).glob("risen/phase-*/phase.json"))
    ]
    updates = [update for engine in vllm.ENGINES for update in engine.resets][first:]
    return {
        "accepted": [phase.accepted for phase in callback.phases if phase.kind == "risen"],
        "engines": len(vllm.ENGINES),
        "asked": sum(engine.asked for engine in vllm.ENGINES) - asked,
        "updates": len(updates),
        "phases_begin_with": [
            same(updates[0], merged(model, seen[0])),
            same(updates[-2], merged(model, seen[1])),
        ],
        "changed": [changed(seen[0], seen[1]), changed(seen[1], seen[2])],
        "ratios": [
            entry["sampling/importance_sampling_ratio/mean"]
            for phase in logs
            for entry in phase
            if "sampling/importance_sampling_ratio/mean" in entry
        ],
    }


def merged(model: Any, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that a model without adapters has to have, by its own names."""
    if not hasattr(model, "peft_config"):
        return weights
    made = {}
    for name, tensor in weights.items():
        if "lora_" in name:
            continue
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        stem = name.removesuffix("base_layer.weight")
        a, b = (weights.get(f"{stem}lora_{part}.default.weight") for part in "AB")
        scale = model.peft_config["default"].lora_alpha / model.peft_config["default"].r
        made[plain] = tensor if a is None or b is None else tensor + b @ a * scale
    return made


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return set(first) == set(second) and all(
        torch.allclose(first[name], second[name], rtol=0, atol=1e-7) for name in first
    )


def changed(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    """The weights whose bits differ."""
    return sorted(name for name in first if not torch.equal(first[name], second[name]))


def main() -> None:
    folder = Path(sys.argv[1])
    on_cpu()
    server = Server(str(folder / "model"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    by_server = {
        "vllm_mode": "server",
        "vllm_server_base_url": server.url,
        "vllm_group_port": port,
    }
    seen = {
        "server-kept": run(folder, "server-kept", KEEP, by_server, False),
        "server-dropped": run(folder, "server-dropped", DROP, by_server, True),
        "paths": sorted(set(server.paths)),
    }
    server.close()
    inside = {"vllm_mode": "colocate"}
    seen |= {
        "colocate-kept": run(folder, "colocate-kept", KEEP, inside, True),
    }
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
