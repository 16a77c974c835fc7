"""The public forms of rows with constraints: what becomes of them, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from risen_plugin.builtin.generators.forms import adapted, form_of
from risen_plugin.builtin.generators.jsonl import Jsonl
from risen_plugin.constraints import KNOWN, check_all
from risen_plugin.errors import ConfigError, DataError

ABSENT = {"N": None, "quantifier": None, "keyword_list": None, "word": None, "options": None}
CHAT = [{"role": "user", "content": "Why? Answer so."}]


def rlvr(name: str, **arguments: Any) -> dict[str, Any]:
    truth = json.dumps({"func_name": name, **ABSENT, **arguments})
    return {"messages": CHAT, "ground_truth": truth, "dataset": "ifeval", "constraint": "so"}


def multi(*parts: Any) -> dict[str, Any]:
    return {"messages": CHAT, "ground_truth": str(list(parts))}


def asked(row: dict[str, Any], form: Any = "rlvr") -> list[tuple[str, Any]]:
    made = adapted(row, form, "here")
    return list(zip(made["instruction_id_list"], made["kwargs"], strict=True))


WORDS, LETTERS = "length_constraints:number_words", "keywords:letter_frequency"


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("verify_keywords", {"keyword_list": ["a"]}, [("keywords:existence", {"keywords": ["a"]})]),
        (
            "verify_keyword_frequency",
            {"word": "sea", "N": 3},
            [
                (
                    "keywords:frequency",
                    {"keyword": "sea", "frequency": 3, "relation": "at least"},
                ),
                (
                    "keywords:frequency",
                    {"keyword": "sea", "frequency": 4, "relation": "less than"},
                ),
            ],
        ),
        (
            "verify_letter_frequency",
            {"letter": "q", "N": 0},
            [(LETTERS, {"letter": "q", "let_frequency": 1, "let_relation": "less than"})],
        ),
        (
            "validate_forbidden_words",
            {"forbidden_words": ["no"]},
            [("keywords:forbidden_words", {"forbidden_words": ["no"]})],
        ),
        (
            "validate_word_constraint",
            {"N": 50, "quantifier": "at least"},
            [(WORDS, {"num_words": 50, "relation": "at least"})],
        ),
        (
            "validate_word_constraint",
            {"N": 50, "quantifier": "at most"},
            [(WORDS, {"num_words": 51, "relation": "less than"})],
        ),
        (
            "validate_word_constraint",
            {"N": 50, "quantifier": "around"},
            [
                (WORDS, {"num_words": 45, "relation": "at least"}),
                (WORDS, {"num_words": 56, "relation": "less than"}),
            ],
        ),
        (
            "verify_sentence_constraint",
            {"N": 1, "quantifier": "around"},
            [
                (
                    "length_constraints:number_sentences",
                    {"num_sentences": 3, "relation": "less than"},
                )
            ],
        ),
        (
            "validate_paragraphs",
            {"N": 3, "i": 2, "first_word": "then"},
            [
                (
                    "length_constraints:nth_paragraph_first_word",
                    {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "then"},
                )
            ],
        ),
        (
            "verify_postscript",
            {"postscript_marker": "P.S."},
            [("detectable_content:postscript", {"postscript_marker": "P.S."})],
        ),
        (
            "validate_placeholders",
            {"N": 2},
            [("detectable_content:number_placeholders", {"num_placeholders": 2})],
        ),
        (
            "verify_bullet_points",
            {"N": 2},
            [("detectable_format:number_bullet_lists", {"num_bullets": 2})],
        ),
        ("validate_title", {}, [("detectable_format:title", {})]),
        (
            "validate_choice",
            {"options": ["My answer is no.", "My answer is yes.", "My answer is maybe."]},
            [("detectable_format:constrained_response", {})],
        ),
        (
            "validate_highlighted_sections",
            {"N": 2},
            [("detectable_format:number_highlighted_sections", {"num_highlights": 2})],
        ),
        (
            "validate_sections",
            {"N": 2, "section_splitter": "Part"},
            [
                (
                    "detectable_format:multiple_sections",
                    {"num_sections": 2, "section_spliter": "Part"},
                )
            ],
        ),
        ("validate_json_format", {}, [("detectable_format:json_format", {})]),
        (
            "validate_repeat_prompt",
            {"original_prompt": "Why?"},
            [("combination:repeat_prompt", {"prompt_to_repeat": "Why?"})],
        ),
        ("validate_two_responses", {}, [("combination:two_responses", {})]),
        ("validate_uppercase", {}, [("change_case:english_capital", {})]),
        ("validate_lowercase", {}, [("change_case:english_lowercase", {})]),
        (
            "validate_frequency_capital_words",
            {"N": 4, "quantifier": "at most"},
            [
                (
                    "change_case:capital_word_frequency",
                    {"capital_frequency": 5, "capital_relation": "less than"},
                )
            ],
        ),
        (
            "validate_end",
            {"end_phrase": "Bye."},
            [("startend:end_checker", {"end_phrase": "Bye."})],
        ),
        ("validate_quotation", {}, [("startend:quotation", {})]),
        ("validate_no_commas", {}, [("punctuation:no_comma", {})]),
    ],
)
def test_each_function_of_rlvr_rows_has_its_constraints(
    name: str, arguments: dict[str, Any], expected: list[Any]
) -> None:
    found = asked(rlvr(name, **arguments))
    assert found == expected
    check_all("text", [id_ for id_, _ in found], [kwargs for _, kwargs in found])


@pytest.mark.parametrize(("words", "passes"), [(44, False), (45, True), (55, True), (56, False)])
def test_around_means_a_tenth_more_or_less(words: int, passes: bool) -> None:
    pairs = asked(rlvr("validate_word_constraint", N=50, quantifier="around"))
    checks = check_all("word " * words, [p[0] for p in pairs], [p[1] for p in pairs])
    assert all(checks) is passes


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("verify_paragraph_count", {"N": 2}, r"no equivalent here: .*'\* \* \*'"),
        ("validate_choice", {"options": ["A", "B"]}, "no equivalent here"),
        ("validate_titel", {}, r"unknown func_name 'validate_titel'; did you mean"),
        ("validate_word_constraint", {"N": 5}, "needs the argument 'quantifier'"),
        ("validate_word_constraint", {"N": 5, "quantifier": "some"}, "not 'some'"),
        ("validate_word_constraint", {"N": "5", "quantifier": "around"}, "whole number, not '5'"),
        ("validate_placeholders", {"N": 2.5}, "'num_placeholders' must be a whole number"),
        ("verify_letter_frequency", {"letter": "ab", "N": 1}, "must be one character, not 'ab'"),
    ],
)
def test_what_no_constraint_can_check_is_an_error_that_names_the_row(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=rf"^rows\[0\]: .*{message}") as caught:
        list(Jsonl(rows=[rlvr(name, **arguments)])(count=1, seed=0))
    assert "unusable: skip" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_that_cannot_be_used_can_be_left_out_and_are_counted() -> None:
    rows = [
        rlvr("validate_title"),
        rlvr("verify_paragraph_count", N=2),
        rlvr("verify_paragraph_count", N=3),
        rlvr("validate_sections", N=2),
        rlvr("validate_quotation"),
    ]
    generator = Jsonl(rows=rows, unusable="skip", shuffle=False)
    drawn = [row["instruction_id_list"] for row in generator(count=4, seed=0)]
    title, quotation = ["detectable_format:title"], ["startend:quotation"]
    assert drawn == [title, quotation, title, quotation]
    assert generator.report().dropped == {
        "no check for verify_paragraph_count": 2,
        "wrong arguments of validate_sections": 1,
    }
    assert generator.report().kept == 2


def test_rows_without_constraints_are_left_out_where_others_state_some() -> None:
    """As in what a server has logged, where not every request names constraints."""
    stated = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    rows = [{"prompt": "a"}, {"prompt": "b", **stated}, {"prompt": "c", "instruction_id_list": []}]
    generator = Jsonl(rows=rows, unusable="skip", shuffle=False)
    assert [row["prompt"] for row in generator(count=2, seed=0)] == ["b", "b"]
    assert generator.columns == ("instruction_id_list", "kwargs")
    assert generator.report().dropped == {"no constraints stated": 2}
    plain = Jsonl(rows=rows[:1], unusable="skip")
    assert [row["prompt"] for row in plain(count=1, seed=0)] == ["a"], "there is nothing to check"


def test_a_source_without_a_usable_row_is_an_error() -> None:
    generator = Jsonl(rows=[rlvr("verify_paragraph_count", N=2)], unusable="skip")
    with pytest.raises(DataError, match="no usable instructions: 0 kept, 1 dropped"):
        list(generator(count=1, seed=0))


def test_adapted_rows_have_a_prompt_a_family_and_a_level() -> None:
    [row] = Jsonl(rows=[rlvr("verify_keyword_frequency", word="sea", N=3)])(count=1, seed=0)
    assert row["prompt"] == CHAT
    assert (row["family"], row["level"]) == ("keywords", 1)
    assert row["constraint"] == "so"
    assert "messages" not in row


TITLE = {"instruction_id": ["detectable_format:title"], "kwargs": [None]}
TWO = {
    "instruction_id": [WORDS, "punctuation:no_comma"],
    "kwargs": [{"num_words": 9, "relation": "less than", "keyword": None}, {}],
}


@pytest.mark.parametrize(
    "truth",
    [
        str([TWO]),  # a Python literal
        json.dumps([TWO]),
        json.dumps([json.dumps(TWO)]),
        [TWO],
        [json.dumps(TWO)],
    ],
)
def test_multi_rows_are_read_in_each_way_they_are_written(truth: Any) -> None:
    row = {"messages": CHAT, "ground_truth": truth}
    assert form_of(row) == "multi"
    made = adapted(row, "multi", "here")
    assert made["instruction_id_list"] == [WORDS, "punctuation:no_comma"]
    assert made["kwargs"] == [{"num_words": 9, "relation": "less than"}, {}]
    assert (made["family"], made["level"]) == ("length_constraints", 2)


def test_several_mappings_of_a_multi_row_are_asked_together() -> None:
    assert [id_ for id_, _ in asked(multi(TITLE, TWO), "multi")] == [
        "detectable_format:title",
        WORDS,
        "punctuation:no_comma",
    ]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{"instruction_id": ["a:b"], "kwargs": [{}]}], "unknown constraint 'a:b'"),
        ([{"instruction_id": [WORDS], "kwargs": [{"num_words": 9}]}], "'relation' is missing"),
        ([{"instruction_id": [WORDS], "kwargs": []}], "1 ids but 0 kwargs"),
        ([{"instruction_id": [7], "kwargs": [{}]}], "ground_truth must be a list of mappings"),
        ([{"kwargs": [{}]}], "ground_truth must be a list of mappings"),
        ([], "ground_truth must be a list of mappings"),
    ],
)
def test_faulty_multi_rows_are_errors_that_name_the_row(parts: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"^rows\[0\]: .*{message}"):
        list(Jsonl(rows=[multi(*parts)], form="multi")(count=1, seed=0))


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"prompt": "a"}, "plain"),
        ({"prompt": "a", "ground_truth": "42"}, "plain"),
        ({"prompt": "a", "ground_truth": "a text, (unbalanced"}, "plain"),
        ({"prompt": "a", "ground_truth": ["Paris"]}, "plain"),
        ({**rlvr("validate_title"), "instruction_id_list": []}, "plain"),
        (rlvr("validate_title"), "rlvr"),
        ({**rlvr("validate_title"), "ground_truth": ['{"func_name": "validate_title"}']}, "rlvr"),
        (multi(TITLE), "multi"),
        (multi(TITLE, TWO), "multi"),
        ([], "plain"),
    ],
)
def test_the_form_is_known_by_the_row(row: Any, form: str) -> None:
    assert form_of(row) == form


def test_a_later_row_of_another_form_is_an_error_that_names_it() -> None:
    rows = [rlvr("validate_title"), {"messages": CHAT, "ground_truth": "42"}]
    with pytest.raises(DataError, match=r"^rows\[1\]: ground_truth must be a mapping"):
        list(Jsonl(rows=rows)(count=1, seed=0))


def test_a_plain_source_may_have_a_ground_truth_of_its_own() -> None:
    rows = [{"prompt": "a", "ground_truth": "42"}]
    assert list(Jsonl(rows=rows)(count=1, seed=0)) == rows


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(ConfigError, match="form must be one of auto, plain, rlvr, multi"):
        Jsonl(rows=[], form="rlrv")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unusable must be error or skip"):
        Jsonl(rows=[], unusable="drop")  # type: ignore[arg-type]


def test_every_id_that_rows_are_turned_into_is_known_or_said_to_be_unknown() -> None:
    row = rlvr("validate_response_language", language="de")
    if "language:response_language" in KNOWN:
        assert asked(row) == [("language:response_language", {"language": "de"})]
        return
    with pytest.raises(DataError, match="unknown constraint 'language:response_language'"):
        asked(row)


KEYS = json.dumps([{"instruction_id": ["keywords:existence"], "kwargs": [{"keywords": ["sea"]}]}])


def test_a_ground_truth_inside_reward_model_states_constraints() -> None:
    row = {"prompt": "Why?", "reward_model": {"style": "rule", "ground_truth": KEYS}}

    (read,) = Jsonl(rows=[row])(count=1, seed=0)

    assert read["instruction_id_list"] == ["keywords:existence"]
    assert read["kwargs"] == [{"keywords": ["sea"]}]


def test_a_plain_first_row_hides_no_constraints_of_a_later_one() -> None:
    rows = [{"prompt": "1 + 1?", "ground_truth": "2"}, {"prompt": "Why?", "ground_truth": KEYS}]

    read = list(Jsonl(rows=rows, shuffle=False)(count=2, seed=0))

    assert read[1]["instruction_id_list"] == ["keywords:existence"]


@pytest.mark.parametrize("id_", ["fr:keywords:existence", "keywords:existance", "mine:own"])
def test_a_plain_row_with_an_unknown_id_is_unusable(id_: str) -> None:
    right = {"prompt": "Why?", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    wrong = {**right, "instruction_id_list": [id_]}

    with pytest.raises(DataError, match=rf"^rows\[1\]: unknown constraint '{id_}'.*unusable: skip"):
        Jsonl(rows=[right, wrong]).report()
    left = Jsonl(rows=[right, wrong], unusable="skip")
    assert len(left.supply) == 1
    assert left.report().dropped == {f"no check for {id_}": 1}
    assert len(Jsonl(rows=[right, wrong], unusable="keep").supply) == 2


def test_a_language_before_an_id_is_named_as_the_reason() -> None:
    row = {"prompt": "Why?", "instruction_id_list": ["fr:punctuation:no_comma"], "kwargs": [{}]}
    with pytest.raises(DataError, match="did you mean 'punctuation:no_comma'"):
        Jsonl(rows=[row]).report()


@pytest.mark.parametrize(
    "kwargs", ['[{"keywords": ["sea"]}]', ['{"keywords": ["sea"]}'], [{"keywords": ["sea"]}]]
)
def test_kwargs_may_be_json_text(kwargs: Any) -> None:
    row = {"prompt": "Why?", "instruction_id_list": ["keywords:existence"], "kwargs": kwargs}

    (read,) = Jsonl(rows=[row])(count=1, seed=0)

    assert read["kwargs"] == [{"keywords": ["sea"]}]
