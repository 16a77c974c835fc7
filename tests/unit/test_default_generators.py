"""The generators that come with risen-plugin: which rows, in which order, and what is refused."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.builtin import generators
from risen_plugin.builtin.generators import Constraints, Evolve, Jsonl, Rewrite
from risen_plugin.constraints import KNOWN, check_all, clash, parse
from risen_plugin.constraints.made_to_order.construct import satisfying
from risen_plugin.errors import ConfigError, DataError
from risen_plugin.plugins import Plugins
from risen_plugin.testing import check_generator

ROOT = Path(__file__).parents[2]
ROWS = [{"prompt": f"Question {i}?", "answer": str(i)} for i in range(10)]
TITLE, NO_COMMA, JSON = (
    "detectable_format:title",
    "punctuation:no_comma",
    "detectable_format:json_format",
)


def draw(generator: Any, count: int, seed: int = 0, **context: Any) -> list[Any]:
    return list(generator(count=count, seed=seed, pass_rates={}, **context))


def write_lines(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


# jsonl


def test_the_rows_come_whole_in_a_seeded_order() -> None:
    rows = draw(Jsonl(rows=ROWS), 10, seed=1)
    assert sorted(rows, key=lambda row: row["prompt"]) == ROWS
    assert rows != ROWS
    assert rows == draw(Jsonl(rows=ROWS), 10, seed=1)
    assert rows != draw(Jsonl(rows=ROWS), 10, seed=2)


def test_without_shuffling_they_come_in_the_order_of_the_source() -> None:
    assert draw(Jsonl(rows=ROWS, shuffle=False), 12) == ROWS + ROWS[:2]


def test_each_time_round_has_an_order_of_its_own() -> None:
    rows = draw(Jsonl(rows=ROWS), 30, seed=1)
    rounds = [[row["answer"] for row in rows[i : i + 10]] for i in (0, 10, 20)]
    assert all(sorted(order) == [str(i) for i in range(10)] for order in rounds)
    assert len({tuple(order) for order in rounds}) == 3


@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 7), min_size=1, max_size=6))
@pytest.mark.parametrize("generator", [Jsonl(rows=ROWS), Constraints(rows=ROWS, maximum=3)])
def test_draws_that_follow_one_another_are_one_long_draw(
    generator: Any, seed: int, cuts: list[int]
) -> None:
    pieces, start = [], 0
    for count in cuts:
        pieces += draw(generator, count, seed, start=start)
        start += count
    assert pieces == draw(generator, start, seed)


@pytest.mark.parametrize("generator", [Jsonl(rows=ROWS), Constraints(rows=ROWS)])
def test_the_seed_of_the_run_takes_the_place_of_the_draws_own(generator: Any) -> None:
    first = draw(generator, 5, seed=71, start=0, run_seed=3)
    second = draw(generator, 5, seed=72, start=5, run_seed=3)
    assert first + second == draw(generator, 10, seed=3)


def test_the_prompt_column_is_renamed_and_the_others_stay() -> None:
    row = {"question": "Why?", "prompt": "old", "answer": 1, "tags": ["a"]}
    assert draw(Jsonl(rows=[row], prompt="question"), 1) == [
        {"prompt": "Why?", "answer": 1, "tags": ["a"]}
    ]


def test_chat_prompts_stay_chats() -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert draw(Jsonl(rows=[{"prompt": chat}]), 1) == [{"prompt": chat}]


def test_drawn_rows_may_be_changed_without_changing_the_source() -> None:
    generator = Jsonl(rows=ROWS, shuffle=False)
    draw(generator, 1)[0]["answer"] = "other"
    assert draw(generator, 1)[0]["answer"] == "0"


def test_a_file_of_lines_a_json_list_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list(ROWS)
    table.to_parquet(str(tmp_path / "rows.parquet"))
    paths = [lines, str(tmp_path / "rows.json"), str(tmp_path / "rows.parquet")]
    assert all(draw(Jsonl(path=path), 10) == draw(Jsonl(rows=ROWS), 10) for path in paths)


def test_a_saved_dataset_can_be_given_as_path_or_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"test": table}).save_to_disk(str(tmp_path / "split"))
    expected = draw(Jsonl(rows=ROWS), 10)
    assert draw(Jsonl(path=str(tmp_path / "one")), 10) == expected
    assert draw(Jsonl(dataset=str(tmp_path / "one")), 10) == expected
    assert draw(Jsonl(dataset=str(tmp_path / "split"), split="test"), 10) == expected
    with pytest.raises(DataError, match=r"has no split 'tset'; did you mean 'test'\?"):
        draw(Jsonl(dataset=str(tmp_path / "split"), split="tset"), 1)


def test_a_folder_of_data_files_is_loaded_as_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "train.jsonl", ROWS)
    assert draw(Jsonl(dataset=str(tmp_path / "data")), 10) == draw(Jsonl(rows=ROWS), 10)


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n{"prompt": "b\xe2\x80\xa8c"}\r\n')
    assert draw(Jsonl(path=str(path), shuffle=False), 2) == [
        {"prompt": "a"},
        {"prompt": "b\u2028c"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a"}\n{"prompt": \n', r"rows\.jsonl:2 is not JSON: "),
        ('{"prompt": "a"}\n\n[1]\n', r"rows\.jsonl:3 is of type list, not a mapping of columns"),
        ('{"promt": "a", "x": 1}\n', r":1 has no column 'prompt'; did you mean 'promt'\?.*x"),
        ('{"prompt": " "}\n', r":1, column 'prompt': the prompt is empty"),
        ('{"prompt": 7}\n', r":1, column 'prompt': a prompt is a text or a list of chat"),
        ('{"prompt": null}\n', r"a prompt is a text or a list of chat messages, not None"),
        ('{"prompt": []}\n', r"a prompt is a text or a list of chat"),
        ('{"prompt": [{"content": "a"}]}\n', r"a chat message has 'role' and 'content', not"),
        (
            '{"prompt": "a"}\n{"prompt": [{"role": "user", "content": "b"}]}\n',
            r":2 has a chat prompt but .*:1 has a text one",
        ),
        ("", "holds no instructions"),
        ("\n\n", "holds no instructions"),
    ],
)
@pytest.mark.parametrize("make", [Jsonl, Constraints])
def test_bad_files_are_errors_that_name_file_and_line(
    tmp_path: Path, text: str, message: str, make: Any
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        draw(make(path=str(path)), 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.json", b'{"a": 1}', "must hold a JSON list of rows, not a dict"),
        ("rows.json", b"[1,", "is not JSON"),
        ("rows.jsonl", b"\xff\xfe\x00", r"rows\.jsonl:1 is no UTF-8"),
        ("rows.parquet", b"no parquet", "cannot read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        draw(Jsonl(path=str(tmp_path / name)), 1)


def test_a_missing_file_is_named_with_the_near_miss(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(DataError, match=r"no file '.*row\.jsonl'; did you mean '.*/rows\.jsonl'\?"):
        draw(Jsonl(path=str(tmp_path / "row.jsonl")), 1)
    with pytest.raises(DataError, match=r"there is no folder '.*none' either"):
        draw(Jsonl(path=str(tmp_path / "none" / "rows.jsonl")), 1)


def test_an_unknown_dataset_is_named(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match=r"cannot load the dataset '.*nothing'"):
        draw(Jsonl(dataset=str(tmp_path / "nothing")), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Jsonl(), "exactly one of path, dataset, rows, not none of them"),
        (lambda: Jsonl(path="a", rows=[]), "not path and rows"),
        (lambda: Constraints(), "exactly one of path, dataset, rows, prompts, not none"),
        (lambda: Constraints(prompts=["a"], rows=ROWS), "not rows and prompts"),
        (lambda: Constraints(rows=ROWS, minimum=0), "minimum must be at least 1"),
        (lambda: Constraints(rows=ROWS, minimum=3), "maximum not below it, not 3 and 2"),
        (lambda: Constraints(rows=ROWS, ids=[]), "ids must name at least one"),
        (lambda: Constraints(rows=ROWS, ids=["a:title"]), "ids: unknown constraint 'a:title'"),
        (
            lambda: Constraints(rows=ROWS, ids=[JSON, TITLE], minimum=2),
            "minimum is 2, but no more than 1 of the ids agree",
        ),
    ],
)
def test_bad_options_are_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# constraints


def test_constraints_are_asked_for_after_the_query() -> None:
    for row in draw(Constraints(rows=ROWS, maximum=3), 200):
        (message,) = row["prompt"]
        query, _, words = message["content"].partition("\n\n")
        assert message["role"] == "user"
        assert query == f"Question {row['answer']}?"
        assert words
        assert row["level"] == len(row["instruction_id_list"]) == len(row["kwargs"])
        assert 1 <= row["level"] <= 3
        assert row["family"] == row["instruction_id_list"][0].partition(":")[0]
        for id_, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            parse(id_, kwargs)


def test_constraints_of_a_row_agree_with_one_another() -> None:
    rows = draw(Constraints(rows=ROWS, minimum=2, maximum=5), 500)
    assert {row["level"] for row in rows} == {2, 3, 4, 5}
    for row in rows:
        assert not any(
            clash(a, b) for a, b in itertools.combinations(row["instruction_id_list"], 2)
        )


SELDOM = {"detectable_format:constrained_response", "language:response_language"} | {
    "copy:repeat_phrase"
}
TASKS = [
    "Describe a day at the sea.",
    "Write a story about a lost key.",
    "Write a poem about the wind.",
    "Write a letter to a neighbor about a tree.",
    "Write a slogan for a bakery.",
    "Suggest games for a rainy day.",
    "What happens at night?",
]


def test_every_id_but_those_that_seldom_fit_is_chosen_for_some_task() -> None:
    wanted = set(KNOWN) - SELDOM - {id_ for id_ in KNOWN if KNOWN[id_].alone}
    assert len(wanted) == 54 - 7
    rows = draw(Constraints(prompts=TASKS, maximum=3), 1500)
    assert {id_ for row in rows for id_ in row["instruction_id_list"]} == wanted


def test_where_nothing_has_to_fit_every_such_id_is_chosen_about_as_often() -> None:
    wanted = set(KNOWN) - SELDOM - {id_ for id_ in KNOWN if KNOWN[id_].alone}
    rows = draw(Constraints(rows=ROWS, maximum=1, fit=False), 100 * len(wanted))
    counts = Counter(row["instruction_id_list"][0] for row in rows)
    assert set(counts) == wanted
    assert all(50 < count < 150 for count in counts.values())  # 100 each, 10 standard deviation


def test_a_family_that_fits_few_questions_is_taken_when_it_is_asked_for() -> None:
    rows = draw(Constraints(rows=ROWS, families=["language"], maximum=1), 5)
    assert {row["instruction_id_list"][0] for row in rows} == {"language:response_language"}


def test_the_ids_to_choose_from_can_be_named() -> None:
    rows = draw(Constraints(rows=ROWS, ids=[TITLE, NO_COMMA], maximum=4), 40)
    assert {tuple(sorted(row["instruction_id_list"])) for row in rows} == {
        (TITLE,),
        (NO_COMMA,),
        (TITLE, NO_COMMA),
    }


def test_text_prompts_stay_text_when_asked() -> None:
    row = draw(Constraints(prompts=["Why?"], chat=False, ids=[NO_COMMA]), 1)[0]
    assert row["prompt"].startswith("Why?\n\n")


def test_in_a_chat_the_last_message_of_the_user_is_added_to() -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Why?"},
    ]
    row = draw(Constraints(rows=[{"prompt": chat}], ids=["combination:repeat_prompt"]), 1)[0]
    assert row["prompt"][:3] == chat[:3]
    assert row["prompt"][3]["content"].startswith("Why?\n\n")
    assert row["kwargs"] == [{"prompt_to_repeat": "Why?"}]
    assert chat[3]["content"] == "Why?"


def test_a_chat_without_a_message_of_the_user_is_an_error() -> None:
    rows = [{"prompt": [{"role": "system", "content": "Be brief."}]}]
    with pytest.raises(DataError, match="no message of the user"):
        draw(Constraints(rows=rows), 1)


def test_constraints_that_a_row_states_are_kept_and_agreed_with() -> None:
    stated = {"prompt": "Why?", "instruction_id_list": [JSON], "kwargs": [{}]}
    for row in draw(Constraints(rows=[stated], maximum=3), 100):
        assert row["instruction_id_list"][0] == JSON
        assert row["kwargs"][0] == {}
        assert row["level"] == len(row["kwargs"]) > 1
        assert not any(clash(JSON, id_) for id_ in row["instruction_id_list"][1:])


def test_a_row_to_which_nothing_can_be_added_stays_as_it_is() -> None:
    stated = {"prompt": "Why?", "instruction_id_list": [JSON], "kwargs": [{}]}
    row = draw(Constraints(rows=[stated], ids=[TITLE], chat=False), 1)[0]
    assert row == {**stated, "query": "Why?", "family": "detectable_format", "level": 1}


def test_stated_constraints_that_are_wrong_are_errors_that_name_the_row() -> None:
    rows = [{"prompt": "Why?", "instruction_id_list": ["a:b"], "kwargs": [{}]}]
    with pytest.raises(DataError, match=r"^rows\[0\]: unknown constraint 'a:b'"):
        draw(Constraints(rows=rows), 1)


def test_columns_are_those_that_every_row_has() -> None:
    rows = [{"prompt": "a", "x": 1, "y": 2}, {"prompt": "b", "y": 3}]
    assert Jsonl(rows=rows).columns == ("y",)
    own = ("query", "instruction_id_list", "kwargs", "family", "level")
    assert Constraints(rows=rows).columns == ("y", *own)
    assert Constraints(rows=[{"prompt": "a", "kwargs": [], "z": 1}]).columns == (
        *("kwargs", "z", "query", "instruction_id_list", "family", "level"),
    )


@pytest.mark.parametrize(
    "generator",
    [Jsonl(rows=ROWS), Constraints(rows=ROWS, maximum=4), Constraints(prompts=["a", "b"])],
)
def test_every_generator_keeps_the_contract(generator: Any) -> None:
    check_generator(generator, count=25)
    twin = pickle.loads(pickle.dumps(generator))
    assert twin == generator
    assert draw(twin, 5) == draw(generator, 5)


def test_they_are_offered_under_their_names() -> None:
    plugins = Plugins()
    plugins.register(generators, "risen_plugin.builtin.generators")
    assert plugins.build("generator", "jsonl", {"path": "a.jsonl"}) == Jsonl(path="a.jsonl")
    built = plugins.build("generator", "constraints", {"prompts": ["a"], "ids": [TITLE]})
    assert built == Constraints(prompts=["a"], ids=[TITLE])
    base = {"prompts": ["a"], "ids": [TITLE]}
    evolve = plugins.build("generator", "evolve", {"constraints": base, "rounds": 2})
    assert evolve == Evolve(base, rounds=2)
    rewrite = plugins.build("generator", "rewrite", {"constraints": base, "mode": "invent"})
    assert rewrite == Rewrite(base, mode="invent")


def asked_first(row: Any) -> bool:
    """Whether the constraints come before the question in a row of one message."""
    return not row["prompt"][0]["content"].startswith(row["query"][0]["content"])


@pytest.mark.parametrize(
    ("position", "low", "high"), [("after", 0, 0), ("before", 200, 200), ("both", 70, 130)]
)
def test_constraints_stand_where_they_are_wanted(position: Any, low: int, high: int) -> None:
    ids = [NO_COMMA, TITLE, "startend:quotation"]
    rows = draw(Constraints(rows=ROWS, ids=ids, position=position), 200)
    assert low <= sum(map(asked_first, rows)) <= high
    for row in rows:
        parts = row["prompt"][0]["content"].split("\n\n")
        assert parts[-1 if asked_first(row) else 0] == row["query"][0]["content"]


def test_what_speaks_of_the_request_comes_after_it_always() -> None:
    ids = ["combination:repeat_prompt"]
    rows = draw(Constraints(rows=ROWS, ids=ids, position="before"), 20)
    assert not any(map(asked_first, rows))


def test_the_query_is_the_question_alone_in_the_form_of_the_prompt() -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    [row] = draw(Constraints(rows=[{"prompt": chat}]), 1)
    assert row["query"] == chat
    [row] = draw(Constraints(prompts=["Why?"]), 1)
    assert row["query"] == [{"role": "user", "content": "Why?"}]
    [row] = draw(Constraints(prompts=["Why?"], chat=False), 1)
    assert row["query"] == "Why?"


def test_a_query_that_a_row_brings_is_kept() -> None:
    stated = {"prompt": "Why? As JSON.", "query": "Why?", "instruction_id_list": [JSON]}
    [row] = draw(Constraints(rows=[{**stated, "kwargs": [{}]}], ids=[NO_COMMA, TITLE]), 1)
    assert row["query"] == "Why?"


def test_the_numbers_of_constraints_are_weighted() -> None:
    rows = draw(Constraints(rows=ROWS, minimum=1, maximum=4, weights=[0, 1, 0, 3]), 400)
    levels = Counter(row["level"] for row in rows)
    assert set(levels) == {2, 4}
    assert 70 < levels[2] < 130


def test_families_can_be_chosen_left_out_and_reserved() -> None:
    def families(generator: Constraints, **context: Any) -> set[str]:
        rows = draw(generator, 200, **context)
        return {id_.partition(":")[0] for row in rows for id_ in row["instruction_id_list"]}

    two = ["keywords", "punctuation"]
    assert families(Constraints(rows=ROWS, families=two)) == set(two)
    assert families(Constraints(rows=ROWS, families=two, exclude_families=two[:1])) == {two[1]}
    assert families(Constraints(rows=ROWS, families=two), reserved=["keywords"]) == {two[1]}
    assert "keywords" not in families(Constraints(rows=ROWS, exclude_families=["keywords"]))
    with pytest.raises(ConfigError, match="leave no constraint to add"):
        families(Constraints(rows=ROWS, families=two), reserved=two)


def test_with_distinct_no_instruction_comes_twice_over_all_draws() -> None:
    generator = Constraints(prompts=["Why?", "why"], ids=[NO_COMMA, TITLE], distinct=True)
    first = draw(generator, 2)
    state = json.loads(json.dumps(generator.state_dict()))
    later = Constraints(prompts=["Why?", "why"], ids=[NO_COMMA, TITLE], distinct=True)
    later.load_state_dict(state)
    rest = draw(later, 5, start=2)
    told = {tuple(sorted(row["instruction_id_list"])) for row in first + rest}
    assert len(first + rest) == len(told) == 3
    assert later.report().dropped["duplicate"] > 0


def test_what_overlaps_with_evaluation_data_is_replaced_and_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "test.jsonl", [{"q": "Is this question number 1?"}])
    prompts = ["Is this question number 1?", "Is this question number 2, or another one?"]
    generator = Constraints(prompts=prompts, against=[path])
    rows = draw(generator, 40)
    assert {row["query"][0]["content"] for row in rows} == set(prompts[1:])
    assert generator.report().dropped["overlaps with test.jsonl"] >= 20


def test_a_supply_without_a_usable_prompt_is_an_error_that_says_why() -> None:
    generator = Constraints(prompts=["Why is it so?"], longest=5)
    with pytest.raises(DataError, match=r"400 instructions in a row .* \(400 too long\)"):
        draw(generator, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ["keyword"]}, "families: unknown family 'keyword'; did you mean 'keywords'"),
        ({"exclude_families": ["a"]}, "exclude_families: unknown family 'a'"),
        ({"families": ["keywords"], "ids": [TITLE]}, "leave no constraint to add"),
        ({"position": "above"}, "position must be after, before or both, not 'above'"),
        ({"weights": [1.0]}, "weights has 1 numbers; there are 2 from minimum 1 to maximum 2"),
        ({"weights": [1.0, -1.0]}, "weights must not be negative"),
        ({"weights": [0.0, 0.0]}, "not all of them 0"),
        ({"longest": 0}, "longest must be at least 1"),
        ({"form": "rlrv"}, "form must be one of"),
    ],
)
def test_bad_options_of_constraints_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Constraints(rows=ROWS, **options)


def test_rows_of_the_public_forms_get_further_constraints() -> None:
    truth = json.dumps({"func_name": "validate_no_commas", "N": None})
    row = {"messages": [{"role": "user", "content": "Why?"}], "ground_truth": truth}
    [made] = draw(Constraints(rows=[row], ids=[TITLE]), 1)
    assert made["instruction_id_list"] == [NO_COMMA, TITLE]


@pytest.mark.parametrize("name", ["self_instruct_seed_tasks", "user_oriented_instructions"])
def test_real_instructions_are_read_constrained_and_kept_apart_from_an_evaluation(
    name: str,
) -> None:
    path, evaluation = (shared(f"{file}.jsonl") for file in (name, "gsm8k_test"))
    generator = Constraints(
        path=path,
        prompt="instruction",
        append="instances.0.input",
        maximum=3,
        position="both",
        against=[evaluation],
        distinct=True,
    )
    rows = draw(generator, 300)
    told = [[row["query"], row["instruction_id_list"], row["kwargs"]] for row in rows]
    assert len(set(map(json.dumps, told))) == 300
    for row in rows:
        asked = row["query"][0]["content"]
        assert asked in row["prompt"][0]["content"]
        assert len(check_all(asked, row["instruction_id_list"], row["kwargs"])) == row["level"]
        wanted = [
            parse(id_, kwargs)
            for id_, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True)
        ]
        answer = satisfying(wanted, random.Random(0), asked)
        assert answer is not None
        assert all(check_all(answer, row["instruction_id_list"], row["kwargs"]))


def shared(name: str) -> str:
    """Where a file of the data set that lies beside the repository is, if it is there."""
    folder = Path(os.environ.get("RISEN_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / name).is_file():
        pytest.skip(f"there is no {name} in {folder}; RISEN_SHARED_DATA names another folder")
    return str(folder / name)


def test_what_is_appended_stands_in_some_row() -> None:
    rows = [{"prompt": "a", "more": {"text": "b"}}, {"prompt": "c", "more": {}}]
    made = list(Jsonl(rows=rows, append="more.text", shuffle=False)(count=2, seed=0))
    assert [row["prompt"] for row in made] == ["a\n\nb", "c"]
    with pytest.raises(DataError, match=r"no row of rows has a text at 'more\.txt'"):
        list(Jsonl(rows=rows, append="more.txt")(count=1, seed=0))


def test_evaluation_files_are_a_list() -> None:
    with pytest.raises(ConfigError, match=r"against is 'x\.jsonl'; it is a list"):
        Constraints(prompts=["a b"], against="x.jsonl")
