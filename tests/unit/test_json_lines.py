"""JSON Lines are read the same wherever they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risen_plugin.builtin.generators.jsonl import Jsonl
from risen_plugin.commands.score.rows import Unusable, read_answers
from risen_plugin.errors import DataError
from risen_plugin.instructions.rows import load_probe
from risen_plugin.kit.json_lines import IndexedLines, lines_in, read_lines
from risen_plugin.phases.leftovers.mixing import load_demonstrations

TEXT = "one\u2028line\u0085still\x1cthe same"
ROW = f'{{"prompt": "{TEXT}", "completion": "b"}}'.replace("\x1c", "\\u001c")


def generated(path: Path) -> Any:
    return list(Jsonl(path=str(path), shuffle=False)(count=1, seed=0))


def scored(path: Path) -> Any:
    with path.open("rb") as file:
        rows = list(read_answers(file, str(path)))
    for row in rows:
        if isinstance(row, Unusable):
            raise DataError(row.reason)
    return [{"prompt": row.prompt} for row in rows]  # type: ignore[union-attr]


READERS: dict[str, Callable[[Path], Any]] = {
    "the generator jsonl": generated,
    "answers to score": scored,
    "the probe": load_probe,
    "demonstrations": load_demonstrations,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_a_line_ends_at_a_line_feed_alone_and_a_mark_before_the_first_is_no_text(
    read: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + ROW.encode() + b"\r\n\r\n")
    assert [row["prompt"] for row in read(path)] == [TEXT]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "a"', "is not JSON: Expecting ',' delimiter at character 16"),
        (b'{"prompt": "\xff"}', "is no UTF-8: invalid start byte at byte 13"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_by_file_and_line(
    read: Callable[[Path], Any], line: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n" + line + b"\n")
    with pytest.raises(DataError) as raised:
        read(path)
    assert str(raised.value) == f"{path}:2 {reason}"


def test_lines_are_reached_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf1\n\n\xe2\x80\xa8\n2\n3")
    lines = IndexedLines(path)
    assert [lines[index].number for index in (3, 2, 0)] == [5, 4, 1]
    assert [line.data for line in lines] == [lines[index].data for index in range(len(lines))]
    assert lines[3].is_cut_off
    assert not lines[0].is_cut_off


def test_a_line_is_text_where_only_its_last_character_is_cut_off() -> None:
    lines = lines_in([b'"\xe2\x80', b'"\xe2"', b"\xff\xfe"], "rows.jsonl")
    assert [line.is_text for line in lines] == [True, False, False]


def test_lines_come_as_a_stream(tmp_path: Path) -> None:
    def endless() -> Any:
        while True:
            yield b"1\n"

    assert next(lines_in(endless(), "f")).value() == 1
    with pytest.raises(FileNotFoundError):
        list(read_lines(tmp_path / "absent"))
