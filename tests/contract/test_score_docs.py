"""That the page about scoring shows what the commands print."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from risen_plugin.cli import command_line

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-to" / "score-answers.md").read_text(encoding="utf-8")


def block(name):
    [found] = re.findall(
        rf"^<!-- {re.escape(name)} -->\n```\w*\n(.*?)^```$", PAGE, flags=re.M | re.S
    )
    return found


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    """A folder with the answers and the log of the page, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("answers.jsonl").write_text(block("answers.jsonl"), encoding="utf-8")
    exec(compile(block("log.py"), "log.py", "exec"), {})


def printed(command):
    result = CliRunner().invoke(command_line(), shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", ["score", "rescore"])
def test_the_page_shows_what_the_command_prints(name):
    command, _, output = block(name).removeprefix("$ ").partition("\n")
    assert printed(command) == output


def test_the_json_of_the_page_is_that_of_the_second_row():
    [shown] = re.findall(r"^```json\n(.*?)^```$", PAGE, flags=re.M | re.S)
    rows = printed("risen score constraints answers.jsonl --json").splitlines()
    assert json.loads(shown) == json.loads(rows[1])


def test_the_columns_of_a_log_are_documented_with_their_types():
    files = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
    [section] = re.findall(r"^### completions.parquet\n(.*?)^### ", files, flags=re.M | re.S)
    documented = dict(re.findall(r"^\| `([^`]+)` \| ([\w ]+) \|", section, flags=re.M))
    schema = pq.read_schema(Path("mine") / "completions.parquet")
    types = {
        "double": "float64",
        "list<element: string>": "list of strings",
        "list<element: bool>": "list of booleans",
        "list<element: int32>": "list of int32",
    }
    assert documented == {
        field.name.replace("/exact", "/NAME"): types.get(str(field.type), str(field.type))
        for field in schema
    }
