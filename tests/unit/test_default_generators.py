"""The generators that come with risen-plugin: which rows, in which order, and what is refused."""

from __future__ import annotations

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.constraints import KNOWN, check_all, clash, parse
from risen_plugin.defaults import generators
from risen_plugin.defaults.generators import Constraints, Jsonl
from risen_plugin.errors import ConfigError, DataError
from risen_plugin.plugins import Plugins
from risen_plugin.testing import check_generator

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
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
        ('{"prompt": "a"}\n\n[1]\n', r"rows\.jsonl:3 is not a mapping of columns but a list"),
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
        ("rows.jsonl", b"\xff\xfe\x00", "cannot read"),
        ("rows.parquet", b"no parquet", "cannot read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        draw(Jsonl(path=str(tmp_path / name)), 1)


def test_a_missing_file_is_named_with_the_near_miss(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(DataError, match=r"no file '.*row\.jsonl'; did you mean 'rows\.jsonl'\?"):
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


def test_every_id_but_the_fixed_answers_is_chosen_about_as_often() -> None:
    rows = draw(Constraints(rows=ROWS, maximum=1), 4600)
    counts = Counter(row["instruction_id_list"][0] for row in rows)
    assert set(counts) == set(KNOWN) - {"detectable_format:constrained_response"}
    assert all(140 < count < 260 for count in counts.values())  # 200 each, 14 standard deviation


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


def test_stated_constraints_that_are_wrong_are_errors_that_name_the_prompt() -> None:
    rows = [{"prompt": "Why?", "instruction_id_list": ["a:b"], "kwargs": [{}]}]
    with pytest.raises(DataError, match=r"the row with the prompt 'Why\?': unknown constraint"):
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
    plugins.register(generators, "risen_plugin.defaults.generators")
    assert plugins.build("generator", "jsonl", {"path": "a.jsonl"}) == Jsonl(path="a.jsonl")
    built = plugins.build("generator", "constraints", {"prompts": ["a"], "ids": [TITLE]})
    assert built == Constraints(prompts=["a"], ids=[TITLE])


@pytest.mark.parametrize("name", ["self_instruct_seed_tasks", "user_oriented_instructions"])
def test_real_instructions_are_read_and_constrained(name: str) -> None:
    path = SHARED / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    rows = draw(Constraints(path=str(path), prompt="instruction", maximum=3), 400)
    assert len({json.dumps(row["prompt"]) for row in rows}) > 390
    for row in rows:
        asked = row["prompt"][0]["content"]
        assert len(check_all(asked, row["instruction_id_list"], row["kwargs"])) == row["level"]
