"""The rows that are measured through the outer Trainer are those that were asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from risen_plugin.training.outer_trainer import OuterTrainer


class Counting(Trainer):
    """Measures how many rows it was given."""

    def evaluation_loop(self, dataloader: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        return SimpleNamespace(metrics={"domain_rows": float(len(dataloader.dataset))})


@pytest.mark.parametrize("persistent", [False, True])
def test_persistent_workers_of_the_trainer_load_the_rows_of_the_domain(
    tmp_path: Any, persistent: bool
) -> None:
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        dataloader_num_workers=1,
        dataloader_persistent_workers=persistent,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
    )
    rows = Dataset.from_dict({"x": [[float(n)] for n in range(8)]})
    trainer = Counting(
        torch.nn.Linear(1, 1),
        arguments,
        eval_dataset=rows,
        compute_metrics=lambda prediction: {},
    )
    kept = trainer.get_eval_dataloader()  # an evaluation before, whose loader is kept
    measure = OuterTrainer(trainer).domain(3)
    assert measure is not None
    assert measure() == {"rows": 3.0}
    assert trainer.args.dataloader_persistent_workers is persistent
    assert (trainer.get_eval_dataloader() is kept) is persistent
