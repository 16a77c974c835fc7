"""The rewards that come with risen-plugin, called as TRL calls them."""

from __future__ import annotations

import pickle
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from risen_plugin.builtin import rewards
from risen_plugin.builtin.rewards import Constraints, Exact, Length, Regex
from risen_plugin.contracts import Failed, without_thinking
from risen_plugin.errors import DataError
from risen_plugin.plugins import Plugins
from risen_plugin.testing import REWARD_CHECKS

TITLE, NO_COMMA = "detectable_format:title", "punctuation:no_comma"
REWARDS = (
    (Exact(), {"answer": "yes"}),
    (Exact(column="gold", normalize=False), {"gold": 7}),
    (Regex(r"\d+", full=True), {}),
    (Regex("yes", must_match=False), {}),
    (Length(2, 5), {}),
    (Length(1, 5, slack=0), {}),
    (Constraints(), {"instruction_id_list": [TITLE, NO_COMMA], "kwargs": [{}, {}]}),
    (Constraints(partial=False), {"instruction_id_list": [NO_COMMA], "kwargs": [{}]}),
)


def score(reward: Any, *texts: str, prompts: list[Any] | None = None, **columns: Any) -> Any:
    return reward(prompts=prompts or ["Ask."] * len(texts), completions=list(texts), **columns)


@pytest.mark.parametrize("check", REWARD_CHECKS)
@pytest.mark.parametrize(("reward", "columns"), REWARDS, ids=lambda value: repr(value)[:40])
def test_every_reward_keeps_the_contract(reward: Any, columns: Any, check: Any) -> None:
    check(reward, **columns)


@pytest.mark.parametrize(("reward", "columns"), REWARDS, ids=lambda value: repr(value)[:40])
def test_a_blank_answer_never_scores(reward: Any, columns: Any) -> None:
    rows = {name: [value] * 2 for name, value in columns.items()}
    assert score(reward, "", " \n", **rows) == [0.0, 0.0]
    assert score(reward, "\u200b\u2060", "\ufeff \u3164", **rows) == [0.0, 0.0]


@pytest.mark.parametrize(("reward", "columns"), REWARDS, ids=lambda value: repr(value)[:40])
def test_equal_options_make_equal_rewards(reward: Any, columns: Any) -> None:
    twin = pickle.loads(pickle.dumps(reward))
    assert twin == reward
    assert hash(twin) == hash(reward)
    assert set(columns) == set(twin.needs)


def test_they_are_offered_under_their_names() -> None:
    plugins = Plugins()
    plugins.register(rewards, "risen_plugin.builtin.rewards")
    for name, made in (("exact", Exact()), ("constraints", Constraints())):
        assert plugins.build("reward", name, {}) == made
    assert plugins.build("reward", "length", {"low": 1, "high": 2}) == Length(1, 2)
    assert plugins.build("reward", "regex", {"pattern": "x"}) == Regex("x")


@pytest.mark.parametrize(
    ("reward", "text", "answer", "expected"),
    [
        (Exact(), "Yes", "yes", 1.0),
        (Exact(), "  two\n words ", "Two Words", 1.0),
        (Exact(), "yes.", "yes", 0.0),
        (Exact(), "42", 42, 1.0),
        (Exact(), "anything", None, None),
        (Exact(), "anything", " ", None),
        (Exact(), "", "yes", 0.0),
        (Exact(normalize=False), "Yes", "yes", 0.0),
        (Exact(normalize=False), "yes ", "yes", 0.0),
        (Exact(normalize=False), "yes", "yes", 1.0),
    ],
)
def test_exact(reward: Exact, text: str, answer: Any, expected: float | None) -> None:
    assert score(reward, text, answer=[answer]) == [expected]


def test_exact_reads_the_column_it_is_told() -> None:
    assert Exact(column="gold").needs == ("gold",)
    assert score(Exact(column="gold"), "yes", gold=["yes"], answer=["no"]) == [1.0]


@pytest.mark.parametrize(
    ("reward", "text", "expected"),
    [
        (Regex("yes"), "oh yes!", 1.0),
        (Regex("yes"), "YES", 0.0),
        (Regex("(?i)yes"), "YES", 1.0),
        (Regex("yes", full=True), "oh yes", 0.0),
        (Regex("yes", full=True), " yes\n", 1.0),
        (Regex("yes", must_match=False), "oh yes!", 0.0),
        (Regex("yes", must_match=False), "no", 1.0),
        (Regex("yes", must_match=False, full=True), "oh yes", 1.0),
        (Regex("^$"), "", 0.0),
    ],
)
def test_regex(reward: Regex, text: str, expected: float) -> None:
    assert score(reward, text) == [expected]


@pytest.mark.parametrize(
    ("words", "expected"),
    [(0, 0.0), (1, 0.0), (4, 0.75), (5, 1.0), (8, 1.0), (10, 0.5), (12, 0.0), (99, 0.0)],
)
def test_length_is_a_band_with_slopes(words: int, expected: float) -> None:
    assert score(Length(5, 8, slack=4), "word " * words) == [expected]


def test_length_without_slack_has_hard_edges() -> None:
    assert score(Length(2, 3, slack=0), "a", "a b", "a b c", "a b c d") == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Regex("("), r"pattern '\(' is no regular expression: missing \)"),
        (lambda: Length(5, 2), r"low \(5\) must not be above high \(2\)"),
        (lambda: Length(-1, 2), "low and slack must be at least 0"),
        (lambda: Length(0, 0), "high at least 1"),
        (lambda: Length(0, 1, slack=-1), "slack must be at least 0"),
    ],
)
def test_bad_options_are_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_constraints_gives_the_share_that_is_met() -> None:
    ids, kwargs = [TITLE, NO_COMMA, "startend:quotation"], [{}, {}, {}]
    rows = {"instruction_id_list": [ids, ids], "kwargs": [kwargs, kwargs]}
    texts = ('"<<T>> text"', "<<T>> one; two")
    assert score(Constraints(), *texts, **rows) == [1.0, pytest.approx(2 / 3)]
    assert score(Constraints(partial=False), *texts, **rows) == [1.0, 0.0]


@pytest.mark.parametrize(("ids", "kwargs"), [([], []), (None, None), ([], None)])
def test_constraints_abstains_on_rows_without_any(ids: Any, kwargs: Any) -> None:
    rows = {"instruction_id_list": [ids, [NO_COMMA]], "kwargs": [kwargs, [{}]]}
    assert score(Constraints(), "a, b", "a b", **rows) == [None, 1.0]


def test_constraints_takes_the_users_last_message_for_the_prompt() -> None:
    chat = [
        {"role": "user", "content": "Name a lake."},
        {"role": "assistant", "content": "Como."},
        {"role": "user", "content": "Name a river."},
    ]
    rows = {"instruction_id_list": [["combination:repeat_prompt"]], "kwargs": [[{}]]}
    assert score(Constraints(), "Name a river. Po.", prompts=[chat], **rows) == [1.0]
    assert score(Constraints(), "Name a lake. Garda.", prompts=[chat], **rows) == [0.0]


def test_constraints_reads_kwargs_as_datasets_writes_them() -> None:
    """``datasets`` gives every kwargs of a column the keys of all of them, null where absent."""
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list(
        [
            {
                "instruction_id_list": ["keywords:existence", "length_constraints:number_words"],
                "kwargs": [{"keywords": ["po"]}, {"num_words": 3, "relation": "less than"}],
            },
            {"instruction_id_list": [NO_COMMA], "kwargs": [{}]},
        ]
    )
    rows = {name: list(table[name]) for name in table.column_names}
    assert rows["kwargs"][0][0]["num_words"] is None
    assert score(Constraints(), "the Po", "a, b", **rows) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("reward", "rows", "message"),
    [
        (Exact(), {"anwser": ["a", "b"]}, "no column 'answer'; did you mean 'anwser'.*have: anws"),
        (Exact(), {}, "no column 'answer'; they have: none"),
        (Exact(), {"answer": ["a", ["b"]]}, "row 2 of the batch: column 'answer' must be a text"),
        (Exact(), {"answer": ["a"]}, "2 completions but 1 values of the column 'answer'"),
        (Constraints(), {"kwargs": [[], []]}, "no column 'instruction_id_list'"),
        (
            Constraints(),
            {"instruction_id_list": [[NO_COMMA], ["punctuation:no_coma"]], "kwargs": [[{}], [{}]]},
            "row 2 of the batch: unknown constraint 'punctuation:no_coma'; did you mean",
        ),
        (
            Constraints(),
            {"instruction_id_list": [[NO_COMMA], [NO_COMMA]], "kwargs": [[{}], [{"n": 1}]]},
            "row 2 of the batch: constraint 'punctuation:no_comma': no kwarg 'n'",
        ),
        (
            Constraints(),
            {"instruction_id_list": [[NO_COMMA], "x"], "kwargs": [[{}], [{}]]},
            "row 2 of the batch: instruction_id_list must be a list",
        ),
    ],
)
def test_bad_rows_are_errors_that_name_the_row(reward: Any, rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        score(reward, "a", "b", **rows)
    assert "\n" not in str(caught.value)


THOUGHT = "<think>First, a number: 7.</think>\n\n"


@pytest.mark.parametrize(
    ("reward", "columns", "answer"),
    [
        (Exact(strip_thinking=True), {"answer": ["yes"]}, "yes"),
        (Regex("7", must_match=False, strip_thinking=True), {}, "yes"),
        (Length(1, 1, slack=0, strip_thinking=True), {}, "yes"),
        (
            Constraints(strip_thinking=True),
            {"instruction_id_list": [[NO_COMMA]], "kwargs": [[{}]]},
            "yes",
        ),
    ],
)
def test_thinking_sections_can_be_left_out_of_account(
    reward: Any, columns: Any, answer: str
) -> None:
    kept = replace(reward, strip_thinking=False)
    chat = [{"role": "assistant", "content": THOUGHT + answer}]

    assert score(reward, THOUGHT + answer, **columns) == [1.0]
    assert reward(prompts=["Ask."], completions=[chat], **columns) == [1.0]
    assert score(reward, f"<think>{answer}", **columns) == [0.0]  # no answer after it
    assert score(kept, THOUGHT + answer, **columns) == [0.0]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>a</think>\n\nb", "b"),
        ("a</think>b", "b"),  # it was opened by the chat template
        ("<think>a", ""),
        ("[THINK]a[/THINK]b", "b"),
        ("b <thinking>a</thinking>b", "b b"),
        ("<thin> b", "<thin> b"),
    ],
)
def test_what_is_a_thinking_section(text: str, left: str) -> None:
    assert without_thinking(text) == left


EVIL = r"^(\w|\w\w|\w\w\w)+$"


def test_a_pattern_that_never_ends_costs_a_second_and_no_verdict() -> None:
    began = time.perf_counter()
    scores = score(Regex(EVIL, limit_s=0.1), "a" * 200 + "!", "ab")

    assert time.perf_counter() - began < 2
    assert isinstance(scores[0], Failed)
    assert "longer than limit_s = 0.1" in scores[0].reason
    assert scores[1] == 1.0


def test_a_pattern_under_way_lets_other_threads_run() -> None:
    reward = Regex(EVIL, limit_s=2.0)
    thread = threading.Thread(target=score, args=(reward, "a" * 200 + "!"), daemon=True)
    thread.start()
    counted = 0
    began = time.perf_counter()
    while thread.is_alive() and time.perf_counter() - began < 0.2:
        counted += 1
    assert counted > 1000  # Python's own engine would not have come back
