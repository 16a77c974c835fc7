"""What ``rollouts`` measures: one batch of answers, and one stretch of GRPO in its own process."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks import training
from benchmarks.rollouts import PROMPTS
from benchmarks.training import InOrder, Rewards, run_one_phase
from risen_export import Bundle, export
from risen_export.rollouts.sampler import OnnxRollout
from risen_plugin import text_of, use
from risen_plugin.config import GuardConfig, LoraSettings, RisenConfig, effective_grpo
from risen_plugin.embedded import base_model, orders
from risen_plugin.instructions.rows import derived_seed
from risen_plugin.training.outside import factors_of, grouped
from risen_plugin.training.seam import checkpointing_setting

_LORA = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
_TEMPERATURE = 0.7
_HELD_OUT = 128


class Batch:
    """One generation batch that every way answers.

    :param folder: of the model.
    """

    def __init__(self, folder: str, *, group: int, tokens: int, threads: int) -> None:
        training.prepare(threads)
        self.folder, self.tokens, self.threads = folder, tokens, threads
        self.group = group
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        asked = [[{"role": "user", "content": text}] for text in PROMPTS]
        self.prompts = [prompt for prompt in asked for _ in range(group)]

    def way(self, arm: str) -> Callable[[], int]:
        """A function that samples the batch once, and returns how many tokens came."""
        if arm.startswith("trl"):
            return self._by_trl(arm)
        trainer = self._trainer(torch.float32)
        sampler = OnnxRollout(arm, threads=self.threads)(
            model=trainer.model,
            tokenizer=self.tokenizer,
            folder=tempfile.mkdtemp(),
            rows=len(self.prompts),
        )
        asked = self.tokenizer.apply_chat_template(
            self.prompts, add_generation_prompt=True, return_dict=True
        )["input_ids"]

        def sample() -> int:
            sampler.follow(factors_of(trainer.model))
            made = sampler.sample(
                grouped(asked),
                max_new_tokens=self.tokens,
                temperature=_TEMPERATURE,
                ends=trainer.eos_token_ids,
                seed=1,
            )
            return sum(len(one.ids) for group in made for one in group)

        return sample

    def _by_trl(self, arm: str) -> Callable[[], int]:
        dtype = torch.bfloat16 if arm.endswith("bf16") else torch.float32
        trainer = self._trainer(dtype, use_transformers_continuous_batching="continuous" in arm)

        def sample() -> int:
            ids, *_ = trainer._tokenize_prompts(self.prompts)
            made, _ = trainer._generate_single_turn(ids, None, {}, self.group)
            return sum(map(len, made))

        return sample

    def _trainer(self, dtype: torch.dtype, **fields: Any) -> Any:
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype)
        trainer: Any = GRPOTrainer(
            model=model,
            args=GRPOConfig(
                output_dir=tempfile.mkdtemp(),
                bf16=False,  # the weights are what they are
                use_cpu=True,
                report_to=[],
                num_generations=self.group,
                per_device_train_batch_size=len(self.prompts),
                max_completion_length=self.tokens,
                temperature=_TEMPERATURE,
                **fields,
            ),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in self.prompts]),
            processing_class=self.tokenizer,
            peft_config=_LORA,
        )
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in trainer.model.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(0, 1e-3)
        return trainer


@click.command()
@click.argument("arm")
@click.argument("grpo", metavar="GRPO_FIELDS_AS_JSON")
@click.option("--steps", required=True, type=int)
@click.option("--seed", required=True, type=int)
@click.option("--threads", required=True, type=int)
@click.option("--model", default="")
def main(*, arm: str, grpo: str, steps: int, seed: int, threads: int, model: str) -> None:
    """Train once, and print the seconds, the rewards and the int8 bundle's strict adherence."""
    training.prepare(threads)
    folder = model or str(base_model())
    fields = effective_grpo(json.loads(grpo))
    dtype = torch.bfloat16 if arm == "trl-bf16" else torch.float32
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    count = steps * fields["per_device_train_batch_size"] // fields["num_generations"]
    rows = training.instructions(count, 100 + seed)
    with tempfile.TemporaryDirectory() as place:
        run = _stock if arm.startswith("trl") else _risen
        trained, measured = run(arm, loaded, tokenizer, rows, fields, steps, seed, Path(place))
        measured["int8_adherence"] = _adherence(trained, tokenizer, Path(place, "bundle"), rows)
    click.echo(json.dumps(measured))


def _risen(  # noqa: PLR0917 a run, in the order of its making
    arm: str,
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    fields: dict[str, Any],
    steps: int,
    seed: int,
    place: Path,
) -> tuple[Any, dict[str, Any]]:
    guard = GuardConfig(min_gain=-1.0, max_probe_loss_rise=1e9, report_rows=0, rows=32)  # kept
    rollout: Any = "transformers"
    if arm != "transformers":
        rollout = {"use": "onnx", "options": {"precision": arm}, "max_mismatch": None}
    held_out = orders.draw(32, 200, wish_counts=(1, 1, 2), without=orders.prompts(rows))
    config = RisenConfig(
        rewards=Rewards().functions(),
        generator=InOrder(tuple(rows)),
        held_out=InOrder(tuple(held_out)),
        scheduler=use("after", steps=steps),
        probe=orders.draw(16, 300, wish_counts=(0,)),
        guard=guard,
        reserve=0,
        lora=LoraSettings(r=_LORA.r, alpha=_LORA.lora_alpha),
        grpo=fields,
        rollout=rollout,
        seed=seed,
    )
    cpu = _CpuOf("enter_s", "reinforce_s")
    with cpu.watching():
        made = run_one_phase(model, tokenizer, config, place / "run")
    metrics = made.record.metrics
    logs = json.loads((place / "run" / "risen" / "phase-001" / "phase.json").read_text())["logs"]
    return model, {
        "all_s": made.whole_s - metrics["guard_s"],
        "train_s": metrics["reinforce_s"],
        "enter_s": metrics["enter_s"],
        "cpu_s": cpu.seconds,
        "cpu_by_part": cpu.by_part,
        "rewards": [entry["reward"] for entry in logs if "reward" in entry],
        "mismatch_kl": metrics.get("mismatch_kl"),
    }


def _stock(  # noqa: PLR0917 as above
    arm: str,
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    fields: dict[str, Any],
    steps: int,
    seed: int,
    place: Path,
) -> tuple[Any, dict[str, Any]]:
    started, cpu = time.perf_counter(), time.process_time()
    trainer: Any = GRPOTrainer(
        model=model,
        reward_funcs=Rewards().functions(),
        args=GRPOConfig(
            **fields,
            output_dir=str(place),
            max_steps=steps,
            seed=derived_seed(seed, "phase", 1),  # a phase's, so that both sample alike
            shuffle_dataset=False,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            disable_tqdm=True,
            **checkpointing_setting(GRPOConfig, False),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=_LORA,
    )
    trainer.train()
    logs = trainer.state.log_history
    return trainer.model, {
        "all_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "rewards": [entry["reward"] for entry in logs if "reward" in entry],
    }


def _adherence(trained: Any, tokenizer: Any, out: Path, rows: list[dict[str, Any]]) -> float:
    """The share of held-out instructions that the int8-fast bundle of a model follows."""
    export("trained", out, ("int8-fast",), model=trained, tokenizer=tokenizer, check=False,
           progress=False)  # fmt: skip
    asked = orders.draw(_HELD_OUT, 400, wish_counts=(1, 1, 2), without=orders.prompts(rows))
    made = Bundle.open(out, "int8-fast").generate([row["prompt"] for row in asked],
                                                  max_new_tokens=64)  # fmt: skip
    columns = {name: [row.get(name) for row in asked] for name in asked[0]}
    columns["prompts"] = columns.pop("prompt")
    columns.pop("completion", None)
    answers = [[{"role": "assistant", "content": text}] for text in made]
    ids = [tokenizer(text_of(answer))["input_ids"] for answer in answers]
    scores = [
        reward(completions=answers, completion_ids=ids, **columns)
        for reward in Rewards().functions()
    ]
    passed = [
        all(score is None or score >= 1.0 for score in each) for each in zip(*scores, strict=True)
    ]
    return sum(passed) / len(passed)


class _CpuOf:
    """The CPU seconds of a phase without those of its guard's measurements."""

    def __init__(self, *parts: str) -> None:
        self.by_part = dict.fromkeys(parts, 0.0)

    @property
    def seconds(self) -> float:
        return sum(self.by_part.values())

    def watching(self) -> Any:
        from contextlib import contextmanager
        from unittest import mock

        from risen_plugin.phases.trial import Stopwatch

        timed = Stopwatch.time

        @contextmanager
        def time_too(watch: Any, name: str, **more: Any) -> Any:
            began = time.process_time()
            with timed(watch, name, **more):
                yield
            if name in self.by_part:
                self.by_part[name] += time.process_time() - began

        return mock.patch.object(Stopwatch, "time", time_too)


if __name__ == "__main__":
    main()
