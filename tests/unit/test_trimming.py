"""What is left out of an update has no part in its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from risen_plugin.training.mismatch import WeighedTrainer
from risen_plugin.training.trimming import trimmed


def batch(answers: list[int], prompts: list[int], advantages: list[float]) -> dict[str, Any]:
    """Rows of answers and prompts of so many tokens; each token's id tells where it stood."""
    rows, longest, width = len(answers), 6, 5
    places = torch.arange(longest)
    return {
        "prompt_ids": torch.arange(rows * width).reshape(rows, width),
        "prompt_mask": (torch.arange(width) >= width - torch.tensor(prompts)[:, None]).long(),
        "completion_ids": torch.arange(rows * longest).reshape(rows, longest),
        "completion_mask": (places < torch.tensor(answers)[:, None]).long(),
        "sampling_per_token_logps": torch.zeros(rows, longest),
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": torch.tensor(sum(answers)),
    }


def test_columns_of_padding_and_rows_of_no_advantage_are_left_out() -> None:
    kept = trimmed(batch([2, 6, 4], [3, 5, 2], [1.0, 0.0, -1.0]), drops_rows=True)
    assert kept["completion_ids"].tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]
    assert kept["prompt_ids"].tolist() == [[2, 3, 4], [12, 13, 14]]
    assert kept["sampling_per_token_logps"].shape == (2, 4)
    assert kept["num_items_in_batch"] == 12


def test_rows_stay_where_something_else_weighs_them() -> None:
    kept = trimmed(batch([2, 4], [3, 5], [0.0, 1.0]), drops_rows=False)
    assert kept["completion_ids"].shape == (2, 4)


def test_one_row_and_one_column_stay() -> None:
    kept = trimmed(batch([0, 0], [1, 1], [0.0, 0.0]), drops_rows=True)
    assert kept["completion_mask"].shape == (1, 1)


def test_a_batch_with_images_stays_as_it_is() -> None:
    inputs = {**batch([2, 4], [3, 5], [0.0, 1.0]), "pixel_values": torch.zeros(2, 3)}
    assert trimmed(inputs, drops_rows=True) == inputs


ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 5), st.sampled_from([0.0, 0.5, -1.0])), min_size=1
)


@given(ROWS)
def test_every_token_of_a_row_with_an_advantage_stays(rows: list[tuple[int, int, float]]) -> None:
    answers, prompts, advantages = (list(column) for column in zip(*rows, strict=True))
    whole = batch(answers, prompts, advantages)
    kept = trimmed(whole, drops_rows=True)
    for ids, mask in (("prompt_ids", "prompt_mask"), ("completion_ids", "completion_mask")):
        weighed = whole["advantages"] != 0
        before = whole[ids][weighed][whole[mask][weighed] == 1]
        still = kept["advantages"] != 0
        assert torch.equal(kept[ids][still][kept[mask][still] == 1], before)
    assert int((kept["advantages"] == 0).sum()) == (0 if any(advantages) else 1)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_the_gradient_is_that_of_trl(
    make_model: Callable[..., Any], tokenizer: Any, tmp_path: Path, beta: float
) -> None:
    """Of the same answers, by TRL's own loss and by ours; within 1e-6."""
    inputs = batch([2, 6, 0, 4], [3, 5, 2, 1], [1.0, 0.0, 0.5, -1.0])
    if beta:
        inputs["ref_per_token_logps"] = -torch.ones(4, 6) * math.log(3)
    grads = []
    for way in (WeighedTrainer, GRPOTrainer):
        torch.manual_seed(0)
        trainer: Any = way(
            model=make_model(),
            args=GRPOConfig(
                output_dir=str(tmp_path),
                use_cpu=True,
                bf16=False,
                report_to=[],
                beta=beta,
                num_generations=2,
                per_device_train_batch_size=4,
                loss_type="dapo",
            ),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            train_dataset=Dataset.from_list([{"prompt": "a"}]),
            processing_class=tokenizer,
            peft_config=LoraConfig(target_modules="all-linear", init_lora_weights=False),
        )
        trainer.current_gradient_accumulation_steps = 1
        trainer._compute_loss(trainer.model, dict(inputs)).backward()
        grads.append(
            torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        )
    assert grads[0].abs().max() > 1e-4
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-5)
