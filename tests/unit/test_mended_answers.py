"""What a phase makes of a model's drafts: edited where code can, else asked for again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from risen_plugin.config import GuardConfig, MendingConfig
from risen_plugin.contracts import Row, text_of
from risen_plugin.kit.processes import Processes
from risen_plugin.phases.mending import Mended, mended_answers
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.training.asking import Asking
from risen_plugin.training.imitation import Example

QUESTION = "Why is it so?"
PLAIN_ANSWER = "It is so. That is all."


class Answering:
    """Whoever answers in the model's place, by what stands in the prompt."""

    def __init__(self, tokenizer: Any, answers: dict[str, str]) -> None:
        self.tokenizer, self.answers = tokenizer, answers
        self.asked: list[str] = []

    def greedy(self, model: Any, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        made = []
        for ids in prompts:
            prompt = self.tokenizer.decode(ids)
            self.asked.append(prompt)
            answer = next((told for asked, told in self.answers.items() if asked in prompt), "")
            made.append([*self.tokenizer(answer or PLAIN_ANSWER)["input_ids"], self.end])
        return made

    @property
    def end(self) -> int:
        return int(self.tokenizer.eos_token_id)


def row_of(id_: str, asked: str, **kwargs: Any) -> Row:
    return {
        "prompt": [{"role": "user", "content": f"{QUESTION}\n\n{asked}"}],
        "query": [{"role": "user", "content": QUESTION}],
        "instruction_id_list": [id_],
        "kwargs": [kwargs],
    }


CAPITALS = row_of("change_case:english_capital", "Write in capital letters.")
ZEBRA = row_of("keywords:existence", "Name a zebra.", keywords=["zebra"])


@pytest.fixture
def made_of(tokenizer: Any, make_model: Callable[..., Any]) -> Callable[..., Any]:
    """What is learned from rows, as texts, by whom and how it was asked for."""

    def make(rows: Sequence[Row], **answers: str) -> tuple[Mended, Answering]:
        outside = Answering(tokenizer, answers)
        passes = NamedReward(lambda completions, **_: [1.0] * len(completions), "any", "any")
        context: Any = SimpleNamespace(
            config=SimpleNamespace(mending=MendingConfig(rows=8), guard=GuardConfig()),
            processes=Processes(),
            model=make_model(),
            tokenizer=tokenizer,
            rewards=[passes],
            quiet=True,
        )
        asking = Asking(tokenizer, {"max_completion_length": 64})
        made = mended_answers(context, asking, rows, "", seed=0, outside=outside)  # type: ignore[arg-type]
        return made, outside

    return make


def told(tokenizer: Any, row: Example) -> tuple[str, int]:
    """The answer of a row, and how many of its tokens count most."""
    learned = [place for place, weight in enumerate(row.weights) if weight]
    heaviest = max(row.weights)
    text: str = tokenizer.decode(row.ids[learned[0] :], skip_special_tokens=True)
    return text, sum(weight > 0.9 * heaviest for weight in row.weights)


def test_a_draft_that_code_can_mend_is_asked_for_once_and_without_the_constraint(
    made_of: Callable[..., Any], tokenizer: Any
) -> None:
    made, outside = made_of([CAPITALS])
    assert [told(tokenizer, row)[0] for row in made.rows] == [PLAIN_ANSWER.upper()]
    assert len(outside.asked) == made.asked == 1
    assert "capital letters" not in outside.asked[0]


def test_what_no_edit_can_do_is_asked_for_with_the_constraint_and_learned_whole(
    made_of: Callable[..., Any], tokenizer: Any
) -> None:
    answer = "A zebra is so."
    made, outside = made_of([ZEBRA], zebra=answer)
    [row] = made.rows
    # A byte is a token of this tokenizer, and so is the end.
    assert told(tokenizer, row) == (answer, len(answer) + 1)
    assert ["zebra" in asked for asked in outside.asked] == [False, True]
    assert (made.asked, made.met) == (2, 1)


def test_what_the_model_does_not_meet_when_it_is_asked_either_is_not_learned(
    made_of: Callable[..., Any],
) -> None:
    made, _ = made_of([ZEBRA])
    assert (made.asked, made.met, made.rows) == (2, 0, [])


def test_an_answer_that_was_asked_for_with_the_constraints_is_edited_too(
    made_of: Callable[..., Any], tokenizer: Any
) -> None:
    both = {
        **ZEBRA,
        "instruction_id_list": ["keywords:existence", "startend:quotation"],
        "kwargs": [*ZEBRA["kwargs"], {}],
    }
    made, _ = made_of([both], zebra="A zebra is so.")
    assert [told(tokenizer, row)[0] for row in made.rows] == ['"A zebra is so."']


def test_the_question_of_a_row_is_its_query(made_of: Callable[..., Any]) -> None:
    _, outside = made_of([CAPITALS, ZEBRA])
    assert sum(text_of(CAPITALS["query"]) in asked for asked in outside.asked) == 2
    assert len(outside.asked) == 2  # the question once, and that of the zebra again
