"""Anchors: the model's own answers, from whose distribution a phase may not drift for nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.builtin.generators.anchor_prompts import AnchorPrompt, anchor_prompts
from risen_plugin.config import AnchorConfig
from risen_plugin.errors import ConfigError, DataError
from risen_plugin.instructions.plain import exact_tasks, plain_prompts, short_questions
from risen_plugin.phases.anchoring import _strewn
from risen_plugin.training.anchoring import Anchor, Anchors, anchored, divergence

ANSWERED = [([5, 6, 7], [8, 9]), ([5], [4, 3, 2, 1]), ([9, 9, 9, 9], [7])]


def anchors_of(model: Any, likeliest: int) -> list[Anchor]:
    return anchored(model, ANSWERED, likeliest=likeliest, batch_size=2, precision=None)


def whole_divergence(then: Any, now: Any) -> list[float]:
    """The mean KL over the whole vocabulary, each answer alone."""
    found = []
    for asked, answer in ANSWERED:
        ids = torch.tensor([asked + answer])
        with torch.no_grad():
            first, second = (
                model.eval()(ids).logits[0, len(asked) - 1 : -1].log_softmax(-1)
                for model in (then, now)
            )
        kl = torch.nn.functional.kl_div(second, first, log_target=True, reduction="none").sum(-1)
        found.append(float(kl.mean()))
    return found


def test_with_all_tokens_told_apart_it_is_the_kl_divergence(
    make_model: Callable[..., Any],
) -> None:
    then, now = make_model(seed=0), make_model(seed=1)
    found = divergence(now.eval(), anchors_of(then, 288))
    # The rest, of which nothing is left, is bounded at 1e-6.
    assert found.tolist() == pytest.approx(whole_divergence(then, now), abs=2e-5)


@pytest.mark.parametrize("likeliest", [1, 4, 64])
def test_with_fewer_told_apart_it_is_never_above_that(
    make_model: Callable[..., Any], likeliest: int
) -> None:
    then, now = make_model(seed=0), make_model(seed=1)
    found = divergence(now.eval(), anchors_of(then, likeliest)).tolist()
    for part, whole in zip(found, whole_divergence(then, now), strict=True):
        assert 0.0 < part <= whole + 1e-5


def test_the_model_itself_is_at_no_distance_and_pulled_nowhere(
    make_model: Callable[..., Any],
) -> None:
    model = make_model()
    found = divergence(model, anchors_of(model, 16))
    found.sum().backward()
    assert found.tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    assert max(float(p.grad.abs().max()) for p in model.parameters()) < 1e-6


def test_making_anchors_leaves_the_model_in_its_modes(make_model: Callable[..., Any]) -> None:
    model = make_model().train()
    made = anchors_of(model, 16)
    assert all(module.training for module in model.modules())
    assert [(len(one.ids), one.first, tuple(one.likely.shape)) for one in made] == [
        (5, 3, (2, 16)),
        (5, 1, (4, 16)),
        (5, 4, (1, 16)),
    ]


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(1, 12),
)
def test_the_kinds_of_anchors_take_turns_and_so_do_those_of_a_kind(
    sizes: list[int], each_step: int, batches: int, steps: int
) -> None:
    kinds = [
        [Anchor([kind, at], 0, torch.empty(0), torch.empty(0)) for at in range(size)]
        for kind, size in enumerate(sizes)
    ]
    anchors = Anchors(kinds, each_step, 1.0)
    read = [one.ids for batch in range(steps * batches) for one in anchors.of(batch, batches)]
    assert len(read) == steps * each_step
    there = [(kind, size) for kind, size in enumerate(sizes) if size]
    assert [kind for kind, _ in read] == [
        there[place % len(there)][0] for place in range(len(read))
    ]
    for kind, size in there:
        of_the_kind = [at for one, at in read if one == kind]
        assert of_the_kind == [turn % size for turn in range(len(of_the_kind))]


def test_a_process_without_anchors_reads_none() -> None:
    assert Anchors([], 8, 1.0).of(3, 4) == Anchors([[]], 8, 1.0).of(3, 4) == []


def test_a_text_is_a_message_of_the_users_where_the_model_chats(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    chat = [{"role": "user", "content": "b"}]
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("a", chat)))
    config = AnchorConfig(prompts=path)
    as_chat = [{"role": "user", "content": "a"}]
    assert anchor_prompts(config, chats=False) == [[AnchorPrompt("a"), AnchorPrompt(chat)]]
    assert anchor_prompts(config, chats=True) == [[AnchorPrompt(as_chat), AnchorPrompt(chat)]]
    assert anchor_prompts(AnchorConfig(prompts=["a"]), chats=False) == [[AnchorPrompt("a")]]


@pytest.mark.parametrize(("answer", "read"), [("b c", "b c"), ("", None), (None, None), (3, None)])
def test_a_row_may_bring_its_answer(answer: Any, read: str | None) -> None:
    config = AnchorConfig(prompts=[{"prompt": "a", "answer": answer}])
    assert anchor_prompts(config, chats=False) == [[AnchorPrompt("a", read)]]


def test_the_package_has_anchors_of_three_kinds() -> None:
    of_the_package = anchor_prompts(AnchorConfig(), chats=False)
    made = [plain_prompts(), short_questions(), exact_tasks()]
    assert of_the_package == [[AnchorPrompt(prompt) for prompt in kind] for kind in made]
    assert [len(kind) for kind in made] == [525, 260, 100]  # as the announced time reckons


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"marks": "yes"}, "anchor.marks is 'yes'; it is true or false"),
        ({"prompts": [""]}, r"anchor.prompts: .*\[0\] is no prompt"),
        ({"prompts": [{"text": "a"}]}, "has no 'prompt' in it"),
        ({"prompts": 3}, "anchor.prompts is 3; it is the path of a JSON Lines file"),
        ({"prompts": []}, "anchor.prompts is .*; it is the path"),
        ({"prompts": "plane"}, "anchor.prompts: there is no file 'plane'"),
        ({"weight": -1.0}, "anchor.weight is -1"),
        ({"rows": 0}, "anchor.rows is 0"),
        ({"wieght": 1.0}, "did you mean 'weight'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        anchor_prompts(AnchorConfig(**config), chats=True)


class Words:
    """A tokenizer of which ids below 10 are special and have no text."""

    eos_token_id = 1

    def batch_decode(self, rows: list[list[int]], **options: Any) -> list[str]:
        return [" ".join(f"w{id_}" for id_ in row if id_ >= 10) for row in rows]

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [10 + len(word) for word in text.split()]}


@pytest.mark.parametrize(
    ("answer", "length"),
    [([1], 1), ([5, 5], 2), ([12, 13], 2), ([12, 13, 1], 3), ([12] * 60, 8)],
    ids=["an end", "no text", "cut", "ended", "long"],
)
def test_an_answer_with_marks_put_in_is_never_empty_and_ends_as_it_did(
    make_model: Callable[..., Any], answer: list[int], length: int
) -> None:
    """Of no token there would be no divergence, but what is no number."""
    context: Any = SimpleNamespace(tokenizer=Words(), model=make_model())
    made = _strewn(context, answer, 8, random.Random(0))
    assert len(made) == length
    assert (made[-1] == 1) == (answer[-1] == 1)
