"""Chat rows reach the model as they stand in the file, and one that cannot is named."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risen_plugin import RisenCallback
from risen_plugin.commands.train.rows import read_rows
from risen_plugin.commands.train.run_config import DataSource
from risen_plugin.errors import DataError
from risen_plugin.training.losses import encode_probe
from risen_plugin.training.sft import sft_config, sft_trainer

from .refusing import refused_at_the_start

Make = Callable[..., Any]
TEMPLATE = (
    "{% if style %}{{ style }}: {% endif %}{% for t in tools or [] %}{{ t | tojson }};{% endfor %}"
    "{% for m in messages %}{{ m.role }} {{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %};{% endfor %}"
)


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    calls = [{"type": "function", "function": {"name": name, "arguments": arguments}}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def asking(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.fixture
def learned(make_model: Make, tokenizer: Any, tmp_path: Path) -> Callable[..., list[str]]:
    """The texts that ``risen train`` learns from rows of a file."""

    def texts(*rows: dict[str, Any]) -> list[str]:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        template = copy.copy(tokenizer)
        template.chat_template = TEMPLATE
        args = sft_config(
            output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_length=None
        )
        data = read_rows(DataSource(path=str(file)))
        trainer: Any = sft_trainer(make_model(), template, args, data, [])
        return [template.decode(row["input_ids"]) for row in trainer.train_dataset]

    return texts


def test_a_tool_call_has_the_arguments_of_its_row_alone(learned: Callable[..., list[str]]):
    first, second = learned(
        {"messages": [asking("1"), call("add", a=1)]},
        {"messages": [asking("2"), call("cut", b="x", c=[1])]},
    )
    assert first == 'user 1;assistant {"name": "add", "arguments": {"a": 1}};'
    assert second == 'user 2;assistant {"name": "cut", "arguments": {"b": "x", "c": [1]}};'


def test_so_has_one_in_a_completion(learned: Callable[..., list[str]]):
    first, second = learned(
        {"prompt": [asking("1")], "completion": [call("add", a=1)]},
        {"prompt": [asking("2")], "completion": [{"role": "assistant", "content": "no"}]},
    )
    assert first == 'user 1;assistant {"name": "add", "arguments": {"a": 1}};'
    assert second == "user 2;assistant no;"


def test_tools_are_read_by_the_template_also_from_a_text(learned: Callable[..., list[str]]):
    messages = [asking("1"), call("add")]
    first, second, third = learned(
        {"messages": messages, "tools": [tool("add", description="sums")]},
        {"messages": messages, "tools": json.dumps([tool("cut", parameters={})])},
        {"messages": messages},
    )
    assert first.startswith('{"type": "function", "function": {"name": "add", "description": "sum')
    assert second.startswith('{"type": "function", "function": {"name": "cut", "parameters": {}}};')
    assert third.startswith("user 1;")


def test_a_row_may_set_variables_of_the_template(learned: Callable[..., list[str]]):
    messages = [asking("1"), call("add")]
    first, second = learned(
        {"messages": messages, "chat_template_kwargs": {"style": "brief"}}, {"messages": messages}
    )
    assert first.startswith("brief: user 1;")
    assert second.startswith("user 1;")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("tools", "add", "column 'tools' is a text but no JSON"),
        ("tools", '{"name": "add"}', "column 'tools' is {'name': 'add'}; it is a list of tools"),
        ("chat_template_kwargs", [1], r"column 'chat_template_kwargs' is \[1\]; it is a mapping"),
    ],
)
def test_tools_of_another_form_are_refused_with_their_line(
    learned: Callable[..., list[str]], column: str, value: Any, message: str
):
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: {message}"):
        learned({"messages": [asking("1"), call("add")], column: value})


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}{{ m.role + m.content }}{% endfor %}"
)
SYSTEM = [{"role": "system", "content": "Be brief."}, asking("one")]
CALLED = [asking("one"), {**call("add"), "content": None}]
REFUSED = [
    pytest.param(
        SYSTEM,
        r"refuses the messages 'Be brief. one.*'... of the roles system, user.*: no system role;",
        id="a role that the template does not have",
    ),
    pytest.param(
        CALLED,
        r"refuses the messages 'one.*'... of the roles user, assistant.*: .*attribute 'content'",
        id="a message without a text",
    ),
]


@pytest.mark.parametrize(("messages", "message"), REFUSED)
@pytest.mark.parametrize("form", ["messages", "prompt"])
def test_messages_that_the_template_refuses_are_named_before_the_training(
    make_model: Make,
    tokenizer: Any,
    tmp_path: Path,
    messages: list[dict[str, Any]],
    message: str,
    form: str,
):
    template = copy.copy(tokenizer)
    template.chat_template = NO_SYSTEM
    args = sft_config(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False)
    answer = [{"role": "assistant", "content": "yes"}]
    good = {"messages": [asking("a"), *answer]}
    bad: dict[str, Any] = {"messages": messages}
    if form == "prompt":
        good = {"prompt": [asking("a")], "completion": answer}
        bad = {"prompt": messages, "completion": answer}
    with pytest.raises(DataError, match=message):
        sft_trainer(make_model(), template, args, [good, bad], [])
    with pytest.raises(DataError, match=f"probe row 1: the chat template {message}"):
        encode_probe(template, [good, bad], 100)


@pytest.mark.parametrize(("messages", "message"), REFUSED)
def test_an_instruction_that_the_template_refuses_is_named_before_a_run(
    make_trainer: Make,
    make_model: Make,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    config: Make,
    messages: list[dict[str, Any]],
    message: str,
    attached: bool,
):
    def generator(*, count: int, **context: Any) -> list[dict[str, Any]]:
        return [{"prompt": messages}] * count

    monkeypatch.setattr(tokenizer, "chat_template", NO_SYSTEM)
    trainer = make_trainer(make_model())
    callback = RisenCallback(config(generator=generator, probe=[{"text": "a b c"}]))
    said = refused_at_the_start(trainer, callback, DataError, attached)
    assert re.match(f"generator 'generator'.* made an unusable row: .*{message}", said)
    assert trainer.state.global_step == 0


def test_the_probe_is_read_with_the_tools_of_its_row(tokenizer: Any):
    template = copy.copy(tokenizer)
    template.chat_template = TEMPLATE
    row = {"messages": [asking("1"), call("add")], "tools": json.dumps([tool("add")])}
    ((ids, _),) = encode_probe(template, [row], 1000)
    assert template.decode(ids).startswith('{"type": "function", "function": {"name": "add"}};')


HALF = r"column '\w+' has half of a character \(\\ud83d\), where a text was cut off"


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a \ud83d"},
        {"prompt": "a", "completion": "b \ud83d"},
        {"messages": [asking("\ud83d"), call("add")]},
        {"messages": [asking("a"), call("add", a="\ud83d")]},
    ],
)
def test_a_row_cut_off_in_the_middle_of_a_character_is_refused_with_its_line(
    learned: Callable[..., list[str]], row: dict[str, Any]
):
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: {HALF}"):
        learned(row)
