"""What ``real_model`` compares with RISEN, and how it measures what a model has kept."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks import training
from risen_plugin.builtin.generators import Constraints as Generator
from risen_plugin.builtin.rewards import Constraints as Reward
from risen_plugin.commands.train.recipe import kind_of, recipe
from risen_plugin.config import effective_grpo
from risen_plugin.config.grpo import rows_per_batch
from risen_plugin.instructions.plain import plain_file
from risen_plugin.training.losses import encode_probe, mean_loss, row_losses

_CONTEXT = 768  # tokens of a measured row
_SOLUTIONS = 128  # of GSM8K
_BATCH = 8
_SUMS = re.compile(r"<<.*?>>")  # which GSM8K's solutions repeat for a calculator
Numbers = dict[str, Any]


def stock(model: Path, folder: Path, steps: int, seed: int, threads: int) -> Numbers:
    """TRL's trainer on the same prompts, with the same reward and as many rollouts."""
    training.prepare(threads)
    loaded, tokenizer = _loaded(model)
    fields = _fields(model)
    rows = _rows(steps * rows_per_batch(fields), seed)
    reward = Reward()

    def scored(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        wanted = {name: columns[name] for name in ("instruction_id_list", "kwargs")}
        wanted["kwargs"] = [json.loads(text) for text in wanted["kwargs"]]
        made = reward(prompts=prompts, completions=completions, **wanted)
        return [0.0 if score is None else float(score) for score in made]

    trainer: Any = GRPOTrainer(
        model=loaded,
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=steps,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            seed=seed,
            **fields,
        ),
        reward_funcs=scored,
        train_dataset=Dataset.from_list(
            [{**row, "kwargs": json.dumps(row["kwargs"])} for row in rows]
        ),
        processing_class=tokenizer,
        peft_config=_lora(),
    )
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    trainer.model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return {"seconds": seconds, "rewards": [one["reward"] for one in _logs(trainer, "reward")]}


def best_answers(model: Path, folder: Path, steps: int, seed: int, threads: int) -> Numbers:
    """Fine-tuning on those of as many answers of its own that meet all constraints."""
    from risen_export.rollouts.sampler import OnnxRollout

    training.prepare(threads)
    loaded, tokenizer = _loaded(model)
    fields = _fields(model)
    at_once, group = rows_per_batch(fields), fields["num_generations"]
    rows = _rows(steps * at_once, seed)
    began = time.monotonic()
    sampler = OnnxRollout("int8-fast", threads=threads)(
        model=loaded, tokenizer=tokenizer, folder=str(folder / "sampler"), rows=at_once * group
    )
    kept: list[dict[str, Any]] = []
    reward = Reward()
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        asked = tokenizer.apply_chat_template(
            [row["prompt"] for row in part], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        made = sampler.sample(
            [(ids, group) for ids in asked],
            max_new_tokens=fields["max_completion_length"],
            temperature=fields.get("temperature", 1.0),
            ends=[tokenizer.eos_token_id],
            seed=seed * 100_000 + start,
        )
        for row, answers in zip(part, made, strict=True):
            kept += _verified(row, [tokenizer.decode(one.ids, skip_special_tokens=True)
                                    for one in answers], reward)  # fmt: skip
    sampler.close()
    trained = get_peft_model(loaded, _lora())
    trainer = Trainer(
        model=trained,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=2,
            per_device_train_batch_size=_BATCH,
            learning_rate=fields["learning_rate"],
            lr_scheduler_type="linear",
            warmup_steps=3,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            logging_steps=5,
            seed=seed,
        ),
        train_dataset=Dataset.from_list(
            [{"input_ids": i, "labels": k} for i, k in encode_probe(tokenizer, kept, _CONTEXT)]
        ),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    trainer.train()
    trained.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return {
        "seconds": time.monotonic() - began,
        "kept": len(kept),
        "of": len(rows) * group,
        "losses": [one["loss"] for one in _logs(trainer, "loss")],
    }


def losses(
    base: Path, trained: Path, own: Sequence[Sequence[str]], gsm8k: Path, threads: int
) -> Numbers:
    """What a model has kept: its loss on solutions, and the drift from its own answers.

    :param own: pairs of a question and the base model's answer.
    :returns: ``own_rise``: nats per token by which those answers became less likely;
        ``gsm8k_rise``: of the loss on solutions; ``gsm8k_text_rise``: the same without what stands
        in them between ``<<`` and ``>>``; all are 0 for the base itself.
    """
    training.prepare(threads)
    loaded, tokenizer = _loaded(base)
    rows = {"own_rise": [_pair(*pair) for pair in own if pair[1].strip()]}
    if gsm8k.is_file():
        read = [json.loads(line) for line in gsm8k.read_text("utf-8").splitlines()]
        solved = [(one["question"], one["answer"]) for one in read[:_SOLUTIONS]]
        rows["gsm8k_rise"] = [_pair(*pair) for pair in solved]
        rows["gsm8k_text_rise"] = [_pair(asked, _SUMS.sub("", told)) for asked, told in solved]
    encoded = {name: encode_probe(tokenizer, made, _CONTEXT) for name, made in rows.items()}
    before = {
        name: mean_loss(row_losses(loaded, made, batch_size=_BATCH))
        for name, made in encoded.items()
    }
    if trained != base:
        loaded = PeftModel.from_pretrained(loaded, str(trained))
    after = {
        name: mean_loss(row_losses(loaded, made, batch_size=_BATCH))
        for name, made in encoded.items()
    }
    return {
        **{name: after[name] - before[name] for name in rows},
        **{f"{name}_before": value for name, value in before.items()},
    }


def _verified(row: Mapping[str, Any], texts: Sequence[str], reward: Reward) -> list[Numbers]:
    """The different answers that meet all constraints, as rows to learn from."""
    messages = [[{"role": "assistant", "content": text}] for text in dict.fromkeys(texts)]
    count = len(messages)
    made = reward(
        prompts=[row["prompt"]] * count,
        completions=messages,
        instruction_id_list=[row["instruction_id_list"]] * count,
        kwargs=[row["kwargs"]] * count,
    )
    return [
        {"prompt": row["prompt"], "completion": answer}
        for answer, score in zip(messages, made, strict=True)
        if score is not None and score >= 1.0
    ]


def _loaded(folder: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def _rows(count: int, seed: int) -> list[dict[str, Any]]:
    return list(Generator(path=str(plain_file()), maximum=3)(count=count, seed=seed))


def _fields(model: Path) -> dict[str, Any]:
    """The fields of GRPOConfig that ``risen adapt`` trains such a model with."""
    parts = recipe(kind_of(str(model)), adds_constraints=True)
    return effective_grpo(parts.get("risen", {}).get("grpo", {}))


def _lora() -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def _pair(prompt: str, completion: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


def _logs(trainer: Any, name: str) -> list[Mapping[str, Any]]:
    return [one for one in trainer.state.log_history if name in one]
