"""CPU seconds of the GRPO inside a RISEN phase against stock ``GRPOTrainer``, in one process.

Both train the embedded model on the same instructions with the same seed, reward and settings, and
sample the same answers. CPU time of the process is compared: unlike wall-clock time it hardly moves
when the machine does other work. Run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import click

SETTINGS: dict[str, Any] = {
    "num_generations": 8,
    "per_device_train_batch_size": 64,
    "max_completion_length": 64,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
}


@click.command()
@click.option("--steps", default=4, show_default=True, help="GRPO steps of each run.")
@click.option("--repeats", default=3, show_default=True, help="Interleaved repetitions.")
def main(steps: int, repeats: int) -> None:
    """Time the same GRPO steps inside a RISEN phase and in a stock GRPOTrainer, in turn."""
    import transformers

    from risen_plugin.embedded import orders

    transformers.logging.set_verbosity_error()
    rows = orders.draw(8 * (steps + 2), 5, wish_counts=(1, 2))
    seconds: dict[str, list[float]] = {"RISEN": [], "stock": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for name, run in (("RISEN", _risen), ("stock", _stock)):
                spent, tokens = run(rows, steps, folder)
                seconds[name].append(spent)
                click.echo(f"{name}: {spent:.2f} s of CPU time, {tokens:.0f} tokens")
    ratio = statistics.median(seconds["RISEN"]) / statistics.median(seconds["stock"])
    click.echo(f"RISEN takes {ratio:.3f} times the stock trainer's CPU time (medians)")


def _model() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from risen_plugin.embedded import base_model

    model = AutoModelForCausalLM.from_pretrained(base_model(), dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(base_model())


def _timed(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _risen(rows: list[dict[str, Any]], steps: int, folder: str) -> tuple[float, float]:
    from transformers import TrainingArguments

    from risen_plugin.builtin.rewards import Constraints
    from risen_plugin.config import LoraSettings
    from risen_plugin.rewards.batch import PassRates
    from risen_plugin.rewards.calling import wrap
    from risen_plugin.rewards.panel import Panel
    from risen_plugin.training.clean_room import clean_room
    from risen_plugin.training.grpo import Plan, build_trainer, train

    outer = TrainingArguments(folder, use_cpu=True, report_to=[])
    rewards = [wrap(Constraints(), "constraints", "reward 'constraints'")]
    panel = Panel(rewards, listeners=[PassRates().take])
    panel.begin(group=SETTINGS["num_generations"])
    stream = itertools.cycle(rows)
    plan = Plan(steps, SETTINGS, LoraSettings(), 0, folder, "RISEN", quiet=True)
    model, tokenizer = _model()
    with clean_room(model, tokenizer):
        trainer = build_trainer(
            model,
            tokenizer,
            panel.trl_rewards,
            lambda count: list(itertools.islice(stream, count)),
            outer=outer,
            plan=plan,
        )
        outcomes: list[Any] = []
        spent = _timed(lambda: outcomes.append(train(trainer, plan)))
    return spent, outcomes[0].last("num_tokens")


def _stock(rows: list[dict[str, Any]], steps: int, folder: str) -> tuple[float, float]:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from risen_plugin.builtin.rewards import Constraints
    from risen_plugin.training.seam import checkpointing_setting

    needed = ("prompt", "instruction_id_list", "kwargs")
    model, tokenizer = _model()
    trainer = GRPOTrainer(
        model,
        reward_funcs=[Constraints().__call__],
        args=GRPOConfig(
            folder,
            max_steps=steps,
            bf16=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            shuffle_dataset=False,
            seed=0,
            **checkpointing_setting(GRPOConfig, False),
            **SETTINGS,
        ),
        train_dataset=Dataset.from_list([{name: row[name] for name in needed} for row in rows]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    trainer.remove_callback(PrinterCallback)
    spent = _timed(trainer.train)
    return spent, trainer.state.log_history[-2]["num_tokens"]


if __name__ == "__main__":
    main()
