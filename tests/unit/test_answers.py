"""Answers of a file are scored row by row, and whatever is wrong with one names its row."""

from __future__ import annotations

import json
import math

import pytest

from risen_plugin.builtin.rewards import Constraints, Exact
from risen_plugin.commands.score.by_row import Scored, score_rows
from risen_plugin.commands.score.rows import Answer, Unusable, read_answers
from risen_plugin.commands.score.summary import summed
from risen_plugin.constraints.judging import judge_row
from risen_plugin.contracts import Failed
from risen_plugin.errors import DataError, PluginError
from risen_plugin.rewards.calling import wrap

NO_COMMA, TITLE = "punctuation:no_comma", "detectable_format:title"
WORDS = "length_constraints:number_words"


def answers(*texts, **columns):
    """One answer per text; ``columns`` are those of every row."""
    return [Answer(n, f"f:{n}", "Ask.", text, columns) for n, text in enumerate(texts, start=1)]


def reward(function, name="mine"):
    return wrap(function, name, f"reward '{name}'")


def outcomes(function, rows, **settings):
    return [scored.outcome for scored in score_rows(reward(function), rows, **settings)]


def reasons(function, rows, **settings):
    """The reasons of errors, and the scores as they are."""
    return [
        outcome.reason if isinstance(outcome, Failed) else outcome
        for outcome in outcomes(function, rows, stop=False, **settings)
    ]


# Rows


def lines(*rows):
    return [(row if isinstance(row, str) else json.dumps(row)).encode() for row in rows]


def test_each_line_is_an_answer_with_its_number_and_its_columns():
    rows = lines(
        {"prompt": "a", "completion": "b", "answer": 3}, "  ", {"prompt": "c", "completion": ""}
    )
    assert list(read_answers(rows, "f")) == [
        Answer(1, "f:1", "a", "b", {"answer": 3}),
        Answer(3, "f:3", "c", "", {}),
    ]


def test_a_chat_is_an_answer_and_columns_may_be_called_otherwise():
    chat = [{"role": "assistant", "content": "b"}]
    [row] = read_answers(
        lines({"q": chat, "a": chat, "prompt": 1}), "f", prompt="q", completion="a"
    )
    assert (row.prompt, row.completion, row.columns) == (chat, chat, {"prompt": 1})


def test_a_byte_order_mark_is_no_part_of_the_first_row():
    assert [row.prompt for row in read_answers([b"\xef\xbb\xbf" + lines(ROW)[0]], "f")] == ["a"]


ROW = {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "f:1 is not JSON: "),
        ("[" * 100_000, "f:1 is not JSON: "),
        ("[1]", "f:1 is of type list, not a mapping of columns"),
        ({"prompt": "a", "compl": "b"}, "f:1 has no column 'completion'; did you mean 'compl'?"),
        ({}, "f:1 has no column 'prompt'; --prompt-column names another. It has: none"),
        ({"completion": "b"}, "f:1 has no column 'prompt'; --prompt-column names another. It has"),
        ({"prompt": " \u200b", "completion": "b"}, "f:1 has an empty prompt in 'prompt'"),
        ('{"prompt": "a",', "f:1 is not JSON: Expecting property name enclosed in double quotes"),
        ('[{"prompt": "a"', "f:1 is not JSON: Expecting ',' delimiter at character 16 (one JSON"),
        (ROW | {"completion": None}, "f:1 has None in 'completion'; that is a text, or a list of"),
        (ROW | {"completion": []}, "f:1 has [] in 'completion'"),
        (ROW | {"completion": [{"role": "assistant"}]}, "f:1 has [{'role': 'assistant'}] in"),
        (ROW | {"prompt": {"role": "user", "content": "a"}}, "f:1 has {'role': 'user', "),
        (ROW | {"prompts": 1}, "f:1 has a column 'prompts', which rewards get as a batch"),
    ],
)  # fmt: skip
def test_a_row_that_holds_no_answer_is_told_and_the_next_one_read(line, reason):
    wrong, right = read_answers(lines(line, ROW), "f")
    assert isinstance(wrong, Unusable)
    assert wrong.reason.startswith(reason)
    assert "\n" not in wrong.reason
    assert isinstance(right, Answer)


def test_a_line_that_is_no_utf8_is_named():
    wrong, right = read_answers([b'{"prompt": "\xff"}', *lines(ROW)], "f")
    assert wrong.reason == "f:1 is no UTF-8: invalid start byte at byte 13"
    assert isinstance(right, Answer)


def test_rows_are_read_as_a_stream():
    def endless():
        while True:
            yield lines(ROW)[0]

    assert next(iter(read_answers(endless(), "f"))).row == 1


# Judging


@pytest.mark.parametrize(
    "columns", [{}, {"instruction_id_list": []}, {"instruction_id_list": None}]
)
def test_a_row_without_constraints_is_not_judged(columns):
    assert judge_row("Ask.", "a", columns) is None


def test_the_question_of_a_chat_stands_in_for_the_prompt_to_repeat():
    chat = [{"role": "user", "content": "Ask."}]
    columns = {"instruction_id_list": ["combination:repeat_prompt"], "kwargs": [{}]}
    [judgement] = judge_row(chat, "Ask. Yes.", columns)
    assert judgement.strict


# Scoring


def test_rows_are_scored_in_batches_and_in_order():
    sizes = []

    def counted(prompts, completions, **columns):
        sizes.append(len(completions))
        return [float(text) for text in completions]

    assert outcomes(counted, answers("1", "2", "3", "4", "5"), batch_size=2) == [1, 2, 3, 4, 5]
    assert sizes == [2, 2, 1]


def test_a_batch_is_asked_for_only_when_it_is_due():
    taken = []

    def rows():
        for answer in answers(*"abcdef"):
            taken.append(answer.row)
            yield answer

    scored = score_rows(reward(lambda completions, **columns: [1] * 2), rows(), batch_size=2)
    next(scored)
    assert taken == [1, 2]


def test_a_reward_is_called_as_trl_calls_it():
    seen = {}

    def looking(**given):
        seen.update(given)
        given["log_extra"]("a", [1])
        given["log_metric"]("a", 1.0)
        return [1.0] * len(given["completions"])

    outcomes(looking, answers("a", "b", family="x"))
    assert seen["prompts"] == ["Ask.", "Ask."]
    assert seen["family"] == ["x", "x"]
    assert "completion_ids" not in seen, "nobody knows the tokens of these answers"
    assert seen["trainer_state"].global_step == seen["trainer_state"].max_steps > 0
    outcomes(looking, answers("a", "b", completion_ids=[3, 4]))
    assert seen["completion_ids"] == [[3, 4], [3, 4]]


def test_a_reward_of_token_ids_is_refused_where_answers_have_none():
    def short(completion_ids, **columns):
        return [1.0 / len(ids) for ids in completion_ids]

    with pytest.raises(DataError, match="lacks the column 'completion_ids', which reward"):
        outcomes(short, answers("a"))
    assert outcomes(short, answers("a", completion_ids=[3, 4])) == [0.5]


def test_an_async_reward_is_awaited():
    async def later(completions, **columns):
        return [0.5] * len(completions)

    assert outcomes(later, answers("a", "b")) == [0.5, 0.5]


def test_an_abstention_and_an_error_that_the_reward_returns_are_outcomes():
    def unsure(completions, **columns):
        return [None, Failed("the judge is down"), 0.25]

    none, failed, score = outcomes(unsure, answers("a", "b", "c"))
    assert (none, failed.reason, score) == (None, "the judge is down", 0.25)


def spoiled(completions, **columns):
    """Raises when any of the batch is bad, as a parser does."""
    if "bad" in completions:
        raise ValueError("it is\nbad")
    return [1.0] * len(completions)


def test_the_row_that_makes_a_batch_fail_is_named():
    with pytest.raises(DataError, match=r"^f:2: reward 'mine' raised ValueError: it is bad$"):
        outcomes(spoiled, answers("a", "bad", "c"))


def test_no_other_row_pays_for_the_one_that_fails():
    assert reasons(spoiled, answers("a", "bad", "c")) == [
        1.0,
        "reward 'mine' raised ValueError: it is bad",
        1.0,
    ]


@pytest.mark.parametrize("score", [math.nan, math.inf, "1", [1.0, 2.0]])
def test_a_score_that_is_none_names_its_row(score):
    def strange(completions, **columns):
        return [score if text == "bad" else 1.0 for text in completions]

    with pytest.raises(DataError, match=r"^f:2: reward 'mine' returned .*; ") as caught:
        outcomes(strange, answers("a", "bad"))
    assert "for completion" not in str(caught.value)
    first, second = reasons(strange, answers("a", "bad"))
    assert first == 1.0
    assert second.startswith("reward 'mine' returned")


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("scores", [[1.0], None, {"a": 1, "b": 2}, "ab", 3.0])
def test_a_wrong_number_of_scores_always_stops(stop, scores):
    with pytest.raises(PluginError, match=r"^reward 'mine' returned [^\n]+$"):
        outcomes(lambda completions, **columns: scores, answers("a", "b"), stop=stop)


def test_a_reward_that_fails_on_batches_alone_always_stops():
    def single(completions, **columns):
        if len(completions) > 1:
            raise ValueError("one at a time")
        return [1.0]

    with pytest.raises(PluginError, match=r"f:1 to row 2: .*one at a time; .*--batch-size 1"):
        outcomes(single, answers("a", "b"), stop=False)


def test_a_column_that_the_first_answer_lacks_stops_before_anything_is_scored():
    def never(completions, answer, **columns):
        raise AssertionError("it was called")

    with pytest.raises(
        DataError, match=r"^f:1 lacks the column 'answer', which reward 'mine' needs"
    ):
        outcomes(never, answers("a", "b"), stop=False)


def test_a_column_that_a_later_answer_lacks_is_that_rows_fault():
    rows = [*answers("a", answer="a"), Answer(2, "f:2", "Ask.", "b", {"anser": "b"})]
    with pytest.raises(DataError, match=r"^f:2 lacks the column 'answer'.*did you mean 'anser'"):
        list(score_rows(reward(Exact()), rows))
    [first, second] = score_rows(reward(Exact()), rows, stop=False)
    assert first.outcome == 1.0
    assert second.outcome.reason.startswith("f:2 lacks the column 'answer'")


def test_a_row_that_cannot_be_read_stops_or_is_an_error():
    rows = [*answers("1"), Unusable(2, "f:2", "f:2 is not JSON"), *answers("3")]
    with pytest.raises(DataError, match=r"^f:2 is not JSON$"):
        outcomes(spoiled, rows)
    before = score_rows(reward(spoiled), rows)
    assert next(before).outcome == 1.0  # what comes before it is not lost
    assert reasons(spoiled, rows) == [1.0, "f:2 is not JSON", 1.0]


def test_an_error_of_a_built_in_reward_speaks_of_the_row_not_of_the_batch():
    rows = answers("a", "b", answer=["no text"])
    with pytest.raises(DataError, match=r"^f:1: reward 'mine': column 'answer' must be a text"):
        list(score_rows(reward(Exact()), rows))


# Constraints


def constrained(*texts, ids=(NO_COMMA, TITLE), kwargs=({}, {})):
    rows = answers(*texts, instruction_id_list=list(ids), kwargs=list(kwargs))
    return list(score_rows(reward(Constraints(), "constraints"), rows, stop=False))


def test_a_row_with_constraints_is_told_constraint_by_constraint():
    [scored] = constrained("Here, my title:\n<<Tea>>")
    assert scored.data() == {
        "row": 1,
        "score": 0.5,
        "outcome": "score",
        "strict": False,
        "loose": True,
        "per_constraint": [False, True],
        "detail": [f"{NO_COMMA}: met loosely (1 comma)", f"{TITLE}: met (the title 'Tea')"],
    }


def test_detail_says_what_was_looked_at():
    [scored] = constrained("a", ids=[WORDS], kwargs=[{"num_words": 9, "relation": "at least"}])
    assert scored.data()["detail"] == [f"{WORDS}: missed (1 word)"]


@pytest.mark.parametrize(
    ("ids", "kwargs", "reason"),
    [
        ([WORDS], [{"num_words": "many", "relation": "at least"}], "kwarg 'num_words' must be"),
        ([WORDS], [{"relation": "at least"}], "kwarg 'num_words' is missing"),
        (["punctuation:no_coma"], [{}], "unknown constraint 'punctuation:no_coma'; did you mean"),
        ([NO_COMMA], [], "instruction_id_list has 1 ids but kwargs has 0"),
    ],
)
def test_kwargs_that_cannot_be_parsed_are_an_error_that_names_the_row(ids, kwargs, reason):
    rows = [*answers("a", instruction_id_list=[NO_COMMA], kwargs=[{}])]
    rows.append(Answer(2, "f:2", "Ask.", "b", {"instruction_id_list": ids, "kwargs": kwargs}))
    mine = reward(Constraints(), "constraints")
    with pytest.raises(DataError) as caught:
        list(score_rows(mine, rows))
    assert str(caught.value).startswith("f:2: ")
    assert reason in str(caught.value)
    first, second = score_rows(mine, rows, stop=False)
    assert first.outcome == 1.0
    assert reason in second.data()["error"]
    assert (second.data()["outcome"], second.data()["score"]) == ("error", None)
    assert "strict" not in second.data()


def test_a_row_without_constraints_abstains():
    [scored] = constrained("a", ids=[], kwargs=[])
    assert scored.data() == {"row": 1, "score": None, "outcome": "abstain"}


def test_a_strangers_own_ids_are_noted_and_hurt_nobody():
    def own(completions, instruction_id_list, **columns):
        return [1.0] * len(completions)

    [scored] = score_rows(reward(own), answers("a", instruction_id_list=["mine:rhyme"]))
    assert scored.outcome == 1.0
    assert scored.data()["detail"] == ["unknown constraint 'mine:rhyme'"]


def test_a_reward_that_does_not_look_at_constraints_is_not_told_by_them():
    rows = answers("a", instruction_id_list=["mine:rhyme"])
    [scored] = score_rows(reward(spoiled), rows)
    assert scored.data() == {"row": 1, "score": 1.0, "outcome": "score"}


# Summary


def test_a_summary_counts_outcomes_and_averages_scores():
    given = [1.0, 0.5, None, Failed("down"), 0.0]
    results = [Scored(n, f"f:{n}", "", outcome) for n, outcome in enumerate(given, start=1)]
    data = summed(results).data()
    assert data["outcomes"] == {"score": 3, "abstain": 1, "error": 1}
    assert (data["rows"], data["mean_score"], data["pass_rate"]) == (5, 0.5, pytest.approx(1 / 3))
    assert data["adherence"] is None


def test_a_summary_has_adherence_and_the_pass_rate_of_each_constraint():
    data = summed(constrained("<<Tea>>", "Here, my title:\n<<Tea>>", "a", "a, b")).data()
    assert data["adherence"] == {"rows": 4, "strict": 0.25, "loose": 0.5}
    assert data["per_constraint"] == {
        TITLE: {"rows": 4, "strict": 0.5, "loose": 0.5},
        NO_COMMA: {"rows": 4, "strict": 0.5, "loose": 0.75},
    }


def test_a_summary_of_nothing_has_no_shares():
    data = summed([]).data()
    assert (data["rows"], data["mean_score"], data["pass_rate"]) == (0, None, None)
