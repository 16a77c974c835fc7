"""``--gate FILE``: what a user may ask of the gate, and how wrong settings are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from risen_export import GateSettings
from risen_export.gate.instructions import gather
from risen_export.gate.probe import default_probe
from risen_export.gate.settings import COUNT, read_settings
from risen_plugin.cli import command_line
from risen_plugin.config import Use
from risen_plugin.errors import ConfigError, DataError

WHOLE = """
limits:
  int8: {agreement: 0.9, kl_p99: null}
prompts:
  - What is our address?
  - [{role: user, content: Hi}]
golden:
  - prompt: What do we sell?
    expected: [lamps, lights]
facts: false
instructions: rows.jsonl
rewards:
  - constraints
  - {use: length, options: {low: 1, high: 9}, passes_at: 0.5}
count: 200
tokens: 32
"""


def settings(text: str, folder: Path) -> GateSettings:
    path = folder / "gate.yaml"
    path.write_text(text)
    return read_settings(path)


def test_a_file_says_the_same_as_python(tmp_path: Path) -> None:
    found = settings(WHOLE, tmp_path)
    assert found == GateSettings(
        limits={"int8": {"agreement": 0.9, "kl_p99": None}},
        prompts=["What is our address?", [{"role": "user", "content": "Hi"}]],
        golden=[{"prompt": "What do we sell?", "expected": ["lamps", "lights"]}],
        facts=False,
        instructions="rows.jsonl",
        rewards=["constraints", Use("length", {"low": 1, "high": 9}, passes_at=0.5)],
        count=200,
        tokens=32,
    )


def test_a_key_without_a_value_counts_as_left_out(tmp_path: Path) -> None:
    assert settings("limits:\ncount:\n", tmp_path) == GateSettings()
    assert GateSettings().count == COUNT == 64


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("limit: {}", "has no key 'limit'; did you mean 'limits'?"),
        ("limits: {int9: {}}", "unknown family 'int9'; did you mean 'int8'?"),
        ("limits: {int8: {agreemnt: 1}}", "unknown limit 'agreemnt'; did you mean 'agreement'?"),
        ("limits: {int8: {agreement: high}}", "limits.int8.agreement is 'high', not a number"),
        (
            "limits: {int8: {agreement: 95}}",
            "limits.int8.agreement is 95; it is a share, 1 at most",
        ),
        ("limits: {int8: 0.9}", "limits.int8 is not a mapping"),
        ("limits: [int8]", "limits is ['int8']; it is a mapping of families"),
        ("prompts: Hi", "prompts is 'Hi'; it is a list of prompts"),
        ("prompts: [3]", "prompts.0 is 3; it is a text, or a list of messages"),
        ("prompts: ['']", "prompts.0 is ''; it is a text, or a list of messages"),
        ("golden: {prompt: Hi}", "golden is {'prompt': 'Hi'}; it is a list of mappings"),
        ("golden: [Hi]", "golden.0 is 'Hi'; it is {prompt: ..., expected: [words]}"),
        ("golden: [{prompt: Hi}]", "golden.0 lacks 'expected'"),
        ("golden: [{prompt: Hi, expect: [a]}]", "golden.0 has no key 'expect'; did you mean"),
        ("golden: [{prompt: Hi, expected: a}]", "golden.0.expected is 'a'; it is a list of words"),
        ("golden: [{prompt: Hi, expected: []}]", "golden.0.expected is []; it is a list of words"),
        ("golden: [{prompt: Hi, expected: [4]}]", "golden.0.expected is [4]; it is a list of"),
        ("facts: 3", "facts is 3; it is true or false"),
        ("instructions: 3", "instructions is 3; it is the path of a JSON Lines file, or rows"),
        ("rewards: constraints", "rewards is 'constraints'; it is a list, such as [constraints]"),
        ("rewards: [{name: a}]", "rewards.0 has no key 'name'"),
        ("rewards: [{use: a, passes_at: x}]", "'a': passes_at is 'x'; it is a finite number"),
        ("rewards: [3]", "rewards.0 is 3; it is a reward's name"),
        ("count: -1", "count is -1; least is 0"),
        ("count: many", "count is 'many'; it is a whole number from 0"),
        ("tokens: 0", "tokens is 0; least is 1"),
        ("tokens: 1000", "tokens is 1000; most is 256"),
        ("- limits", "holds no mapping"),
        ("limits: {", "is not valid YAML"),
    ],
)
def test_wrong_settings_end_in_one_line_with_the_near_miss(
    text: str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(text, tmp_path)
    said = str(refused.value)
    assert why in said
    assert said.startswith(str(tmp_path / "gate.yaml"))
    assert "\n" not in said


def test_the_command_refuses_them_before_it_reads_a_model(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("cuont: 3")
    command = [
        "export",
        str(tmp_path),
        str(tmp_path / "out"),
        "--gate",
        str(tmp_path / "gate.yaml"),
    ]
    result = CliRunner().invoke(command_line(), command)
    assert result.exit_code == 2
    assert "has no key 'cuont'; did you mean 'count'?" in result.stderr
    missing = CliRunner().invoke(command_line(), [*command[:-1], str(tmp_path / "gate.yml")])
    assert missing.exit_code == 2
    assert "cannot read" in missing.stderr
    assert "gate.yaml" in missing.stderr
    both = CliRunner().invoke(command_line(), [*command, "--no-verify"])
    assert both.exit_code == 2
    assert "--gate says how graphs are measured; leave it or --no-verify out" in both.stderr


def chat(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_golden_prompts_of_a_user_are_asked_beside_the_built_in_questions() -> None:
    ours = [{"prompt": "What do we sell?", "expected": ["lamps"]}]
    both = default_probe(chat, golden=ours)
    alone = default_probe(chat, golden=ours, facts=False)
    [own] = alone.golden
    assert (own.prompt, own.expected) == (chat("What do we sell?"), ("lamps",))
    assert both.golden[-1] == own
    assert len(both.golden) == 9
    assert both.golden[0].prompt == chat("What is the capital of France?")


def test_prompts_of_a_user_take_the_place_of_the_built_in_tasks() -> None:
    given = ["Hi", chat("Ho")]
    assert default_probe(chat, given).prompts == (chat("Hi"), chat("Ho"))
    assert len(default_probe(chat).prompts) == 8


def test_rows_of_the_gate_that_lack_a_column_name_no_generator() -> None:
    """A gate has none: its rows are the user's."""
    asked = GateSettings(instructions=[{"prompt": "Say hi."}], rewards=["constraints"])
    with pytest.raises(DataError, match="needs the column 'instruction_id_list'") as refused:
        gather(asked, None)
    assert "generator" not in str(refused.value)
