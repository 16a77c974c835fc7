"""The validity filter: what it drops, what it lets through, and what it tells."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.errors import ConfigError, DataError
from risen_plugin.instructions import validity
from risen_plugin.instructions.validity import (
    Decontamination,
    FilterReport,
    SeenQueries,
    Validity,
    instruction_key,
)
from risen_plugin.instructions.validity.words import packed, unpacked

NO_COMMA, TITLE, JSON = (
    "punctuation:no_comma",
    "detectable_format:title",
    "detectable_format:json_format",
)
WORDS = "length_constraints:number_words"


def row(query: str = "Name a river.", *ids: str, kwargs: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "prompt": f"{query} So.",
        "query": query,
        "instruction_id_list": list(ids),
        "kwargs": kwargs if kwargs is not None else [{}] * len(ids),
        **more,
    }


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (row(), None),
        (row("Name a river.", NO_COMMA, TITLE), None),
        (row("Name a river.", "a:b"), "constraint that cannot be read"),
        (row("Name a river.", WORDS), "constraint that cannot be read"),
        (row("Name a river.", WORDS, kwargs=[]), "not one kwargs per id"),
        (row("Name a river.", JSON, TITLE), "conflict"),
        (row("  "), "empty"),
        (row("x" * 60), "too long"),
    ],
)
def test_what_is_wrong_with_an_instruction_is_told(made: Any, fault: str | None) -> None:
    assert Validity(longest=50).fault_of(made) == fault


def test_tokens_are_counted_where_a_counter_is_given() -> None:
    valid = Validity(most_tokens=3, count_tokens=lambda prompt: len(prompt.split()))
    assert valid.fault_of(row("One two.")) is None
    assert valid.fault_of(row("One two three.")) == "too many tokens"


def test_what_nobody_can_answer_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def satisfying(constraints: Any, rng: random.Random, about: str = "") -> str | None:
        told.append(about)
        return None if constraints[0].id == TITLE else "text"

    monkeypatch.setattr(validity, "satisfying", satisfying)
    assert Validity().fault_of(row("Why?", TITLE)) == "no answer found"
    assert Validity().fault_of(row("Why?", NO_COMMA)) is None
    assert told == ["Why?", "Why?"]


# Duplicates


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (row("name a  RIVER", NO_COMMA, TITLE), True),
        (row("Name a river.", TITLE, NO_COMMA), True),
        (row("Name a river.", NO_COMMA), False),
        (row("Name a lake.", NO_COMMA, TITLE), False),
    ],
)
def test_the_same_words_with_equal_constraints_are_a_duplicate(other: Any, is_same: bool) -> None:
    valid = Validity()
    assert valid.admit(row("Name a river.", NO_COMMA, TITLE))
    assert (valid.fault_of(other) == "duplicate") is is_same


def test_other_kwargs_make_another_instruction() -> None:
    keys = {
        instruction_key("Why?", [WORDS], [{"num_words": number, "relation": "at least"}])
        for number in (10, 20)
    }
    assert len(keys) == 2


def test_queries_of_marks_alone_are_told_apart() -> None:
    assert instruction_key("!?", [], []) != instruction_key("...", [], [])


def test_the_memory_outlives_the_filter() -> None:
    valid = Validity(near=0.7)
    valid.admit(row("Name a river.", NO_COMMA))
    valid.remember_query("Write a poem about the sea at night.")
    state = json.loads(json.dumps(valid.state_dict()))
    later = Validity(near=0.7)
    later.load_state_dict(state)
    assert not later.admit(row("Name a river.", NO_COMMA))
    assert later.is_near("Write a poem about the sea at night!")
    assert later.report.dropped == {"duplicate": 1}
    assert later.report.kept == 1


def test_keys_are_the_same_in_every_process() -> None:
    code = (
        "from risen_plugin.instructions.validity import instruction_key;"
        "print(instruction_key('Why?', ['a:b'], [{'n': 1}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == instruction_key("Why?", ["a:b"], [{"n": 1}])


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_packed_hashes_come_back(hashes: list[int]) -> None:
    assert list(unpacked(packed(hashes))) == hashes


SENTENCE = "Write a short letter to a friend who has moved to the coast and tell all your news"


@pytest.mark.parametrize(
    ("other", "is_near"),
    [
        (SENTENCE, True),
        (SENTENCE.upper() + "!", True),
        (SENTENCE.replace("short", "long"), True),
        (SENTENCE.replace("coast", "hills") + " today", True),
        ("Explain to a friend why the coast moves a little every year", False),
        (" ".join(reversed(SENTENCE.split())), False),
        ("Write", False),
    ],
)
def test_near_means_that_most_pairs_of_words_are_shared(other: str, is_near: bool) -> None:
    seen = SeenQueries(0.6)
    seen.add(SENTENCE)
    assert seen.is_near(other) is is_near


@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=30), st.data())
def test_nothing_is_called_near_that_shares_fewer_pairs(words: list[str], data: Any) -> None:
    others = data.draw(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=30))
    seen = SeenQueries(0.7)
    seen.add(" ".join(words))

    def pairs(text: list[str]) -> set[tuple[str, ...]]:
        return set(itertools.pairwise(text)) or {tuple(text)}

    overlap = len(pairs(words) & pairs(others)) / len(pairs(words) | pairs(others))
    if seen.is_near(" ".join(others)):
        assert overlap >= 0.7
    if overlap == 1:
        assert seen.is_near(" ".join(others))


def test_of_queries_with_an_overlap_above_the_threshold_hardly_one_is_missed() -> None:
    rng = random.Random(0)
    missed = 0
    for number in range(300):
        words = [f"w{number}x{place}" for place in range(40)]
        seen = SeenQueries(0.7)
        seen.add(" ".join(words))
        words[rng.randrange(1, 39)] = "other"  # two pairs of 39 are lost: an overlap of 0.90
        words[rng.randrange(1, 39)] = "another"
        missed += not seen.is_near(" ".join(words))
    assert missed <= 1


# Evaluation data

QUESTION = (
    "Tom has four red apples and buys seven green apples at the market before he gives two away"
)


@pytest.fixture
def evaluation(tmp_path: Path) -> str:
    path = tmp_path / "test.jsonl"
    rows = [{"question": QUESTION, "answer": {"steps": ["The sum is nine."]}}, {"question": "Yes."}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("query", "is_leaked"),
    [
        (QUESTION, True),
        (QUESTION.upper().replace(" ", "  ") + "?!", True),
        (f"Answer this. {QUESTION[:60]} there.", True),  # 11 words of it
        ("Tom has four red apples. How many are left?", False),  # 5 words
        ("the sum is NINE", True),  # a whole text, nested
        ("What is the sum? The sum is nine.", False),
        ("Yes", False),  # too short to mean anything
        ("", False),
    ],
)
def test_what_shares_a_run_or_a_whole_text_with_an_evaluation_file_is_found(
    evaluation: str, query: str, is_leaked: bool
) -> None:
    found = Decontamination([evaluation], run=8).source_of(query)
    assert found == ("test.jsonl" if is_leaked else None)


def test_it_is_dropped_and_counted(evaluation: str) -> None:
    valid = Validity(against=[evaluation], run=8)
    assert not valid.admit(row(QUESTION))
    assert valid.admit(row())
    assert valid.report.as_dict() == {
        "kept": 1,
        "dropped": {"overlaps with test.jsonl": 1},
        "examples": {"overlaps with test.jsonl": [f"{QUESTION} So."]},
    }


def test_json_lists_and_text_files_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"q": QUESTION}]))
    (tmp_path / "b.txt").write_text(f"{QUESTION}\n")
    for name in ("a.json", "b.txt"):
        assert Decontamination([str(tmp_path / name)]).source_of(QUESTION) == name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"q": 1}\n{', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", b"\xff\xfe", r"a\.jsonl:1 is no UTF-8"),
        ("a.json", b"[", "cannot read the evaluation file"),
        ("ab.jsonl", b"", r"no evaluation file '.*/a\.jsonl'; did you mean '.*/ab\.jsonl'\?"),
    ],
)
def test_evaluation_files_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    wanted = "a.jsonl" if name == "ab.jsonl" else name
    with pytest.raises(DataError, match=message):
        Decontamination([str(tmp_path / wanted)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"longest": 0}, "longest must be at least 1"),
        ({"near": 0.0}, "near must be above 0"),
        ({"near": 1.5}, "near must be above 0 and at most 1"),
        ({"most_tokens": 5}, "most_tokens needs count_tokens"),
        ({"against": ["x"], "run": 3}, "must have 4 to 50 of them, not 3"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Validity(**options)


# The report


def test_the_report_shows_few_and_short_examples() -> None:
    report = FilterReport()
    for number in range(5):
        report.drop("too long", f"{number}\n{'x' * 500}")
    report.drop("conflict", "a")
    report.keep()
    assert str(report) == "1 kept, 6 dropped (5 too long, 1 conflict)"
    assert len(report.examples["too long"]) == 3
    assert all(len(text) == 100 and "\n" not in text for text in report.examples["too long"])
    assert FilterReport.from_dict(json.loads(json.dumps(report.as_dict()))) == report
