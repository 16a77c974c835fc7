"""YAML of anybody: plain data of a reasonable size, or one line that names the place."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from risen_plugin.commands.options import parse_options
from risen_plugin.errors import ConfigError
from risen_plugin.kit.yaml_files import MOST_BYTES, read_mapping, read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{letter}: &{letter} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, letter in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{letter}: &{letter} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, letter in zip("abcdefghi", "bcdefghij", strict=True)
)


def said(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_mapping(path, "a model")
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2025-02-30\n", ":2 is not valid YAML: '2025-02-30' is no timestamp: day "),
        ("a: !!int abc\n", ":1 is not valid YAML: 'abc' is no int: invalid literal"),
        ("a: !!int ''\n", ":1 is not valid YAML: '' is no int"),
        ("a: !!float x\n", ":1 is not valid YAML: 'x' is no float"),
        ("a: !!bool maybe\n", ":1 is not valid YAML: 'maybe' is no bool"),
        ("a: !!timestamp soon\n", ":1 is not valid YAML: 'soon' is no timestamp"),
        (f"a: {'9' * 5000}\n", ":1 is not valid YAML: a value that is no text has 5000 characters"),
        (f"a: 1{':1' * 200_000}\n", ":1 is not valid YAML: a value that is no text has 400001 "),
        ("a: &a {x: *a}\n", ":1 is not valid YAML: it holds an alias of itself"),
        ("a: &a [*a]\n", ":1 is not valid YAML: it holds an alias of itself"),
        ("a: &a {<<: *a}\n", ":1 is not valid YAML: it holds an alias of itself"),
        (BOMB, " is not valid YAML: it holds more than 100000 values, aliases written out"),
        (MERGES, " is not valid YAML: it holds more than 100000 values, aliases written out"),
        ("a: " + "[" * 100_000, ":1 is not valid YAML: it is nested more than 100 deep"),
        ("a: " + "{b: " * 100_000, ":1 is not valid YAML: it is nested more than 100 deep"),
        ("- " * 100_000, ":1 is not valid YAML: it is nested more than 100 deep"),
    ],
)
def test_what_is_no_value_has_no_end_or_grows_is_refused_at_once(
    tmp_path: Path, text: str, message: str
) -> None:
    began = time.process_time()
    assert message in said(tmp_path, text)
    assert time.process_time() - began < 2.0


def test_aliases_and_merges_of_a_reasonable_size_are_read(tmp_path: Path) -> None:
    text = "base: &base {a: [1, 2]}\none: {<<: *base, b: 2}\ntwo: *base\n"
    assert read_yaml(text) == yaml.safe_load(text)
    assert read_yaml("# nothing\n") is None


@pytest.mark.parametrize("kind", ["device", "pipe", "large", "folder"])
def test_what_is_no_file_or_too_large_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.yaml"
    made: dict[str, Any] = {
        "device": lambda: path.symlink_to("/dev/zero"),
        "pipe": lambda: os.mkfifo(path),
        "large": lambda: path.write_bytes(b"#" * (MOST_BYTES + 1)),
        "folder": path.mkdir,
    }
    made[kind]()
    with pytest.raises(ConfigError, match=r"^cannot read .*run\.yaml: "):
        read_mapping(path, "a model")


@pytest.mark.parametrize("value", ["2025-02-30", "9" * 5000, "[" * 1000, "&a [*a]", "!!int x"])
def test_a_value_of_the_command_line_that_is_no_yaml_is_a_text(value: str) -> None:
    assert parse_options([f"x={value}"]) == {"x": value}
