"""What a server decides without a model: what is asked, what a call is, who may ask."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from risen_export.engine.requests import Completion, Piece, TokenLogprob
from risen_export.serving.asked import MOST_ANSWERS, read_chat, read_text
from risen_export.serving.fields import MOST_DEPTH, read_object
from risen_export.serving.guarding import Keys, Rates
from risen_export.serving.judging import Judged, best
from risen_export.serving.refusals import RefusedError
from risen_export.serving.shapes import Chat, Text
from risen_export.serving.tool_calls import Call, CallReader, read_calls
from risen_export.serving.traffic import REDACTED, TrafficLog
from risen_plugin.constraints.judging import Judgement
from risen_plugin.errors import ConfigError

USER: list[Any] = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"model": "m", "messages": USER}
TEXT: dict[str, Any] = {"model": "m", "prompt": "hello"}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look_up"}}

# What is asked ------------------------------------------------------------------------------------


def test_what_is_left_out_or_null_has_the_defaults_of_the_api() -> None:
    every = {"temperature": None, "n": None, "stop": None, "stream": None, "tools": None}
    for body in (CHAT, {**CHAT, **every}):
        one = read_chat(body).settings
        assert (one.sampling.temperature, one.sampling.top_p, one.n) == (1.0, 1.0, 1)
        assert one.max_new_tokens is None
        assert one.stop == ()
        assert not one.stream


def test_settings_are_read() -> None:
    asked = {
        **TEXT,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": -1,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.2,
        "presence_penalty": -0.3,
        "logit_bias": {"7": -100},
        "seed": 3,
        "logprobs": 2,
        "stop": ["a", "b"],
        "stop_token_ids": [5],
        "n": 2,
        "max_tokens": 9,
    }
    one = read_text(asked).settings
    sampling = one.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 0)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.1)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.2, -0.3)
    assert (sampling.logit_bias, sampling.seed, sampling.logprobs) == ({7: -100.0}, 3, 2)
    assert (one.stop, one.stop_ids, one.n, one.max_new_tokens) == (("a", "b"), {5}, 2, 9)


def test_the_newer_name_of_the_longest_answer_counts() -> None:
    body = {**CHAT, "max_tokens": 5, "max_completion_tokens": 7}
    assert read_chat(body).settings.max_new_tokens == 7


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        ([[1], "b"], ((1,), "b")),
    ],
)
def test_prompts_are_texts_or_tokens(prompt: Any, read: Any) -> None:
    assert read_text({**TEXT, "prompt": prompt}).prompts == read


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "a", "mood": 1}]}, "messages[0].mood"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0].type",
    ),
    ({"model": None}, "model"),
    ({"model": 5}, "model"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"n": 0}, "n"),
    ({"n": 1.5}, "n"),
    ({"n": MOST_ANSWERS + 1}, "n"),
    ({"n": 10**400}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"stop": ""}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"logit_bias": {"a": 1}}, "logit_bias.a"),
    ({"logit_bias": {"1": 1000}}, "logit_bias.1"),
    ({"logit_bias": {"\u0665": 1}}, "logit_bias.\u0665"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [TOOL, TOOL]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_cho"),
    ({"risen": {"best_of": 0}}, "risen.best_of"),
    ({"risen": {"best_of": 2}, "n": 3}, "risen.best_of"),
    ({"risen": {"columns": {"prompt": "a"}}}, "risen.columns"),
    ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs"),
    ({"temprature": 1}, "temprature"),
]


@pytest.mark.parametrize(("change", "param"), WRONG)
def test_what_cannot_be_asked_is_refused_by_name(change: dict[str, Any], param: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read_chat({**CHAT, **change})
    assert (caught.value.status, caught.value.param[: len(param)]) == (400, param)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_not_called_empty() -> None:
    for absent in ({"model": "m"}, {"model": "m", "messages": None}):
        with pytest.raises(RefusedError, match=r"^messages is missing$"):
            read_chat(absent)
    with pytest.raises(RefusedError, match=r"^prompt is missing$"):
        read_text({"model": "m"})


def test_a_misspelt_field_is_told_its_near_miss() -> None:
    with pytest.raises(RefusedError, match="did you mean 'temperature'"):
        read_chat({**CHAT, "temprature": 0})


def test_more_answers_than_one_request_may_have_are_refused() -> None:
    with pytest.raises(RefusedError, match="128 answers are allowed"):
        read_text({**TEXT, "prompt": ["a"] * 20, "n": 10})


@pytest.mark.parametrize("depth", [MOST_DEPTH, MOST_DEPTH + 1, 50_000])
def test_bodies_nest_so_deep_and_no_deeper(depth: int) -> None:
    body = ('{"a":' * depth + "1" + "}" * depth).encode()
    if depth <= MOST_DEPTH:
        assert read_object(body)
    else:
        with pytest.raises(RefusedError, match="deep"):
            read_object(body)


# Messages for a template --------------------------------------------------------------------------


def test_messages_are_made_fit_for_templates() -> None:
    call = {"type": "function", "function": {"name": "look_up", "arguments": '{"id": 5}'}}
    body = {
        **CHAT,
        "messages": [
            {"role": "developer", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", **call}]},
            {"role": "tool", "content": "late", "tool_call_id": "c1"},
        ],
        "tools": [TOOL],
    }
    system, user, assistant, tool = read_chat(body).messages
    assert system == {"role": "system", "content": "be brief"}
    assert user["content"] == "ab"
    assert assistant["tool_calls"][0]["function"]["arguments"] == {"id": 5}
    assert tool["tool_call_id"] == "c1"


def test_a_chosen_tool_holds_the_answer_to_its_schema() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    choice = {"type": "function", "function": {"name": "look_up"}}
    asked = read_chat({**CHAT, "tools": [TOOL, other], "tool_choice": choice})
    assert asked.must_call
    assert len(asked.tools) == 2
    assert asked.settings.grammar is not None
    schema = json.loads(asked.settings.grammar.text)
    assert schema["properties"]["name"] == {"const": "look_up"}
    assert read_chat({**CHAT, "tools": [TOOL], "tool_choice": "none"}).tools == ()


# Calls in answers ---------------------------------------------------------------------------------

CALL = [Call("look_up", '{"id": 5}')]
CALLS = [
    ('<tool_call>\n{"name": "look_up", "arguments": {"id": 5}}\n</tool_call>', CALL),
    ('<tool_call>[{"name": "look_up", "arguments": {"id": 5}}]</tool_call>', CALL),
    ('[TOOL_CALLS][{"name": "look_up", "arguments": {"id": 5}}]', CALL),
    ('{"name": "look_up", "parameters": {"id": 5}}', CALL),
    ('{"name": "look_up", "arguments": "{\\"id\\": 5}"}', CALL),
    ('{"type": "function", "function": {"name": "look_up", "parameters": {"id": 5}}}', CALL),
    (
        '<tool_call>{"name": "look_up", "arguments": {"id": 5}}</tool_call>\n'
        '<tool_call>{"name": "look_up", "arguments": {}}</tool_call>',
        [*CALL, Call("look_up", "{}")],
    ),
    ('{"name": "other", "arguments": {}}', []),
    ('{"name": "look_up", "arguments": 5}', []),
    ('{"city": "Kofu"}', []),
    ('{"name": "look_up", "arguments": {"id": 5}} is what I would call', []),
    ("<tool_call>look_up(5)</tool_call>", []),
    ("[1, 2]", []),
    ("{", []),
    ("[" * 50_000, []),
]


@pytest.mark.parametrize(("text", "calls"), CALLS)
def test_calls_are_read_in_the_forms_that_models_write(text: str, calls: list[Call]) -> None:
    assert read_calls(text, {"look_up"}) == calls


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "text",
    ["no call at all", "a <b> c", "[not] a call", "{x}", "costs < 5 <tool", *(t for t, _ in CALLS)],
)
def test_piece_by_piece_no_text_is_lost_and_no_call_is_text(text: str, size: int) -> None:
    reader = CallReader({"look_up"})
    given = "".join(reader.add(text[i : i + size]) for i in range(0, min(len(text), 999), size))
    rest, calls = reader.end()
    if calls:
        assert given.strip() == ""
    else:
        assert given + rest == text[:999] if size < 1000 else True


def test_text_before_a_call_comes_at_once_and_the_call_at_the_end() -> None:
    reader = CallReader({"look_up"})
    assert reader.add("I look. <tool") == "I look. "
    assert reader.add('_call>{"name": "look_up", "arguments": {"id": 5}}</tool_call>') == ""
    assert reader.end() == ("", CALL)


# Shapes -------------------------------------------------------------------------------------------


def pieces_of(text: str) -> list[Piece]:
    return [Piece(0, 0, (i,), letter) for i, letter in enumerate(text)]


@pytest.mark.parametrize("text", ["plain", CALLS[0][0]])
def test_a_stream_adds_up_to_the_whole(text: str) -> None:
    asked = read_chat({**CHAT, "tools": [TOOL]})
    whole = Chat(asked, str, []).whole(0, Completion((1,), text, (), "stop"))
    shape = Chat(asked, str, [])
    choices = [
        *shape.opening(0),
        *(choice for piece in pieces_of(text) for choice in shape.part(0, piece)),
        *shape.closing(0, "stop"),
    ]
    content = "".join(choice["delta"].get("content") or "" for choice in choices)
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert choices[0]["delta"]["role"] == "assistant"
    assert content == (whole["message"]["content"] or "")
    assert [one["function"] for one in calls] == [
        one["function"] for one in whole["message"].get("tool_calls", ())
    ]
    assert choices[-1]["finish_reason"] == whole["finish_reason"]


def test_log_probabilities_are_numbers_of_json() -> None:
    asked = read_text({**TEXT, "logprobs": 1})
    given = (TokenLogprob(5, float("-inf"), ((6, -0.5),)),)
    whole = Text(asked, lambda token: f"<{token}>", ["hello"]).whole(
        0, Completion((5,), "x", given, "length")
    )
    assert whole["logprobs"] == {
        "tokens": ["<5>"],
        "token_logprobs": [-9999.0],
        "top_logprobs": [{"<6>": -0.5}],
        "text_offset": [0],
    }
    json.dumps(whole, allow_nan=False)


# Who may ask --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "passes"),
    [
        ("Bearer first-key", True),
        ("bearer second-key", True),
        ("Bearer first-kez", False),
        ("Bearer ", False),
        ("first-key", False),
        ("Basic first-key", False),
        (None, False),
        ("Bearer \xff\xfe", False),
    ],
)
def test_a_key_is_one_of_the_servers(header: str | None, passes: bool) -> None:
    keys = Keys(("first-key", "second-key"))
    if passes:
        keys.check(header)
    else:
        with pytest.raises(RefusedError) as caught:
            keys.check(header)
        assert caught.value.status == 401


def test_a_caller_has_its_share_of_each_minute() -> None:
    rates = Rates(2)
    rates.check("a", 0)
    rates.check("a", 0)
    rates.check("b", 0)
    with pytest.raises(RefusedError) as caught:
        rates.check("a", 1)
    assert caught.value.retry_after == pytest.approx(29)
    rates.check("a", 31)


def test_the_best_answer_passes_or_meets_most() -> None:
    def judged(passed: bool | None, met: int, total: float | None) -> Judged:
        seen = tuple(Judgement("a", strict=i < met, loose=False, seen="") for i in range(2))
        return Judged(passed, total, {}, seen)

    field = [
        judged(None, 0, None),
        judged(False, 1, 0.5),
        judged(True, 2, 1.0),
        judged(False, 1, 0.9),
        judged(True, 2, 1.0),
    ]
    assert best(field, 5) == [2, 4, 3, 1, 0]


# What is kept -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        "ada@example.org",
        "sk-abcdefgh12345678",
        "4111 1111 1111 1111",
        "+49 30 1234567",
        "(555) 123-4567",
        "192.168.0.17",
        "Bearer abcdefgh.12345",
        "AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_secrets_and_addresses_are_left_out(secret: str, tmp_path: Path) -> None:
    log = TrafficLog(tmp_path / "log.jsonl", 10_000)
    assert log.redacted({"prompt": [{"content": f"Use {secret} now"}]}) == {
        "prompt": [{"content": f"Use {REDACTED} now"}]
    }
    log.close()


@pytest.mark.parametrize("plain", ["Order 51234 is due 2026-01-15", "1 2 3 4 5 6 7 8 9 10", "3.14"])
def test_numbers_of_other_kinds_are_kept(plain: str, tmp_path: Path) -> None:
    log = TrafficLog(tmp_path / "log.jsonl", 10_000)
    assert log.redacted(plain) == plain
    log.close()


def test_a_full_log_is_moved_aside_and_nothing_is_larger_than_said(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    log = TrafficLog(file, 200)
    for number in range(20):
        log.write({"prompt": f"{number:03d} " + "x" * 40})
    log.write({"prompt": "y" * 500})
    log.close()
    sizes = [file.stat().st_size, Path(f"{file}.1").stat().st_size]
    assert max(sizes) <= 200
    last = json.loads(file.read_text().splitlines()[-1])
    assert last["prompt"].startswith("019")
    assert sorted(os.listdir(tmp_path)) == ["log.jsonl", "log.jsonl.1"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_half_line_of_a_killed_server_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": "b')
    log = TrafficLog(file, 1000)
    log.write({"prompt": "c"})
    log.close()
    assert [json.loads(line)["prompt"] for line in file.read_text().splitlines()] == ["a", "c"]


def test_a_disk_that_was_full_for_a_while_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "log.jsonl"
    log = TrafficLog(file, 1000)
    log.write({"prompt": "a"})
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda to, data: write(to, data[:5]))
        log.write({"prompt": "b"})
    log.write({"prompt": "c"})
    log.close()
    assert [json.loads(line)["prompt"] for line in file.read_text().splitlines()] == ["a", "c"]
    assert "log.jsonl cannot be written: No space left on device" in caplog.text


def test_a_pattern_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--redact"):
        TrafficLog(tmp_path / "log.jsonl", 1000, ["("])
