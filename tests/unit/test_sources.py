"""Reading instructions: nothing is loaded that is not drawn, and errors name the place."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from risen_plugin.builtin.generators import supply as supplies
from risen_plugin.builtin.generators.jsonl import Jsonl
from risen_plugin.builtin.generators.sources import open_source
from risen_plugin.errors import DataError

MANY = 60_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of many rows, some 7 MB, with one that is no JSON and one without a prompt."""
    path = tmp_path_factory.mktemp("many") / "rows.jsonl"
    filler = "x" * 80
    with path.open("w", encoding="utf-8") as file:
        for number in range(MANY):
            if number == MANY - 10:
                file.write('{"prompt": \n')
            elif number == MANY - 5:
                file.write('{"query": "Why?"}\n')
            else:
                file.write(f'{{"prompt": "Question {number}?", "filler": "{filler}"}}\n')
    return path


def write(path: Path, lines: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_a_large_file_costs_a_few_bytes_a_row(many: Path) -> None:
    generator = Jsonl(path=str(many))
    tracemalloc.start()
    try:
        [row] = generator(count=1, seed=0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert row["prompt"].startswith("Question ")
    assert most < 24 * MANY  # the rows themselves take some 400 bytes each


def test_rows_of_a_large_file_are_those_of_their_lines(many: Path) -> None:
    rows = Jsonl(path=str(many), shuffle=False)
    places = (0, 1, 7_777, MANY - 20)
    for place in places:
        [row] = rows(count=1, seed=0, start=place)
        assert row["prompt"] == f"Question {place}?"


def test_a_fault_far_inside_is_an_error_when_it_is_drawn(many: Path) -> None:
    rows = Jsonl(path=str(many), shuffle=False)
    with pytest.raises(DataError, match=rf"rows\.jsonl:{MANY - 9} is not JSON"):
        list(rows(count=1, seed=0, start=MANY - 10))
    with pytest.raises(DataError, match=rf"rows\.jsonl:{MANY - 4} has no column 'prompt'"):
        list(rows(count=1, seed=0, start=MANY - 5))


def test_a_row_of_the_other_form_is_an_error_when_it_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supplies, "CHECKED_AT_ONCE", 2)
    lines = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": [{"role": "user", "content": "c"}]}]
    rows = Jsonl(path=write(tmp_path / "a.jsonl", lines), shuffle=False)
    assert list(rows(count=2, seed=0)) == lines[:2]
    with pytest.raises(DataError, match=r":3 has a chat prompt but .*:1 has a text one"):
        list(rows(count=1, seed=0, start=2))


def test_blank_lines_do_not_shift_the_numbers_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\n\n[1]\n  \n[2]\n[3]")
    lines = open_source(str(path), None, "train", None)
    expected = [(f"{path}:3", [1]), (f"{path}:5", [2]), (f"{path}:6", [3])]
    assert [lines[index] for index in range(len(lines))] == list(lines) == expected


def test_an_input_is_appended_to_the_prompt(tmp_path: Path) -> None:
    lines = [
        {"instruction": "Name it.", "instances": [{"input": " A river. "}]},
        {"instruction": "Sing.", "instances": [{"input": ""}]},
        {"instruction": "Dance.", "instances": []},
    ]
    path = write(tmp_path / "a.jsonl", lines)
    rows = Jsonl(path=path, prompt="instruction", append="instances.0.input", shuffle=False)
    assert [row["prompt"] for row in rows(count=3, seed=0)] == [
        "Name it.\n\nA river.",
        "Sing.",
        "Dance.",
    ]


@pytest.mark.parametrize(
    ("row", "append", "message"),
    [
        ({"prompt": "a", "input": "b"}, "inputs", "no column 'inputs' to append; did you mean 'i"),
        ({"prompt": "a", "input": 7}, "input", "the value at 'input' is no text but 7"),
        (
            {"prompt": [{"role": "user", "content": "a"}], "input": "b"},
            "input",
            "append adds to text prompts",
        ),
    ],
)
def test_what_cannot_be_appended_is_an_error_that_names_the_row(
    row: Any, append: str, message: str
) -> None:
    with pytest.raises(DataError, match=rf"^rows\[0\].*{message}"):
        list(Jsonl(rows=[row], append=append)(count=1, seed=0))


def test_a_file_that_vanishes_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = Jsonl(path=write(path, [{"prompt": "a"}]))
    list(rows(count=1, seed=0))
    path.unlink()
    with pytest.raises(DataError, match="cannot read"):
        list(rows(count=1, seed=0))
