"""Reading rows: the logits of their answers, and none of their prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from risen_plugin.training.reading import logits_from

ROWS = [[5, 6, 7, 8, 9], [4, 3], [9, 9, 9]]


def alone(model: Any, row: list[int]) -> torch.Tensor:
    found: torch.Tensor = model(torch.tensor([row])).logits[0]
    return found


@pytest.mark.parametrize("first", [0, 1, 4])
def test_they_are_those_of_each_row_alone(make_model: Callable[..., Any], first: int) -> None:
    model = make_model().eval()
    found = logits_from(model, ROWS, first)
    assert found.shape[:2] == (3, 5 - first)
    for row, logits in zip(ROWS, found, strict=True):
        torch.testing.assert_close(logits[: max(0, len(row) - first)], alone(model, row)[first:])


@pytest.mark.parametrize("is_adapted", [False, True])
def test_the_head_is_not_computed_before_them(
    make_model: Callable[..., Any], is_adapted: bool
) -> None:
    model = make_model()
    places: list[int] = []
    model.get_output_embeddings().register_forward_hook(
        lambda _, args, __: places.append(args[0].shape[1])
    )
    logits_from(get_peft_model(model, LoraConfig(r=2)) if is_adapted else model, ROWS, 3)
    assert places == [2]


def test_a_model_that_computes_all_of_them_says_the_same(make_model: Callable[..., Any]) -> None:
    model = make_model().eval()
    some = logits_from(model, ROWS, 3)
    whole = model.forward

    def forward(input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
        return whole(input_ids, attention_mask=attention_mask, use_cache=use_cache)

    model.forward = forward
    torch.testing.assert_close(logits_from(model, ROWS, 3), some)
